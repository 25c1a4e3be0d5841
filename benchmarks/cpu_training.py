"""Training on the CPU: `cryoplug train` against a plain PyTorch program, both in this run, on the same bins.

    python benchmarks/cpu_training.py --plain plain_pytorch_train.py [--csv cpu_training.csv]

The plain program is any script with the interface of the yardstick: ``DATA --epochs N --batch-size N --val-split F --device
cpu --size N``, printing one JSON line with ``train_images_per_s`` and ``val_loss``. The two sides alternate, so that a
load on the machine meets both; medians over rounds and epochs are compared. ``--bands`` first times band heights.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from rows import append_rows


def main() -> int:
    """Run both sides in turn and append a CSV row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plain", type=Path, required=True, help="path of the plain program")
    parser.add_argument("--patches", type=int, default=27, help="patches in the set; a tenth validates (default 27)")
    parser.add_argument("--size", type=int, default=1024, help="side of a patch (default 1024)")
    parser.add_argument("--batch-size", type=int, default=8, help="default 8")
    parser.add_argument("--epochs", type=int, default=2, help="epochs a round (default 2)")
    parser.add_argument("--rounds", type=int, default=2, help="times each side runs (default 2)")
    parser.add_argument("--bands", action="store_true", help="also time band heights")
    parser.add_argument("--csv", type=Path, default=Path("cpu_training.csv"), help="a row is appended to it")
    arguments = parser.parse_args()
    if arguments.bands:
        time_bands(arguments.size, arguments.batch_size)
    with tempfile.TemporaryDirectory(prefix="cryoplug-benchmark-") as folder:
        make_bins(Path(folder), count=arguments.patches, size=arguments.size)
        plain: list[float] = []
        ours: list[float] = []
        losses = {}
        for number in range(arguments.rounds):
            for name, speeds, run in (("plain", plain, run_plain), ("cryoplug", ours, run_cryoplug)):
                images_per_s, losses[name] = run(Path(folder), arguments)
                speeds.extend(images_per_s)
                print(
                    f"round {number + 1} {name}: {images_per_s} images/s, validation loss {losses[name]:.6f}",
                    flush=True,
                )
    row = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch_version(),
        "patch": f"{arguments.size}x{arguments.size} float32",
        "batch_size": arguments.batch_size,
        "plain_images_per_s": statistics.median(plain),
        "plain_range": f"{min(plain):.2f}-{max(plain):.2f}",
        "cryoplug_images_per_s": statistics.median(ours),
        "cryoplug_range": f"{min(ours):.2f}-{max(ours):.2f}",
        "ratio": round(statistics.median(ours) / statistics.median(plain), 2),
    }
    for key, value in row.items():
        print(f"{key:24s} {value}")
    append_rows(arguments.csv, [row], list(row))
    return 0


def make_bins(folder: Path, *, count: int, size: int) -> None:
    """Smooth images and noisy copies of them, one patch at a time."""
    rng = np.random.default_rng(0)
    with open(folder / "clean_train.bin", "wb") as clean_file, open(folder / "noisy_train.bin", "wb") as noisy_file:
        for _ in range(count):
            clean = 0.5 + 0.1 * np.cumsum(rng.standard_normal((size, size), np.float32), axis=1) / size**0.5
            noisy = clean + 0.1 * rng.standard_normal((size, size), np.float32)
            np.clip(clean, 0, 1).astype("<f4").tofile(clean_file)
            np.clip(noisy, 0, 1).astype("<f4").tofile(noisy_file)


def run_plain(folder: Path, arguments: argparse.Namespace) -> tuple[list[float], float]:
    """Return images/s of each epoch and the last validation loss of the plain program."""
    output = run([
        arguments.plain, folder, "--epochs", arguments.epochs, "--batch-size", arguments.batch_size,
        "--val-split", 0.1, "--size", arguments.size, "--device", "cpu",
    ])  # fmt: skip
    record = json.loads(output.splitlines()[-1])
    return record["train_images_per_s"], record["val_loss"][-1]


def run_cryoplug(folder: Path, arguments: argparse.Namespace) -> tuple[list[float], float]:
    """Return images/s of each epoch and the last validation loss of `cryoplug train`."""
    output = run([
        "-m", "cryoplug", "train", folder, "--epochs", arguments.epochs, "--batch-size", arguments.batch_size,
        "--val-split", 0.1, "--patch-size", arguments.size, "--device", "cpu", "--json",
    ])  # fmt: skip
    records = [json.loads(line) for line in output.splitlines()]
    return [round(record["samples_per_s"], 2) for record in records], records[-1]["val_loss"]


def run(words: list[object]) -> str:
    """Run this interpreter with arguments and return its stdout."""
    command = [sys.executable, *(str(word) for word in words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def time_bands(size: int, batch_size: int, *, rounds: int = 8) -> None:
    """Time one training step for several band heights, in turn, so that a load on the machine meets all of them."""
    import torch

    from cryoplug.kernels.bands import band_workers, loss_and_gradients
    from cryoplug.machine.allocator import keep_allocator_memory
    from cryoplug.models.registry import CRYO_CNN

    keep_allocator_memory()
    noisy, clean = torch.rand(2, batch_size, 1, size, size)
    module = CRYO_CNN.build().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    heights = (16, 32, 64, 128, 192, 256, 512, 1024)
    wall: dict[int, list[float]] = {rows: [] for rows in heights}
    processor: dict[int, list[float]] = {rows: [] for rows in heights}
    with band_workers(len(os.sched_getaffinity(0))) as pool:
        for number in range(rounds + 1):
            for rows in heights:
                begin, begin_processor = time.perf_counter(), time.process_time()
                loss_and_gradients(module, noisy, clean, receptive_field_px=3, band_rows=rows, pool=pool)
                if number:  # the first round warms up
                    wall[rows].append(time.perf_counter() - begin)
                    processor[rows].append(time.process_time() - begin_processor)
    for rows in heights:
        print(
            f"bands of {rows:4d} rows: median {batch_size / statistics.median(wall[rows]):6.2f} images/s, "
            f"best {batch_size / min(wall[rows]):6.2f}, "
            f"{1000 * statistics.median(processor[rows]) / batch_size:.0f} ms of processor an image",
            flush=True,
        )


def cpu_model() -> str:
    """Name the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def torch_version() -> str:
    """Name the version of torch without importing it."""
    from importlib import metadata

    return metadata.version("torch")


if __name__ == "__main__":
    sys.exit(main())
