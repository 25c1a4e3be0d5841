#!/usr/bin/env python3
"""`cryoplug denoise` of one large stack of particles, against a plain copy of it, and against the network alone.

The stack is made once, then each side runs in processes of its own, in turn: the copy reads and writes 8 MB at a time and
ends with an fsync, as the command does; the network alone takes normalised images from memory, as many at a time as the command
gives it, a tenth of the stack, multiplied by ten. Importing torch is in no time. Processor time of all threads is told beside
the wall clock's: on a machine that is not idle it says more. The stack was just written, so all sides
read it from the page cache. Appends one row to particle_stacks.csv beside this file.

    python benchmarks/particle_stacks.py [--count 100000] [--size 64] [--model cryo_cnn] [--device cuda] [--folder DIR]
"""

from __future__ import annotations

import argparse
import datetime
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from cpu_denoise import child, cpu_name, figures
from rows import append_rows

MAKE = """
import sys
from pathlib import Path
import mrcfile, numpy as np
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec
folder, count, size, model = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
random = np.random.default_rng(0)
y, x = np.mgrid[:size, :size] - size / 2
blob = (-0.5 * np.exp(-(y * y + x * x) / (size * size / 32))).astype(np.float32)
with mrcfile.new_mmap(folder / "particles.mrcs", (count, size, size), mrc_mode=2) as stack:
    for first in range(0, count, 1000):
        stack.data[first : first + 1000] = random.standard_normal((min(1000, count - first), size, size), np.float32) + blob
    stack.set_image_stack()
    stack.voxel_size = 2.6
weights = {name: tensor.numpy() for name, tensor in model_spec(model).build(seed=0).state_dict().items()}
checkpoint = Checkpoint(model, weights, normalize="zscore", founding=False)
save_checkpoint(folder / "run" / "epoch_0001", checkpoint, 0.0)
print("{}")
"""

TIMED = """
import json, os, resource, sys, time
import torch
def timed(work, times=1):
    start, cpu_start = time.perf_counter(), time.process_time()
    work()
    seconds, cpu_s = (time.perf_counter() - start) * times, (time.process_time() - cpu_start) * times
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "cpu_s": cpu_s, "rss_mib": rss}))
folder, threads, device = sys.argv[1], int(sys.argv[2]), sys.argv[3]
"""

COPY = (
    TIMED
    + """
def work():
    with open(f"{folder}/particles.mrcs", "rb", 0) as source, open(f"{folder}/copy.mrcs", "wb", 0) as target:
        while block := source.read(1 << 23):
            target.write(block)
        os.fsync(target.fileno())
timed(work)
os.unlink(f"{folder}/copy.mrcs")
"""
)

COMMAND = (
    TIMED
    + """
from cryoplug.cli.main import run
def work():
    code = run(["denoise", f"{folder}/particles.mrcs", "--checkpoint", f"{folder}/run", "-o", f"{folder}/out",
                "--threads", str(threads), "--device", device, "--overwrite", "--json"])
    assert code == 0, code
timed(work)
"""
)

NETWORK = (
    TIMED
    + """
import numpy as np
from cryoplug.inference.denoiser import Denoiser
count, size = int(sys.argv[4]), int(sys.argv[5])
denoiser = Denoiser.from_checkpoint(f"{folder}/run", device=device, threads=threads)
at_once = max(1, (1 << 21) // size**2)
images = np.random.default_rng(0).standard_normal((min(count // 10, at_once), size, size), np.float32)
denoiser.many(images[:2])
def work():
    for _ in range(max(1, count // 10 // len(images))):
        denoiser.many(images)
done = max(1, count // 10 // len(images)) * len(images)
timed(work, times=count / done)
"""
)


DEVICE = """
import json, sys, torch
print(json.dumps(torch.cuda.get_device_name(sys.argv[1]) if sys.argv[1].startswith("cuda") else "cpu"))
"""


def main() -> None:
    """Measure the three sides in turn and append a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--model", choices=["cryo_cnn", "unet"], default="cryo_cnn")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to put the stack; three times its size must fit")
    parser.add_argument("--csv", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args()
    copies: list[dict[str, float]] = []
    commands: list[dict[str, float]] = []
    networks: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="cryoplug-benchmark-", dir=options.folder) as folder:
        start = time.perf_counter()
        child(MAKE, folder, options.count, options.size, options.model)
        print(f"the stack was written in {time.perf_counter() - start:.1f} s", flush=True)
        place = (folder, options.threads, options.device)
        sides: dict[str, tuple[list[dict[str, float]], tuple[Any, ...]]] = {
            "copy": (copies, (COPY, *place)),
            "command": (commands, (COMMAND, *place)),
            "network alone": (networks, (NETWORK, *place, options.count, options.size)),
        }
        for _ in range(options.repeats):
            for name, (found, words) in sides.items():
                start = time.perf_counter()
                found.append(child(*words))
                print(f"{name}: {found[-1]}, {time.perf_counter() - start:.1f} s with its start", flush=True)
    row = {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu_name(),
        "device": child(DEVICE, options.device),
        "threads": options.threads,
        "load_1min": round(os.getloadavg()[0], 2),
        "torch": child("import json, torch; print(json.dumps(torch.__version__))"),
        "model": options.model,
        "images": options.count,
        "shape": f"{options.size}x{options.size}",
        "dtype": "float32",
        "repeats": options.repeats,
        **figures("plain_copy", copies),
        **figures("cryoplug_command", commands),
        **figures("network_alone", networks),
    }
    append_rows(options.csv, [row], list(row))
    for key, value in row.items():
        print(f"{key:>26}  {value}")


if __name__ == "__main__":
    main()
