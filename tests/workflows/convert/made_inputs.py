"""Small micrographs and requests that the tests of ``convert`` share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from cryoplug.formats.mrc_writer import write_mrc
from cryoplug.workflows.convert import ConvertRequest

PATCH, STRIDE = 64, 32
SHAPE = (150, 200)
GRID = [(y, x) for y in (0, 32, 64) for x in (0, 32, 64, 96, 128)]
BINS = ("noisy_train.bin", "clean_train.bin", "noisy_test.bin", "clean_test.bin")


def write(path: Path, pixels: np.ndarray, pixel_size: float = 1.5) -> Path:
    write_mrc(path, pixels.astype(np.float32), pixel_size_angstrom=pixel_size)
    return path


def image(seed: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).normal(50, 12, shape).astype(np.float32)


def half(exposure: int, side: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Blobs that belong to the exposure, and noise of this half alone."""
    signal = np.random.default_rng(exposure).normal(0, 60, shape).astype(np.float32)
    for axis in (0, 1):
        signal = sum(np.roll(signal, k, axis) for k in range(-3, 4)) / 7
    return 50 + signal + np.random.default_rng([exposure, side]).normal(0, 12, shape).astype(np.float32)


def folder_of(path: Path, count: int, *, name: str = "mic_{}.mrc", first: int = 0) -> Path:
    for i in range(count):
        write(path / name.format(i), image(first + i))
    return path


def request(inputs, output: Path, **changes) -> ConvertRequest:
    inputs = tuple(str(item) for item in ([inputs] if isinstance(inputs, Path) else inputs))
    return ConvertRequest(inputs, output, **{"patch_size": PATCH, "stride": STRIDE, **changes})


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in BINS if (folder / name).exists()}


def patches(folder: Path, name: str, dtype: str = "<f4") -> np.ndarray:
    return np.fromfile(folder / name, dtype).reshape(-1, PATCH, PATCH)


def names(folder: Path) -> set[str]:
    return {item.name for item in folder.iterdir()}


def bad_inputs(folder: Path) -> Path:
    folder_of(folder, 2)
    write(folder / "mic_const.mrc", np.full(SHAPE, 3.0))
    spoiled = image(3)
    spoiled[140, 150] = np.nan
    write(folder / "mic_nan.mrc", spoiled)
    write(folder / "mic_small.mrc", image(4, (63, 200)))
    cut = write(folder / "mic_cut.mrc", image(5))
    os.truncate(cut, 5000)
    (folder / "mic_text.mrc").write_text("hello")
    return folder
