"""The pixel size of a micrograph: who says it, whom cryoplug believes, and what it says when they differ.

What the user states beats the list (STAR file, cryoSPARC dataset), and the list beats the header: RELION reads its STAR
files so, and a header is what a program wrote that knew less. A header that is unset, or exactly 1 A/px, says nothing:
programs write 1 when they do not know.
"""

from __future__ import annotations

import math

from cryoplug.errors import UsageError

MAX_ANGSTROM = 1e6
"""Longer lengths are no pixel sizes."""


def checked_pixel_size(value: float, name: str) -> float:
    """Give a pixel size that a user states, or raise `UsageError` that names what it was given as."""
    if not (math.isfinite(value) and 0 < value < MAX_ANGSTROM):
        raise UsageError(f"{name} {value} (allowed: a pixel size in angstrom above 0)")
    return float(value)
