"""TIFF files: strips, tiles, movies, BigTIFF, and what ImageJ writes."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from fuzz.targets import Target, mrc

_CODECS = importlib.util.find_spec("imagecodecs") is not None


def _file(pixels: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, photometric="minisblack", **options)
    return stream.getvalue()


def _seeds() -> tuple[bytes, ...]:
    movie = np.random.default_rng(0).integers(0, 9, (3, 24, 32)).astype(np.uint16)
    packed = ("lzw", "zlib") if _CODECS else ()
    return (
        _file(movie),
        _file(movie[0].astype(np.float32), tile=(16, 16)),
        _file(movie, bigtiff=True, byteorder=">"),
        _file(movie[0].astype(np.uint8), resolution=(1e8, 1e8), resolutionunit="CENTIMETER"),
        _file(movie[0].astype(np.uint8), compression="packbits", rowsperstrip=5),
        *(_file(movie, compression=name) for name in packed),
    )


def _run(folder: Path, payload: bytes) -> None:
    mrc.run(folder, payload, "input.tif")


TARGET = Target(seeds=_seeds, run=_run)
