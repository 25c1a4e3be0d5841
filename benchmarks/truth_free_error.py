"""Is the error that halves tell without a truth the true one? Asked of a checkpoint on simulated micrographs.

    python benchmarks/truth_free_error.py --checkpoint saved_models/unet [--count 20] [--size 1024] [--pixel-size 5.2]

Micrographs are made by `cryoplug simulate` with a seed of their own and judged by `cryoplug evaluate` with their halves
and their truth. Prints both errors and how far they are apart, in the mean and one by one; exit code 1 beyond 5 %.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from rows import append_rows

ALLOWED = 0.05


def main() -> int:
    """Simulate, evaluate, and append a CSV row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="run folder or epoch_NNNN folder")
    parser.add_argument("--count", type=int, default=20, help="micrographs (default 20)")
    parser.add_argument("--size", type=int, default=1024, help="side in pixels (default 1024)")
    parser.add_argument("--pixel-size", type=float, default=5.2, help="angstrom (default 5.2)")
    parser.add_argument("--dose", type=float, default=40.0, help="electrons per square angstrom (default 40)")
    parser.add_argument("--seed", type=int, default=1000, help="of the simulation (default 1000)")
    parser.add_argument("--device", default="auto", help="default auto")
    parser.add_argument("--csv", type=Path, default=Path("truth_free_error.csv"), help="a row is appended to it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as text:
        found = measure(Path(text), arguments)
    told, true = (np.array([item[name] for item in found]) for name in ("truth_free_error", "true_error"))
    deviations = told / true - 1
    row = {
        "date": datetime.date.today().isoformat(),
        "checkpoint": arguments.checkpoint.name,
        "micrographs": len(found),
        "size": arguments.size,
        "pixel_size_angstrom": arguments.pixel_size,
        "dose": arguments.dose,
        "truth_free_error": f"{told.mean():.6g}",
        "true_error": f"{true.mean():.6g}",
        "deviation": f"{told.mean() / true.mean() - 1:+.4f}",
        "deviation_of_one_rms": f"{np.sqrt(np.mean(deviations**2)):.4f}",
        "deviation_of_one_largest": f"{np.abs(deviations).max():.4f}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    print(json.dumps(row, indent=1))
    append_rows(arguments.csv, [row], list(row))
    return 0 if abs(told.mean() / true.mean() - 1) <= ALLOWED else 1


def measure(folder: Path, arguments: argparse.Namespace) -> list[dict[str, float]]:
    """Return the two errors of every micrograph."""
    made = folder / "simulated"
    words = ["--count", arguments.count, "--size", arguments.size, "--pixel-size", arguments.pixel_size]
    cryoplug("simulate", "-o", made, *words, "--dose", arguments.dose, "--seed", arguments.seed)
    sides = [word for side in ("even", "odd", "clean") for word in (f"--{side}", made / side)]
    cryoplug(
        "evaluate", "--checkpoint", arguments.checkpoint, *sides, "-o", folder / "out", "--device", arguments.device
    )
    record = json.loads((folder / "out" / "evaluation.json").read_text())
    return [item["agreement"] for item in record["micrographs"]]


def cryoplug(*words: object) -> None:
    """Run a command of cryoplug; what it says on stderr is seen, its stdout is not."""
    command = [sys.executable, "-m", "cryoplug", *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
