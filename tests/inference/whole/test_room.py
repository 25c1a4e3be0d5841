"""Which micrographs go as a whole through a GPU: as many as its memory allows."""

from __future__ import annotations

from pathlib import Path

import pytest

from cryoplug.inference.regrid import GridPlan, Regrid
from cryoplug.inference.whole.room import device_bytes, fits_as_a_whole, room_to_prepare

GENERAL = Regrid(2.6, angpix_range=(2.0, 5.0))


def plan(regrid: Regrid, shape: tuple[int, int] = (1000, 1000), pixel_size: float = 1.5) -> GridPlan:
    return regrid.plan(shape, pixel_size, path=Path("m.mrc"))


def test_room_is_counted_for_both_grids() -> None:
    def needed(regrid: Regrid) -> int:
        return device_bytes(plan(regrid))

    alone = needed(Regrid())
    assert alone == 48 * 1000 * 1000 == needed(Regrid(1.5))
    assert needed(Regrid(3.0)) == (48 * 0.25 + 40) * 1000 * 1000
    assert needed(Regrid(0.75)) == (48 + 40) * 4 * 1000 * 1000
    assert needed(Regrid(None, 0.5)) == needed(Regrid(None, 1.0, 9.0)) == (48 + 40) * 1000 * 1000
    assert fits_as_a_whole(plan(Regrid()), alone)
    assert fits_as_a_whole(plan(Regrid(3.0)), None)
    assert not fits_as_a_whole(plan(Regrid(3.0)), alone)


@pytest.mark.parametrize("regrid", [Regrid(), GENERAL], ids=str)
@pytest.mark.parametrize("shape", [(4096, 4096), (4092, 5760)], ids=str)
def test_a_card_of_8_gb_gets_micrographs_of_usual_cameras_as_a_whole(regrid: Regrid, shape: tuple[int, int]) -> None:
    assert fits_as_a_whole(plan(regrid, shape, 0.8), room_to_prepare(7 << 30))
