#!/usr/bin/env python3
"""Does what a command costs grow as its work does, and does its memory stay? On the CPU, by processor time.

Parts: ``files`` denoises more and more links to one file of 512 x 512 (`cryo_cnn`, no previews). ``headers`` looks at their
headers (`inspect --quick`). ``patches`` makes a store of more and more patches of 64 x 64 (`convert`), 64 from each copy of that
file. ``pixels`` denoises one micrograph of growing side with the general model. From job to job, each further file, patch or
pixel may cost 1.25 times what it cost in the step before; steps of less than a second are too small to tell. Memory may grow
by 15 % with files, by 12 bytes for each pixel of a micrograph, which is held on the network's grid, and by 400 bytes for each
patch, because the store's record says where each was cut. What costs
more is named, and the exit code is 1: run it on an idle machine. Appends a row for each job to linear.csv.

About 15 minutes on two idle cores; ``--files 100 300 1000`` takes 3.

    python benchmarks/linear.py [--parts files headers patches pixels] [--files 100 1000 10000]
                                [--patches 1024 10240 102400] [--sides 2048 4096 8192]
"""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

from cpu_denoise import child, cpu_name
from cpu_general import Run, measured
from rows import append_rows

PARTS = ("files", "headers", "patches", "pixels")
MORE = 1.25
MEMORY_MORE = 1.15
LEAST_S = 1.0
BYTES_A_UNIT = {"pixels": 12, "patches": 400}
PATCH_PX = 64
PATCHES_A_FILE = (512 // PATCH_PX) ** 2
COLUMNS = ("date", "cpu", "load_1min", "part", "units", "processor_s", "wall_s", "rss_mib", "ms_a_unit")

MAKE = """
import sys
from pathlib import Path
import numpy as np
from cryoplug.formats.mrc import write_mrc
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec
folder = Path(sys.argv[1])
rng = np.random.default_rng(0)
for side in map(int, sys.argv[2:]):
    write_mrc(folder / f"{side}.mrc", rng.normal(40, 6, (side, side)).astype(np.float32), pixel_size_angstrom=0.8)
weights = {name: tensor.numpy() for name, tensor in model_spec("cryo_cnn").build(seed=0).state_dict().items()}
save_checkpoint(folder / "run" / "epoch_0001", Checkpoint("cryo_cnn", weights, normalize="zscore"), 0.0)
print("{}")
"""


def command_of(part: str, units: int, folder: Path) -> list[str]:
    """Give the command of a job; `units` are files, patches, or the side of a micrograph."""
    cryoplug = [sys.executable, "-m", "cryoplug"]
    if part == "pixels":
        where = ["--checkpoint", "general", "-o", str(folder / f"out{units}"), "--tta", "off"]
        return [*cryoplug, "denoise", str(folder / f"{units}.mrc"), *where, "--device", "cpu", "--no-previews"]
    if part == "patches":
        copies = folder / f"copies{units}"
        copies.mkdir()
        for number in range(-(-units // PATCHES_A_FILE)):
            shutil.copyfile(folder / "512.mrc", copies / f"m{number:06d}.mrc")
        cut = ["--patch-size", str(PATCH_PX), "--stride", str(PATCH_PX), "--pairs", "noise"]
        return [*cryoplug, "convert", str(copies), "-o", str(folder / f"store{units}"), *cut]
    links = folder / f"links{units}"
    if not links.exists():
        links.mkdir()
        for number in range(units):
            os.link(folder / "512.mrc", links / f"m{number:06d}.mrc")
    if part == "headers":
        return [*cryoplug, "inspect", "--quick", str(links)]
    where = ["--checkpoint", str(folder / "run"), "-o", str(folder / f"files{units}")]
    return [*cryoplug, "denoise", str(links), *where, "--device", "cpu", "--no-previews"]


def problems(part: str, jobs: list[tuple[int, Run]]) -> list[str]:
    """Say which step up costs more than the step before, and where memory grows."""
    amounts = [(units**2 if part == "pixels" else units, run) for units, run in jobs]
    steps = [
        (after[0], (after[1].processor_s - before[1].processor_s) / (after[0] - before[0]))
        for before, after in pairwise(amounts)
        if after[1].processor_s - before[1].processor_s >= LEAST_S
    ]
    found = [
        f"{part}: up to {units} a unit costs {second / first:.2f} times what it costs before (allowed: {MORE})"
        for (_, first), (units, second) in pairwise(steps)
        if second > MORE * first
    ]
    first_units, first_run = amounts[0]
    for units, run in amounts[1:]:
        each = BYTES_A_UNIT.get(part)
        more = (MEMORY_MORE - 1) * first_run.rss_mib if each is None else each * (units - first_units) / 2**20
        if run.rss_mib > first_run.rss_mib + more:
            found.append(f"{part}: {units} take {run.rss_mib:.0f} MiB, {first_units} took {first_run.rss_mib:.0f}")
    return found


def main() -> None:
    """Run all jobs, append their rows and name what does not grow in line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--files", nargs="+", type=int, default=[100, 1000, 10000])
    parser.add_argument("--patches", nargs="+", type=int, default=[1024, 10240, 102400])
    parser.add_argument("--sides", nargs="+", type=int, default=[2048, 4096, 8192])
    parser.add_argument("--csv", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="cryoplug-benchmark-") as name:
        folder = Path(name)
        child(MAKE, folder, 512, *(options.sides if "pixels" in options.parts else []))
        for part in options.parts:
            jobs = []
            for units in sorted({"pixels": options.sides, "patches": options.patches}.get(part, options.files)):
                run = measured(command_of(part, units, folder))
                jobs.append((units, run))
                row = row_of(part, units, run)
                append_rows(options.csv, [row], COLUMNS)
                print("; ".join(f"{key} {row[key]}" for key in COLUMNS[3:]), flush=True)
            wrong += problems(part, jobs)
    print("\n".join(wrong) or "all grow in line")
    sys.exit(1 if wrong else 0)


def row_of(part: str, units: int, run: Run) -> dict[str, object]:
    """Give the row of a job; a unit of ``pixels`` is a million of them."""
    amount = units**2 / 1e6 if part == "pixels" else units
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu_name(),
        "load_1min": round(os.getloadavg()[0], 2),
        "part": part,
        "units": units,
        "processor_s": round(run.processor_s, 2),
        "wall_s": round(run.wall_s, 2),
        "rss_mib": round(run.rss_mib),
        "ms_a_unit": round(1000 * run.processor_s / amount, 3),
    }


if __name__ == "__main__":
    main()
