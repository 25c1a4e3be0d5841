"""The CSV files of the benchmarks: every run appends its rows."""

from __future__ import annotations

import argparse
import csv
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path


def append_rows(path: Path, rows: Iterable[Mapping[str, object]], columns: Collection[str]) -> None:
    """Append rows to a file, each as soon as it is there; a new file begins with the names of its columns."""
    fresh = not path.exists()
    with path.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        if fresh:
            writer.writeheader()
        for row in rows:
            writer.writerow(row)
            stream.flush()


def add_place_options(parser: argparse.ArgumentParser, csv_name: str) -> None:
    """Add ``--folder`` and ``--csv``: where the files of a benchmark lie, and its rows."""
    parser.add_argument("--folder", type=Path, help="keep files here (default: a temporary folder)")
    parser.add_argument("--csv", type=Path, default=Path(csv_name), help="rows are appended to it")


def add_disk_options(parser: argparse.ArgumentParser, script: str) -> None:
    """Add the options of a benchmark that reads or writes much: its rounds, the disk, and the file of its rows."""
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk that is meant (default: a temporary folder)")
    parser.add_argument("--disk", default="SSD", help="what the row calls it")
    parser.add_argument("--csv", type=Path, default=Path(script).with_suffix(".csv"))


def run_in_its_place(
    arguments: argparse.Namespace,
    run: Callable[[argparse.Namespace, Path], Iterable[Mapping[str, object]]],
    columns: Collection[str],
) -> int:
    """Run a benchmark in its folder and append its rows; a temporary folder is removed, whatever happens."""
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="cryoplug-benchmark-"))
    try:
        append_rows(arguments.csv, run(arguments, folder), columns)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder)
    return 0
