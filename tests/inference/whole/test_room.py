"""Which micrographs go as a whole through a GPU: as many as its memory allows."""

from __future__ import annotations

from pathlib import Path

import pytest

from cryoplug.inference.regrid import GridPlan, Regrid
from cryoplug.inference.whole.room import device_bytes, fits_as_a_whole

GIB = 1 << 30
GENERAL = Regrid(2.6, angpix_range=(2.0, 5.0))
UNET_BYTES, GENERAL_BYTES = 300, 117
"""Of their networks, for each pixel and one orientation."""


def plan(regrid: Regrid, shape: tuple[int, int] = (1000, 1000), pixel_size: float = 1.5) -> GridPlan:
    return regrid.plan(shape, pixel_size, path=Path("m.mrc"))


def fits(grids: GridPlan, free_gib: float, network: int) -> bool:
    return fits_as_a_whole(grids, free_bytes=int(free_gib * GIB), network_bytes_per_pixel=network)


def test_room_is_counted_for_both_grids() -> None:
    def needed(regrid: Regrid) -> int:
        return device_bytes(plan(regrid))

    assert needed(Regrid()) == 48 * 1000 * 1000 == needed(Regrid(1.5))
    assert needed(Regrid(3.0)) == (48 * 0.25 + 24) * 1000 * 1000
    assert needed(Regrid(0.75)) == (48 + 24) * 4 * 1000 * 1000
    assert needed(Regrid(None, 0.5)) == needed(Regrid(None, 1.0, 9.0)) == (48 + 24) * 1000 * 1000
    assert needed(Regrid(None, lowpass_angstrom=9.0)) == (48 + 40) * 1000 * 1000


def test_two_micrographs_and_the_network_have_room_at_once() -> None:
    grids = plan(Regrid())
    least = 2 * 48 * 1000 * 1000 + 10 * 1000 * 1000
    assert fits_as_a_whole(grids, free_bytes=least, network_bytes_per_pixel=10)
    assert not fits_as_a_whole(grids, free_bytes=least - 1, network_bytes_per_pixel=10)
    assert fits_as_a_whole(grids, free_bytes=None, network_bytes_per_pixel=10)


def test_a_network_that_needs_much_takes_half_and_tiles() -> None:
    grids = plan(Regrid())
    assert fits_as_a_whole(grids, free_bytes=4 * device_bytes(grids), network_bytes_per_pixel=10**6)
    assert not fits_as_a_whole(grids, free_bytes=4 * device_bytes(grids) - 8, network_bytes_per_pixel=10**6)


@pytest.mark.parametrize("shape", [(4096, 4096), (4092, 5760)], ids=str)
def test_a_card_of_8_gb_gets_micrographs_of_usual_cameras_as_a_whole(shape: tuple[int, int]) -> None:
    assert fits(plan(Regrid(), shape, 0.8), 7, UNET_BYTES)
    assert fits(plan(GENERAL, shape, 0.8), 7, GENERAL_BYTES)


@pytest.mark.parametrize(("shape", "pixel_size"), [((8192, 8192), 0.8), ((8184, 11520), 0.5)], ids=str)
def test_a_card_of_8_gb_gets_large_micrographs_as_a_whole_for_the_general_model(
    shape: tuple[int, int], pixel_size: float
) -> None:
    assert fits(plan(GENERAL, shape, pixel_size), 6, GENERAL_BYTES)
    assert not fits(plan(Regrid(), shape, pixel_size), 6, UNET_BYTES)
