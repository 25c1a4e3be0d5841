"""Bytes that are not a sound file of the tested format: other kinds of files, cut files, damaged files."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import numpy as np

HEAD_BYTES = 2048
"""Bytes of a file that `FormatSpec.sniff` sees."""
FOREIGN_HEADS = {
    "bzip2": b"BZh91AY&SY" + bytes(90),
    "dm": struct.pack(">IQI", 4, 1 << 20, 1) + bytes(90),
    "empty": b"",
    "gzip": b"\x1f\x8b\x08\x00" + bytes(90),
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(90),
    "npy": b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }" + bytes(60),
    "png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(90),
    "ser": struct.pack("<HHHIIII", 0x4949, 0x0197, 0x0210, 0x4122, 0x4152, 1, 1) + bytes(90),
    "star": b"\ndata_micrographs\n\nloop_\n_rlnMicrographName #1\nmic1.mrc\n",
    "text": b"these are not pixels\n" * 60,
    "tiff": b"II*\x00\x08\x00\x00\x00" + bytes(90),
    "zeros": bytes(HEAD_BYTES),
    "zip": b"PK\x03\x04" + bytes(90),
}
"""First bytes of other kinds of files, by name; those of an MRC file are added when needed."""


def cuts(size: int) -> list[int]:
    """Return lengths below `size` at which to cut a file: within its header, in its middle, and just before its end."""
    return sorted(
        {0, 1, 3, 8, 17, 100, *(size * part // 8 for part in range(1, 8)), size - 4, size - 1} & set(range(size))
    )


def damaged(whole: bytes, *, count: int = 60) -> Iterator[bytes]:
    """Give damaged copies of a file: noise after the first bytes, bytes changed at random, numbers set to the largest.

    Parameters
    ----------
    whole
        A sound file.
    count
        Copies of each of the two kinds of random damage.
    """
    random = np.random.default_rng(0)
    for kept in (0, 2, 4, 8, 16, 64):
        yield whole[:kept] + random.bytes(max(0, len(whole) - kept))
        yield whole[:kept] + b"\xff" * max(0, len(whole) - kept)
        yield whole[:kept] + bytes(max(0, len(whole) - kept))
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: random.bytes(1),
        lambda: (b"\xff\xff\xff\x7f", b"\x7f\xff\xff\xff", b"\0\0\0\0")[random.integers(3)],
    )
    for payload in kinds:
        for _ in range(count):
            copy = bytearray(whole)
            for _ in range(random.integers(1, 4)):
                # Headers are short: half of the damage falls into their first bytes.
                place = int(random.integers(min(len(copy), random.choice([64, 1024, len(copy)]))))
                part = payload()
                copy[place : place + len(part)] = part
            yield bytes(copy[: len(whole)])
