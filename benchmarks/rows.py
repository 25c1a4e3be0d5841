"""The CSV files of the benchmarks: every run appends its rows."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Mapping
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
