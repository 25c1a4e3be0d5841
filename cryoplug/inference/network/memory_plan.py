"""Fit denoising on the CPU into a given amount of memory: smaller tiles first, then fewer threads, then lower bands.

The numbers are upper estimates, measured with `resource.getrusage` on founding networks and micrographs 4096 to 11520 px wide.
The choice changes only the speed; the result stays the same, to float32 rounding.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from cryoplug.errors import UsageError
from cryoplug.models.checkpoint import Checkpoint

LEAST_TILE_PX = 64
"""Smallest side of a tile to which memory limits may reduce it."""
LEAST_BAND_ROWS = 16
"""Smallest height of a band."""
PLANNED_WIDTH_PX = 4096
"""Width that must fit before anything is begun; a wider micrograph is checked when it is opened."""
_ALLOWANCE_BYTES = 96 << 20
"""Statistics of a micrograph in bands of 4 MB, code that is loaded at the first convolution, file buffers."""
_BANDS = 16
"""Copies of a band: in the queues, in three threads, and in their intermediate arrays."""
_LAYER_COPIES = 2.0
"""Copies of the widest layer's input and output, because the convolution reorders both."""
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]i?|)b?", re.IGNORECASE)


@dataclass(frozen=True)
class MemoryPlan:
    """How to compute within a limit."""

    tile: tuple[int, int]
    """Rows and columns of a tile."""
    threads: int
    """CPU threads."""
    band_bytes: int
    """Most bytes of one band as float32, with its overlap."""


def parse_size(text: str) -> int:
    """Read an amount of memory: ``2GB``, ``1.5 GiB``, ``800M``, or plain bytes.

    Raises
    ------
    UsageError
        The text is not of this form, or zero.
    """
    match = _SIZE.fullmatch(text.strip())
    size_bytes = int(float(match[1]) * _UNITS[match[2].lower()]) if match else 0
    if size_bytes < 1:
        raise UsageError(f"size {text!r}; allowed: a number above 0 with a unit, as in 2GB, 1.5GiB, 800M")
    return size_bytes


def show_size(size_bytes: float) -> str:
    """Write an amount of memory for people, in units that `parse_size` reads: ``512MB``, ``2.5GB``."""
    return f"{size_bytes / 1e9:.1f}GB" if size_bytes >= 1e9 else f"{-(-size_bytes // 10**6):.0f}MB"


def resident_bytes() -> int:
    """Give the memory of this process in bytes; 0 if the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def widest_layer(checkpoint: Checkpoint) -> int:
    """Give the largest number of channels of one layer, input and output together; that of the spec, if it has one."""
    spec = checkpoint.spec
    if spec.tile_channels:
        return spec.tile_channels
    return max((sum(array.shape[:2]) for array in checkpoint.weights.values() if array.ndim == 4), default=2)


def plan_memory(
    limit_bytes: int, *, in_use_bytes: int, channels: int, overlap_px: int, tile: tuple[int, int], threads: int
) -> MemoryPlan:
    """Choose tiles, threads and bands.

    Parameters
    ----------
    limit_bytes
        Most memory of the whole process.
    in_use_bytes
        Its memory before the first micrograph; see `resident_bytes`.
    channels
        Channels of the widest layer, input and output; see `widest_layer`.
    overlap_px
        Pixels read around each tile.
    tile, threads
        Choice without a limit; never exceeded.

    Raises
    ------
    UsageError
        Even the smallest choice needs more; the message says how much.
    """
    fixed = in_use_bytes + _ALLOWANCE_BYTES
    least_band = _BANDS * band_bytes(LEAST_BAND_ROWS, PLANNED_WIDTH_PX, overlap_px=overlap_px)
    height, width = tile
    while True:
        need = fixed + least_band + threads * _tile_bytes((height, width), channels=channels, overlap_px=overlap_px)
        if need <= limit_bytes:
            return MemoryPlan((height, width), threads, (limit_bytes - need + least_band) // _BANDS)
        if max(height, width) > LEAST_TILE_PX:
            height, width = (min(side, max(LEAST_TILE_PX, side // 2)) for side in (height, width))
        elif threads > 1:
            threads //= 2
        else:
            raise UsageError(
                f"--max-memory {show_size(limit_bytes)}: too little; the least for this network and micrographs of "
                f"{PLANNED_WIDTH_PX} px width is {show_size(need)}"
            )


def band_bytes(rows: int, width: int, *, overlap_px: int) -> int:
    """Give the bytes of one band as float32, with its overlap."""
    return (rows + 2 * overlap_px) * width * 4


def rows_that_fit(plan: MemoryPlan, rows: int, width: int, *, overlap_px: int) -> int:
    """Give the height of bands for a micrograph of `width`: `rows`, or fewer.

    Raises
    ------
    UsageError
        Not even `LEAST_BAND_ROWS` fit.
    """
    fitting = plan.band_bytes // (width * 4) - 2 * overlap_px
    if fitting < min(rows, LEAST_BAND_ROWS):
        missing = _BANDS * (band_bytes(LEAST_BAND_ROWS, width, overlap_px=overlap_px) - plan.band_bytes)
        raise UsageError(f"--max-memory: a micrograph of {width} px width needs {show_size(missing)} more; raise it")
    return min(rows, fitting)


def _tile_bytes(tile: tuple[int, int], *, channels: int, overlap_px: int) -> int:
    # A band's overlap and a tile's own: the rows of a tile are read with both.
    pixels = (tile[0] + 4 * overlap_px) * (tile[1] + 2 * overlap_px)
    return int(pixels * 4 * channels * _LAYER_COPIES)
