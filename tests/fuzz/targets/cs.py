"""Datasets of cryoSPARC."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from cryoplug.formats.cs import cs_images
from fuzz.targets import Target

_WORDS = (b"'|O'", b"'<U9999999'", b"(1099511627776,)", b"-1", b"'<f4'", b"((((((", b"9" * 30, b"[", b"'V8'", b"")


def _seeds() -> tuple[bytes, ...]:
    plain = [("uid", "<u8"), ("micrograph_blob/path", "S30"), ("micrograph_blob/psize_A", "<f4")]
    stacks = [("blob/path", "S20"), ("blob/idx", "<u4"), ("blob/psize_A", "<f4"), ("blob/shape", "<u4", (2,))]
    arrays = [
        np.array([(1, b"J1/a.mrc", 1.25), (2, b">J1/b.mrc", 1.5)], plain),
        np.array([(b"J1/stack.mrc", 0, 1.25, (64, 64)), (b"J1/stack.mrc", 7, 1.25, (64, 64))], stacks),
        np.array([("J1/m.tif", 0.5)], [("movie_blob/path", "<U12"), ("movie_blob/psize_A", "<f4")]),
    ]
    return tuple(map(_saved, arrays))


def _saved(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array)
    return stream.getvalue()


def _run(folder: Path, payload: bytes) -> None:
    path = folder / "input.cs"
    path.write_bytes(payload)
    cs_images(path, "either")


TARGET = Target(seeds=_seeds, run=_run, words=_WORDS)
