#!/usr/bin/env python3
"""`cryoplug inspect` of a folder of micrographs, beside a program that only reads the same files.

Sides run in turn, several rounds: ``read`` reads every file to its end, 8 MB at a time; ``inspect`` reads, checks and
measures every pixel. First from the disk: the files are written, put on the disk and dropped from memory before each run.
Then from memory: only what each side computes is left, and the clock says what a faster disk would give. Start-up is in the
times. Appends a row for each side and place to cpu_inspect.csv.

    python benchmarks/cpu_inspect.py [--files 60] [--side 4096] [--rounds 3] [--folder DIR --disk "SSD"]
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
import sys
import tempfile
from pathlib import Path

from cpu_denoise import child, cpu_name
from cpu_general import Run, measured
from rows import add_disk_options, append_rows

COLUMNS = (
    *("date", "cpu", "cores", "disk", "load_1min", "files", "side", "place", "program"),
    *("wall_s", "range_s", "processor_s", "mb_per_s", "mb_per_processor_s", "rss_mib"),
)

MAKE = """
import sys
from pathlib import Path
import numpy as np
from cryoplug.formats.mrc import write_mrc
folder, files, side = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
pixels = np.random.default_rng(0).normal(40, 6, (side, side)).astype(np.float32)
for number in range(files):
    write_mrc(folder / f"m{number:05d}.mrc", pixels + np.float32(number), pixel_size_angstrom=0.8)
print("{}")
"""

READ = """
import sys
from pathlib import Path
block = bytearray(1 << 23)
for path in sorted(Path(sys.argv[1]).iterdir()):
    with path.open("rb", 0) as file:
        while file.readinto(block):
            pass
"""


def main() -> None:
    """Run all sides in turn and append their rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=60)
    parser.add_argument("--side", type=int, default=4096)
    add_disk_options(parser, __file__)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cryoplug-benchmark-", dir=options.folder) as name:
        folder = Path(name)
        child(MAKE, folder, options.files, options.side)
        commands = {
            "read": [sys.executable, "-c", READ, name],
            "inspect": [sys.executable, "-m", "cryoplug", "inspect", name],
        }
        runs: dict[tuple[str, str], list[Run]] = {}
        for _ in range(options.rounds):
            for place in ("disk", "memory"):
                for program, command in commands.items():
                    if place == "disk":
                        forget(folder)
                    runs.setdefault((place, program), []).append(measured(command))
        size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    for (place, program), found in runs.items():
        wall = [run.wall_s for run in found]
        processor = statistics.median(run.processor_s for run in found)
        row = {
            "date": datetime.date.today().isoformat(),
            "cpu": cpu_name(),
            "cores": len(os.sched_getaffinity(0)),
            "disk": options.disk,
            "load_1min": round(os.getloadavg()[0], 2),
            "files": options.files,
            "side": options.side,
            "place": place,
            "program": program,
            "wall_s": round(statistics.median(wall), 2),
            "range_s": f"{min(wall):.2f}-{max(wall):.2f}",
            "processor_s": round(processor, 2),
            "mb_per_s": round(size / statistics.median(wall)),
            "mb_per_processor_s": round(size / processor),
            "rss_mib": round(max(run.rss_mib for run in found)),
        }
        append_rows(options.csv, [row], COLUMNS)
        print("; ".join(f"{key} {row[key]}" for key in COLUMNS[4:]), flush=True)


def forget(folder: Path) -> None:
    """Put the files on the disk, and drop them from memory."""
    for path in folder.iterdir():
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


if __name__ == "__main__":
    main()
