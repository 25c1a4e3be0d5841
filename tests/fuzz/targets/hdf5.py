"""HDF5 stores: what libhdf5 makes of a damaged file, and what cryoplug believes of it."""

from __future__ import annotations

import faulthandler
import functools
import os
import tempfile
import traceback
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cryoplug.errors import InputError
from cryoplug.store.hdf5 import read_content
from cryoplug.store.hdf5_guard import limit_process
from fuzz.targets import Target, manifest


@functools.cache
def _seeds() -> tuple[bytes, ...]:
    text = manifest.record().to_json()
    chunked = {"chunks": (1, 8, 8), "maxshape": (None, 8, 8)}
    return (
        saved(chunked, manifest_text=text),
        saved({}, manifest_text=text),
        saved({}),
        saved(chunked, libver="latest"),
        saved_whole(),
    )


def saved(options: dict[str, Any], *, manifest_text: str | None = None, libver: str = "earliest") -> bytes:
    """Give the bytes of a small store whose datasets are made with `options`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.h5"
        with h5py.File(path, "w", libver=libver) as file:
            for split, count in (("train", 2), ("test", 1)):
                for side in ("noisy", "clean"):
                    pixels = np.arange(count * 64, dtype="<f4").reshape(count, 8, 8)
                    file.create_dataset(f"{split}/{side}", data=pixels, **options)
            if manifest_text is not None:
                file.attrs["manifest"] = manifest_text
        return path.read_bytes()


def saved_whole() -> bytes:
    """Give the bytes of a store of whole micrographs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.h5"
        with h5py.File(path, "w", libver="earliest") as file:
            for split in ("train", "test"):
                for side in ("noisy", "clean"):
                    file[f"{split}/{side}/000000"] = np.arange(24 * 24, dtype="<f4").reshape(24, 24)
            file.attrs["manifest"] = manifest.whole_record().to_json()
        return path.read_bytes()


def _run(folder: Path, payload: bytes) -> None:
    """Read in a fork with the limits of `cryoplug.store.hdf5_guard`, which takes 0.3 s for a process of its own.

    That libhdf5 hangs or ends the process is known and guarded against; what Python makes of the file is looked at here.
    """
    path = folder / "input.h5"
    path.write_bytes(payload)
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        with os.fdopen(sender, "w") as stream:
            limit_process(len(payload))
            stream.write(_problem(path))
        os._exit(0)
    os.close(sender)
    with os.fdopen(receiver) as stream:
        problem = stream.read()
    os.waitpid(child, 0)
    if problem:
        raise RuntimeError(problem)


def _problem(path: Path) -> str:
    try:
        content = read_content(path)
    except InputError as error:
        return "" if str(path) in str(error) and len(str(error)) < 5000 else f"bad message: {error}"
    except Exception:  # noqa: BLE001 - any other exception is what is looked for
        return traceback.format_exc()
    if content.dtype is None:
        return ""
    outside = []
    for split, pair in content.runs.items():
        for run in pair:
            shapes = content.image_shapes.get(split) or [content.patch_shape or (0, 0)] * len(run.offsets)
            for offset, (height, width) in zip(run.offsets, shapes, strict=True):
                size = height * width * np.dtype(content.dtype).itemsize
                if not 0 <= offset <= path.stat().st_size - size:
                    outside.append(int(offset))
    return f"offsets outside of the file: {outside[:3]}" if outside else ""


TARGET = Target(seeds=_seeds, run=_run)
