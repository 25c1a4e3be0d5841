"""Find where the library mrcfile, and tools built on it, read an MRC file differently from cryoplug.

mrcfile gets only header bytes that cryoplug has checked, never the file, because it allocates what a header claims. No other
program reports these differences: mrcfile refuses 4-bit counts and headers without a stamp, and turns IMOD's unsigned bytes
into negative numbers. See docs/decisions/0001-own-star-reader.md.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator

import numpy as np
from mrcfile.mrcinterpreter import MrcInterpreter
from mrcfile.utils import data_dtype_from_header

from cryoplug.formats.mrc_claims import pixel_size
from cryoplug.formats.mrc_header import HEADER_BYTES, SUPPORTED_MODES, Examination

_NSYMBT = slice(92, 96)
_FOUR_BITS = 101
_WHO = "mrcfile and the tools built on it"


def second_opinion(head: bytes, size_bytes: int, seen: Examination) -> list[str]:
    """List the differences between the readings of mrcfile and of cryoplug.

    Parameters
    ----------
    head
        The first 1024 bytes of the file.
    size_bytes
        Size of the whole file.
    seen
        Result of cryoplug's own examination.

    Returns
    -------
    list[str]
        One sentence for each difference; empty if there is none, or if cryoplug does not read the file either.
    """
    severities = {finding.severity for finding in seen.findings}
    if seen.record is None or "error" in severities:
        return []
    # Whatever differs is odd to the own examination too, but 4-bit integers: thousands of sound files need not wait.
    if "warning" not in severities and int(seen.record["mode"]) != _FOUR_BITS:
        return []
    # Not the extended header: its length is compared here, and nothing of it is asked.
    bare = head[: _NSYMBT.start] + bytes(4) + head[_NSYMBT.stop : HEADER_BYTES]
    try:
        theirs = MrcInterpreter(iostream=io.BytesIO(bare), header_only=True)
        dtype = data_dtype_from_header(theirs.header)
    except ValueError as error:
        return [f"{_WHO} refuse this file ({str(error).strip().rstrip('.')})"]
    claimed = int(np.frombuffer(head[_NSYMBT], theirs.header.nsymbt.dtype)[0])
    return list(_differences(theirs, dtype, claimed, size_bytes, seen))


def _differences(
    theirs: MrcInterpreter, dtype: np.dtype, claimed: int, size_bytes: int, seen: Examination
) -> Iterator[str]:
    record = seen.record
    assert record is not None
    shape, ours = ([int(fields[name]) for name in ("nx", "ny", "nz")] for fields in (theirs.header, record))
    if HEADER_BYTES + claimed + math.prod(shape) * dtype.itemsize > size_bytes:
        yield f"{_WHO} refuse this file (they take {claimed} bytes for an extended header, and too few are left)"
    elif shape != ours:
        kind = SUPPORTED_MODES[int(record["mode"])]
        yield f"{_WHO} read {_sizes(shape)} {dtype.name}, not {_sizes(ours)} {kind}"
    elif seen.unsigned_bytes:
        yield f"{_WHO} read the bytes as signed, -128 to 127: other grey values and another contrast"
    # Its voxel_size takes longer than all else here.
    samples, length = int(theirs.header["mx"]), float(theirs.header["cella"]["x"])
    said, known = float(np.float32(length / samples)) if samples else 0.0, pixel_size(record)
    if said and math.isfinite(said) and (known is None or abs(said - known) > 1e-3 * known):
        yield f"{_WHO} take {said:.4g} A for its pixel size"


def _sizes(shape: list[int]) -> str:
    return " x ".join(map(str, shape))
