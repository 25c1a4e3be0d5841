"""What previews cost: milliseconds a micrograph by stage, and files a second of `denoise` with and without them, in turn.

python benchmarks/previews.py --files 6 --rounds 3
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cryoplug.core.micrograph import ArrayMicrograph
from cryoplug.core.thumbnail import BeforeAfter, thumbnail_of
from cryoplug.formats.mrc import write_mrc
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec
from cryoplug.outputs.pictures import jpeg
from cryoplug.outputs.previews import draw_preview, preview_of, preview_of_files, write_preview
from cryoplug.workflows.denoise import DenoiseRequest, denoise


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--files", type=int, default=6)
    options.add_argument("--side", type=int, default=4096)
    options.add_argument("--rounds", type=int, default=3)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure_stages(folder, asked.side)
        measure_runs(folder, asked.side, asked.files, asked.rounds)


def measure_stages(folder: Path, side: int) -> None:
    image = np.random.default_rng(1).normal(10, 1, (side, side)).astype(np.float32)
    path = folder / "raw.mrc"
    write_mrc(path, image, pixel_size_angstrom=0.83)
    source = ArrayMicrograph(image, path)
    small = thumbnail_of(source)
    both = BeforeAfter(small, small)
    preview = preview_of(both, 0.83)
    picture = draw_preview(preview)
    for what, run in (
        ("thumbnail of pixels in memory", lambda: thumbnail_of(source)),
        ("low pass and difference", lambda: preview_of(both, 0.83)),
        ("drawing", lambda: draw_preview(preview)),
        ("JPEG", lambda: jpeg(picture)),
        ("JPEG on the disk, fsync", lambda: write_preview(folder / "p.jpg", preview)),
        ("all of it, from two files in the page cache", lambda: everything(path, folder)),
    ):
        print(f"{what}: {median_ms(run):.1f} ms")


def everything(path: Path, folder: Path) -> None:
    write_preview(folder / "p.jpg", preview_of_files([path], path, stated_angstrom=0.83))


def measure_runs(folder: Path, side: int, files: int, rounds: int) -> None:
    weights = {name: tensor.numpy() for name, tensor in model_spec("cryo_cnn").build(seed=1).state_dict().items()}
    save_checkpoint(folder / "run" / "epoch_0001", Checkpoint("cryo_cnn", weights, normalize="zscore"), 0.5)
    inputs = []
    for index in range(files):
        inputs.append(str(folder / f"in{index}.mrc"))
        os.link(folder / "raw.mrc", inputs[-1])
    pace: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(2 * rounds + 1):
        previews = turn % 2 == 0
        request = DenoiseRequest(
            inputs=tuple(inputs), checkpoint=folder / "run", output=folder / "out", overwrite=True, previews=previews
        )
        times: list[float] = []
        started = time.perf_counter()
        denoise(request, progress=lambda result, times=times: times.append(time.perf_counter()))  # type: ignore[misc]
        if turn:  # the first run warms up
            pace[previews].append(files / (times[-1] - started))
    for previews, found in pace.items():
        word = "with" if previews else "without"
        print(f"{word} previews: {statistics.median(found):.3f} files/s ({min(found):.3f} to {max(found):.3f})")


def median_ms(run: Callable[[], object], times: int = 9) -> float:
    found = []
    for _ in range(times):
        started = time.perf_counter()
        run()
        found.append(1e3 * (time.perf_counter() - started))
    return statistics.median(found)


if __name__ == "__main__":
    main()
