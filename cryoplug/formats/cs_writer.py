"""Write a cryoSPARC dataset that names denoised images beside the raw ones, and keeps every column of the source.

This follows cryoSPARC's own Micrograph Denoiser: it leaves the raw ``micrograph_blob`` unchanged, adds
``micrograph_blob_denoised``, and joins the rest by ``uid``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cryoplug.errors import FormatError
from cryoplug.formats.cs import dataset_layout

_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class DenoisedBlob:
    """The denoised image of one row."""

    name: str
    """Path as cryoSPARC must see it."""
    index: int
    """Place in the file, from 0."""
    shape: tuple[int, int]
    """``(y, x)``."""
    pixel_size_angstrom: float
    """Pixel size; 0 if unknown, as in cryoSPARC."""


def write_denoised_cs(stream: BinaryIO, source: Path, blobs: Sequence[DenoisedBlob | None], *, group: str) -> None:
    """Write the dataset.

    Parameters
    ----------
    stream
        File to write to, at its start.
    source
        The dataset that was denoised.
    blobs
        The denoised image of each row; rows without one are left out.
    group
        Group of columns to add or replace: ``micrograph_blob_denoised`` gives ``micrograph_blob_denoised/path`` and so on.

    Raises
    ------
    FormatError
        The dataset cannot be read (any more), or has another number of rows.
    """
    with source.open("rb") as raw:
        dtype, count, start = dataset_layout(raw, source)
        if count != len(blobs):
            raise FormatError(f"{source}: {count} rows, {len(blobs)} when it was read; let nothing write it meanwhile")
        longest = max((len(blob.name.encode("utf-8", "surrogateescape")) for blob in blobs if blob), default=1)
        added = {
            f"{group}/path": f"S{longest}",
            f"{group}/idx": "<u4",
            f"{group}/shape": ("<u4", (2,)),
            f"{group}/psize_A": "<f4",
            f"{group}/format": "S5",
        }
        kept = [name for name in dtype.names or () if name not in added]
        written = np.dtype([*((name, dtype[name]) for name in kept), *added.items()])
        _write_head(stream, written, sum(blob is not None for blob in blobs))
        raw.seek(start)
        rows = max(1, _CHUNK_BYTES // dtype.itemsize)
        for first in range(0, count, rows):
            payload = raw.read(min(rows, count - first) * dtype.itemsize)
            if len(payload) < min(rows, count - first) * dtype.itemsize:
                raise FormatError(f"{source}: became shorter while it was read; let nothing write it meanwhile")
            chunk = np.frombuffer(payload, dtype)
            here = [(place, blob) for place, blob in enumerate(blobs[first : first + len(chunk)]) if blob is not None]
            out = np.zeros(len(here), written)
            places = [place for place, _ in here]
            for name in kept:
                out[name] = chunk[name][places]
            out[f"{group}/path"] = [blob.name.encode("utf-8", "surrogateescape") for _, blob in here]
            out[f"{group}/idx"] = [blob.index for _, blob in here]
            out[f"{group}/shape"] = np.array([blob.shape for _, blob in here], np.uint32).reshape(-1, 2)
            out[f"{group}/psize_A"] = [blob.pixel_size_angstrom for _, blob in here]
            out[f"{group}/format"] = b"MRC/1"
            stream.write(out.tobytes())


def _write_head(stream: BinaryIO, dtype: np.dtype, count: int) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    try:
        np.lib.format.write_array_header_1_0(stream, header)
    except ValueError:  # more columns than 64 kB can name
        np.lib.format.write_array_header_2_0(stream, header)
