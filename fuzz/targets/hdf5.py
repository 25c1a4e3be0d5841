"""HDF5 stores: what libhdf5 makes of a damaged file, and what cryoplug believes of it."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cryoplug.store.pairs import open_store
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


def _run(folder: Path, payload: bytes) -> None:
    path = folder / "input.h5"
    path.write_bytes(payload)
    with open_store(path) as store:
        if store.count() and store.patch_shape[0] * store.patch_shape[1] < 1 << 20:
            noisy, clean = (np.empty((1, *store.patch_shape), np.float32) for _ in range(2))
            store.read([store.count() - 1], noisy, clean)


TARGET = Target(seeds=_seeds, run=_run)
