#!/usr/bin/env python3
"""`cryoplug convert` beside `cp`, on the same files and the same disk: start-up and throughput, each for itself.

Pairs of halves (float32 MRC) become a store of whole micrographs. Sides run in turn, several rounds:

- ``cp``: copies the files; what it wrote is still in memory;
- ``cp, synced``: and waits until it is on the disk, as `convert` does;
- ``bare``: reads each file, sums it up (CRC-32) and writes it, as a store must, with nothing measured and nothing changed;
- ``convert --normalize zscore`` and ``percentile``;
- ``patches``: ``convert --store patches --pairs halves``, which writes overlapping patches: more bytes.

Start-up is the time of one small pair (256 x 256). Throughput is that of the bytes read, start-up taken off. Appends a row for
each side to cpu_convert.csv. A minute on two idle cores.

    python benchmarks/cpu_convert.py [--pairs 6] [--side 4096] [--rounds 3] [--folder /dev/shm --disk "RAM disk"]
"""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from cpu_denoise import child, cpu_name
from cpu_general import Run, measured
from rows import add_disk_options, append_rows

COLUMNS = (
    "date", "cpu", "cores", "disk", "load_1min", "side", "pairs", "pixels", "wall_s", "range_s", "processor_s", "start_s",
    "mb_per_s", "of_cp", "of_cp_synced", "rss_mib",
)  # fmt: skip

MAKE = """
import sys
from pathlib import Path
import numpy as np
from cryoplug.formats.mrc import write_mrc
folder, pairs, side = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
folder.mkdir()
rng = np.random.default_rng(0)
for number in range(pairs):
    seen = rng.normal(0, 1, (side // 16, side // 16)).astype(np.float32).repeat(16, 0).repeat(16, 1)
    for half in ("even", "odd"):
        pixels = np.abs(20 + seen + 5 * rng.standard_normal((side, side), np.float32))
        write_mrc(folder / f"m{number}_{half}.mrc", pixels, pixel_size_angstrom=0.8)
print("{}")
"""

BARE = """
import os, sys, zlib
from pathlib import Path
target = os.open(Path(sys.argv[2]) / "bare.bin", os.O_WRONLY | os.O_CREAT)
place, block = 0, bytearray(1 << 20)
for path in sorted(Path(sys.argv[1]).iterdir()):
    total, source = 0, os.open(path, os.O_RDONLY)
    while got := os.preadv(source, [block], place % path.stat().st_size):
        total = zlib.crc32(memoryview(block)[:got], total)
        place += os.pwrite(target, memoryview(block)[:got], place)
        if place % path.stat().st_size == 0:
            break
    os.close(source)
os.fdatasync(target)
"""


def commands(source: Path, target: Path) -> dict[str, list[str]]:
    """Give the command of each side."""
    halves = ["--even", str(source / "*_even.mrc"), "--odd", str(source / "*_odd.mrc")]
    convert = [sys.executable, "-m", "cryoplug", "convert", "--pairs", "halves", *halves, "-o", str(target / "store")]
    copy = ["cp", *map(str, sorted(source.iterdir())), str(target)]
    return {
        "cp": copy,
        "cp, synced": ["sh", "-c", '"$@" && sync -d "$0"/*', str(target), *copy],
        "bare": [sys.executable, "-c", BARE, str(source), str(target)],
        "zscore": [*convert, "--store", "whole", "--normalize", "zscore"],
        "percentile": [*convert, "--store", "whole", "--normalize", "percentile"],
        "patches": [*convert, "--store", "patches", "--normalize", "zscore"],
    }


def run_side(name: str, source: Path, target: Path) -> Run:
    """Run a side into an empty folder, and empty it again."""
    target.mkdir()
    run = measured(commands(source, target)[name])
    shutil.rmtree(target)
    return run


def main() -> None:
    """Run all sides in turn and append their rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--side", type=int, default=4096)
    add_disk_options(parser, __file__)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cryoplug-benchmark-", dir=options.folder) as name:
        folder = Path(name)
        source, small, target = folder / "in", folder / "small", folder / "out"
        child(MAKE, source, options.pairs, options.side)
        child(MAKE, small, 1, 256)
        sides = list(commands(source, target))
        runs: dict[str, list[Run]] = {side: [] for side in sides}
        starts: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(options.rounds):
            for side in sides:
                starts[side].append(run_side(side, small, target).wall_s)
                runs[side].append(run_side(side, source, target))
        size = sum(path.stat().st_size for path in source.iterdir()) / 1e6
    wall = {side: statistics.median(run.wall_s for run in runs[side]) for side in sides}
    start = {side: statistics.median(starts[side]) for side in sides}
    speed = {side: size / (wall[side] - start[side]) for side in sides}
    for side in sides:
        row = {
            "date": datetime.date.today().isoformat(),
            "cpu": cpu_name(),
            "cores": len(os.sched_getaffinity(0)),
            "disk": options.disk,
            "load_1min": round(os.getloadavg()[0], 2),
            "side": side,
            "pairs": options.pairs,
            "pixels": options.side,
            "wall_s": round(wall[side], 3),
            "range_s": f"{min(run.wall_s for run in runs[side]):.3f}-{max(run.wall_s for run in runs[side]):.3f}",
            "processor_s": round(statistics.median(run.processor_s for run in runs[side]), 2),
            "start_s": round(start[side], 3),
            "mb_per_s": round(speed[side]),
            "of_cp": round(speed[side] / speed["cp"], 2),
            "of_cp_synced": round(speed[side] / speed["cp, synced"], 2),
            "rss_mib": round(max(run.rss_mib for run in runs[side])),
        }
        append_rows(options.csv, [row], COLUMNS)
        print("; ".join(f"{key} {row[key]}" for key in COLUMNS[4:] if row[key] is not None), flush=True)


if __name__ == "__main__":
    main()
