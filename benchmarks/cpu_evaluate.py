"""`cryoplug evaluate` of one micrograph on a CPU, by its halves, and by truth and halves, against another checkout.

    python benchmarks/cpu_evaluate.py [--before other/checkout] [--size 4096] [--repeats 1] [--csv cpu_evaluate.csv]

The micrograph is smooth noise, and its two halves have noise of their own. `--checkpoint` (default: the general model) denoises
them, in a process of its own for each run; the checkouts take turns. Processor time of all threads from start to end says more
than the clock where other jobs run. With `--before`, the largest difference of any figure in decibels is told, too.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from cpu_denoise import cpu_name
from cryoplug.formats.mrc import write_mrc
from cryoplug.metrics.baselines import gaussian_blur
from rows import append_rows

PIXEL_SIZE_ANGSTROM = 0.8
ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Run all in turn and append rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="another checkout to compare with")
    parser.add_argument("--size", type=int, default=4096, help="side in pixels (default 4096)")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--checkpoint", default="general")
    parser.add_argument("--csv", type=Path, default=Path(__file__).with_suffix(".csv"), help="rows are appended to it")
    arguments = parser.parse_args()
    checkouts = {**({"before": arguments.before.resolve()} if arguments.before else {}), "now": ROOT}
    with tempfile.TemporaryDirectory(prefix="cryoplug-benchmark-") as name:
        folder = Path(name)
        make_files(folder, arguments.size)
        inputs = {
            "halves": ["--even", folder / "m_EVN.mrc", "--odd", folder / "m_ODD.mrc"],
            "truth and halves": [folder / "m.mrc", "--clean", folder / "truth.mrc"],
        }
        for judge, words in inputs.items():
            command = ["evaluate", *map(str, words), "--checkpoint", arguments.checkpoint, "--device", "cpu"]
            runs: dict[str, list[dict[str, Any]]] = {checkout: [] for checkout in checkouts}
            for _ in range(arguments.repeats):
                for checkout, root in checkouts.items():
                    runs[checkout].append(
                        run([*command, "-o", str(folder / "out"), "--overwrite"], root, folder / "out")
                    )
            rows = [row_of(judge, checkout, found, runs, arguments) for checkout, found in runs.items()]
            append_rows(arguments.csv, rows, list(rows[0]))
            for row in rows:
                print(json.dumps(row), flush=True)
    return 0


def make_files(folder: Path, side: int) -> None:
    """Write the halves, their mean, and the truth."""
    rng = np.random.default_rng(3)
    truth = gaussian_blur(rng.standard_normal((side, side), np.float32), 3)
    truth = truth / truth.std() + 10
    halves = {name: truth + 5 * rng.standard_normal((side, side), np.float32) for name in ("m_EVN", "m_ODD")}
    for name, pixels in {**halves, "m": 0.5 * (halves["m_EVN"] + halves["m_ODD"]), "truth": truth}.items():
        write_mrc(folder / f"{name}.mrc", pixels.astype(np.float32), pixel_size_angstrom=PIXEL_SIZE_ANGSTROM)


def run(command: list[str], root: Path, output: Path) -> dict[str, Any]:
    """Run the command of a checkout; give its times, its memory and its figures in decibels."""
    start = time.perf_counter()
    child = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "cryoplug", *command],
        {**os.environ, "PYTHONPATH": str(root), "PYTHONSAFEPATH": "1"},
        file_actions=[(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1)],
    )
    _, status, used = os.wait4(child, 0)
    if status:
        raise SystemExit(f"exit {os.waitstatus_to_exitcode(status)}: {' '.join(command)}")
    summary = json.loads((output / "evaluation.json").read_text())["summary"]
    return {
        "seconds": time.perf_counter() - start,
        "cpu_s": used.ru_utime + used.ru_stime,
        "rss_mib": used.ru_maxrss / 1024,
        "decibels": {
            (judge, method, figure): value["mean"]
            for judge in ("halves", "truth")
            for method, figures in (summary[judge] or {}).items()
            for figure, value in figures.items()
            if figure.endswith("_db")
        },
    }


def row_of(
    judge: str,
    checkout: str,
    found: list[dict[str, Any]],
    runs: dict[str, list[dict[str, Any]]],
    arguments: argparse.Namespace,
) -> dict[str, object]:
    """Give a row of the CSV file."""
    first = next(iter(runs.values()))[0]["decibels"]
    differences = [abs(value - first[name]) for name, value in found[0]["decibels"].items() if value is not None]
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "load_1min": round(os.getloadavg()[0], 2),
        "shape": f"{arguments.size}x{arguments.size}",
        "checkpoint": arguments.checkpoint,
        "judge": judge,
        "checkout": checkout,
        "repeats": len(found),
        "processor_s": round(statistics.median(item["cpu_s"] for item in found), 1),
        "clock_s": round(statistics.median(item["seconds"] for item in found), 1),
        "rss_mib": round(max(item["rss_mib"] for item in found)),
        "largest_difference_db": f"{max(differences):.1e}" if len(runs) > 1 and checkout == "now" else "",
    }


if __name__ == "__main__":
    sys.exit(main())
