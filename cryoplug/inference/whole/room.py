"""How much memory of a device a whole micrograph takes, and whether there is room for it."""

from __future__ import annotations

import math

from cryoplug.core.fourier_filter import REACH
from cryoplug.inference.regrid import GridPlan

MOST_PIXELS = 1 << 28
"""Most pixels of a whole micrograph (16384x16384), also on the network's grid; larger ones go in bands."""
DEVICE_BYTES_PER_PIXEL = 48
"""Device memory per pixel of the network's grid: stored, normalised and denoised pixels, and sorting with 8-byte indices."""
REGRID_BYTES_PER_PIXEL = 40
"""More device memory per pixel if the grids differ or raw pixels are kept: pixels, Fourier terms twice, cuFFT's workspace, and
frequencies in float64. It counts the larger side of both grids in each direction. An H200 took 16 to 21; but 33 to 45 where the
sides of the micrograph are prime numbers, for which cuFFT needs more, or where the result is filtered."""


def fits_as_a_whole(plan: GridPlan, room_bytes: int | None) -> bool:
    """Tell whether a micrograph is small enough to go as a whole, on its own grid and on the network's.

    Parameters
    ----------
    plan
        The grids.
    room_bytes
        From `room_to_prepare`; None: no limit.
    """
    if max(map(math.prod, (plan.shape, plan.network_shape))) > MOST_PIXELS:
        return False
    return room_bytes is None or device_bytes(plan) <= room_bytes


def room_to_prepare(free_bytes: int) -> int:
    """Give the device memory for all micrographs that are prepared at a time.

    Half of what is free is for the network, and a quarter for the micrograph that is computed.
    """
    return free_bytes // 4


def device_bytes(plan: GridPlan) -> int:
    """Give the device memory of a micrograph while it is prepared or computed, without the network's own, in bytes."""
    size_bytes = DEVICE_BYTES_PER_PIXEL * math.prod(plan.network_shape)
    if plan.does_nothing:
        return size_bytes
    largest = math.prod(map(max, plan.shape, plan.network_shape))
    if plan.regrid.highpass_angstrom is not None and plan.written_angstrom is not None:
        # Continued on all sides, as far as the filter reaches.
        reach = 2 * math.ceil(REACH * plan.regrid.highpass_angstrom / plan.written_angstrom)
        largest = max(largest, math.prod(side + reach for side in plan.written_shape))
    return size_bytes + REGRID_BYTES_PER_PIXEL * largest
