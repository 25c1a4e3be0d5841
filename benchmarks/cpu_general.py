#!/usr/bin/env python3
"""The general model on the CPU: the whole command, beside the plain network, beside tiles, and beside a peer.

Every side runs in a process of its own, in turn, several times. Processor time is that of all threads, the start of Python
and torch included: on a machine that is not idle it says more than the clock. Sides:

- ``plain``: the network's layers as torch runs them, on the whole image on the network's grid, one orientation; without
  files, statistics and Fourier crop;
- ``tiles``: ``cryoplug denoise --tile 448``, as it was before rows rolled (docs/decisions/0034-rolling-rows.md);
- ``command`` and ``eight``: ``cryoplug denoise``, in one orientation and in eight;
- ``network``: the network alone, as the command runs it;
- ``small``: ``cryoplug denoise`` of a file of 512 x 512: what it takes to start;
- ``--peer "COMMAND {input} {output}"``: another program, once.

``--bf16`` also says how far bfloat16 would be from float32. Appends rows to cpu_general.csv; 5 minutes on two idle cores.

    python benchmarks/cpu_general.py [--size 4096] [--angpix 0.8] [--repeats 3] [--sides ...] [--peer COMMAND] [--bf16]
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cpu_denoise import child, cpu_name
from rows import append_rows

ROOT = Path(__file__).resolve().parents[1]
SIDES = ("plain", "tiles", "command", "eight", "network", "small")
COLUMNS = [
    *("date", "cpu", "threads", "load_1min", "side", "size", "angpix", "repeats"),
    *("wall_s", "processor_s", "processor_range_s", "rss_mib", "difference_of_range"),
]

MAKE = """
import sys
from pathlib import Path
import numpy as np
from cryoplug.formats.mrc import write_mrc
folder, angpix = Path(sys.argv[1]), float(sys.argv[3])
rng = np.random.default_rng(0)
for name, size in (("micrograph", int(sys.argv[2])), ("small", 512)):
    pixels = rng.normal(40, 6, (size, size)).astype(np.float32)
    for _ in range(size // 16):
        y, x = rng.integers(0, size - 64, 2)
        pixels[y : y + 64, x : x + 64] -= 2
    write_mrc(folder / f"{name}.mrc", pixels, pixel_size_angstrom=angpix)
print("{}")
"""

NETWORK = """
import json, sys, time
import numpy as np, torch
from pathlib import Path
from cryoplug.core.fourier_crop import cropped_shape, resample_image
from cryoplug.core.micrograph import ArrayMicrograph
from cryoplug.core.normalization import fit_normalization
from cryoplug.formats.registry import open_micrograph
from cryoplug.inference.denoiser import Denoiser
from cryoplug.models.checkpoint import load_checkpoint
how, path, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
with open_micrograph(path) as source:
    pixels = source.read_rows(0, source.shape[0])
    size = source.pixel_size_angstrom
small = resample_image(pixels, cropped_shape(pixels.shape, pixel_size_angstrom=size, target_angstrom=2.6))
small = fit_normalization(ArrayMicrograph(small), "robust").apply(small)
denoiser = Denoiser(load_checkpoint("general"), device="cpu", threads=threads, tta="off")
def plain(image, dtype=torch.float32):
    module = denoiser.network.module.to(dtype).to(memory_format=torch.channels_last)
    images = torch.from_numpy(image)[None, None].contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        return module(images)[0, 0].float().numpy()
def rolled(image):
    return np.concatenate([denoiser.forward(image[b.read.y0 : b.read.y1], b) for b in denoiser.bands(image.shape)])
torch.set_num_threads(threads)
made = None if how != "bf16" else plain(small[:640, :640])
start, cpu_start = time.perf_counter(), time.process_time()
found = rolled(small) if how == "network" else plain(small) if how == "plain" else plain(small[:640, :640], torch.bfloat16)
record = {"seconds": time.perf_counter() - start, "cpu_s": time.process_time() - cpu_start}
if made is not None:
    record["difference"] = float(np.abs(found - made).max() / np.ptp(made))
print(json.dumps(record))
"""


@dataclass(frozen=True)
class Run:
    """One process."""

    wall_s: float
    processor_s: float
    rss_mib: float
    record: dict[str, float]


def measured(command: Sequence[str]) -> Run:
    """Run a command to its end, with the times and the memory of its process and of those that it waited for."""
    with tempfile.TemporaryFile("w+") as said:
        start = time.perf_counter()
        process = subprocess.Popen(list(command), cwd=ROOT, stdout=said, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read()
    if process.returncode:
        sys.exit(f"{shlex.join(command)}\n{text}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, _record(text))


def _record(text: str) -> dict[str, float]:
    lines = text.strip().splitlines()
    return json.loads(lines[-1]) if lines and lines[-1].startswith('{"seconds"') else {}


def commands(folder: Path, threads: int) -> dict[str, list[str]]:
    """Give the command of each side; those that write go to a folder of their own."""
    micrograph, small = str(folder / "micrograph.mrc"), str(folder / "small.mrc")

    def denoise(name: str, path: str, *options: str) -> list[str]:
        where = ["--checkpoint", "general", "-o", str(folder / name), "--device", "cpu", "--threads", str(threads)]
        return [sys.executable, "-m", "cryoplug", "denoise", path, *where, "--overwrite", *options]

    def network(how: str) -> list[str]:
        return [sys.executable, "-c", NETWORK, how, micrograph, str(threads)]

    return {
        "plain": network("plain"),
        "network": network("network"),
        "bf16": network("bf16"),
        "tiles": denoise("tiles", micrograph, "--tta", "off", "--tile", "448"),
        "command": denoise("command", micrograph, "--tta", "off"),
        "eight": denoise("eight", micrograph, "--tta", "on"),
        "small": denoise("small", small, "--tta", "off"),
    }


def difference(folder: Path) -> float:
    """Give the largest difference of the command's pixels from those of tiles, as a part of their range."""
    import mrcfile
    import numpy as np

    ours, tiles = (mrcfile.read(folder / name / "micrograph.mrc") for name in ("command", "tiles"))
    return float(np.abs(ours - tiles).max() / np.ptp(tiles))


def main() -> None:
    """Measure all sides in turn and append a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--angpix", type=float, default=0.8)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--peer", help="another program, with {input} and {output}")
    parser.add_argument("--bf16", action="store_true", help="say how far bfloat16 is from float32")
    parser.add_argument("--csv", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args()
    sides = [*options.sides, *(["bf16"] if options.bf16 else [])]
    runs: dict[str, list[Run]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory(prefix="cryoplug-benchmark-") as name:
        folder = Path(name)
        child(MAKE, folder, options.size, options.angpix)
        todo = commands(folder, options.threads)
        for _ in range(options.repeats):
            for side in sides:
                runs[side].append(measured(todo[side]))
        if options.peer:
            asked = options.peer.format(input=folder / "micrograph.mrc", output=folder / "peer.mrc")
            runs["peer"] = [measured(shlex.split(asked))]
        apart = difference(folder) if {"command", "tiles"} <= set(sides) else None
    rows = [row_of(side, found, options, apart) for side, found in runs.items()]
    append_rows(options.csv, rows, COLUMNS)
    for row in rows:
        shown = "; ".join(f"{key} {row[key]}" for key in COLUMNS[8:] if row[key] != "")
        print(f"{row['side']:>8}  {shown}")


def row_of(side: str, found: list[Run], options: argparse.Namespace, apart: float | None) -> dict[str, object]:
    """Give the row of a side; of the network alone, without the process around it."""
    walls = [run.record.get("seconds", run.wall_s) for run in found]
    processor = [run.record.get("cpu_s", run.processor_s) for run in found]
    measured_apart = found[0].record.get("difference", apart if side == "command" else None)
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu_name(),
        "threads": options.threads,
        "load_1min": round(os.getloadavg()[0], 2),
        "side": side,
        "size": 512 if side == "small" else options.size,
        "angpix": options.angpix,
        "repeats": len(found),
        "wall_s": round(statistics.median(walls), 2),
        "processor_s": round(statistics.median(processor), 2),
        "processor_range_s": f"{min(processor):.2f}-{max(processor):.2f}",
        "rss_mib": round(max(run.rss_mib for run in found)),
        "difference_of_range": "" if measured_apart is None else f"{measured_apart:.1e}",
    }


if __name__ == "__main__":
    main()
