"""Read what IMOD and SerialEM write in a header about mode 0, which MRC2014 defines as signed bytes.

IMOD keeps a stamp and flags where MRC2014 has unused bytes; see mrc_format.txt in IMOD's documentation.
"""

from __future__ import annotations

import numpy as np

_STAMP = b"IMOD"
_SIGNED_BYTES = 1
_TWO_VALUES_IN_A_BYTE = 16
_TWO_VALUES_LABEL = b"4 bits packed"
_LARGEST_NX = (1 << 30) - 1
"""Largest width in pixels; twice this is still a 32-bit integer."""


def how_unsigned(record: np.void, head: bytes) -> str:
    """Give the reason why the bytes of mode 0 are unsigned; empty if they are signed, or in another mode."""
    if int(record["mode"]) != 0:
        return ""
    flags = _flags(head)
    if flags is not None:
        return "" if flags & _SIGNED_BYTES else "mode 0: the bytes are read as unsigned, as IMOD's flags say"
    low, high = float(record["dmin"]), float(record["dmax"])
    if not (low >= 0 and 127 < high <= 255):
        return ""
    return f"mode 0 with values up to {high:g}: the bytes are read as unsigned, as IMOD wrote them before 2011"


def has_two_values_in_a_byte(record: np.void, head: bytes) -> bool:
    """Tell whether SerialEM wrote two pixels per byte as mode 0, half as wide as the image, before mode 101 existed."""
    if int(record["mode"]) != 0 or not 0 < int(record["nx"]) <= _LARGEST_NX:
        return False
    if (_flags(head) or 0) & _TWO_VALUES_IN_A_BYTE:
        return True
    # Its first versions set no flag. Any program that unpacks the values adds a label of its own.
    return int(record["nlabl"]) == 1 and _TWO_VALUES_LABEL in bytes(record["label"][0])


def as_mode_101(record: np.void) -> np.void:
    """Give the header in today's form: mode 101, with the width and cell of the image."""
    modern = record.copy()
    if int(record["mx"]) == int(record["nx"]):
        modern["mx"] = 2 * int(record["mx"])
        modern["cella"]["x"] = 2 * float(record["cella"]["x"])
    modern["nx"] = 2 * int(record["nx"])
    modern["mode"] = 101
    return modern


def _flags(head: bytes) -> int | None:
    """Give IMOD's flags; None without IMOD's stamp."""
    stamp = head[152:156]
    if stamp not in (_STAMP, _STAMP[::-1]):
        return None
    return int.from_bytes(head[156:160], "little" if stamp == _STAMP else "big")
