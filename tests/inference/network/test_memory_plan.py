"""A limit of memory is kept by smaller tiles, fewer threads and lower bands, in this order."""

from __future__ import annotations

import pytest

from cryoplug.errors import UsageError
from cryoplug.inference.network.memory_plan import (
    LEAST_BAND_ROWS,
    LEAST_TILE_PX,
    MemoryPlan,
    parse_size,
    plan_memory,
    resident_bytes,
    rows_that_fit,
    show_size,
)

MB = 10**6


def plan(limit_bytes: int, **changes: object) -> MemoryPlan:
    options = {"in_use_bytes": 300 * MB, "channels": 64, "overlap_px": 12, "tile": (128, 256), "threads": 8}
    return plan_memory(limit_bytes, **{**options, **changes})


def test_with_plenty_nothing_changes() -> None:
    found = plan(10**10)
    assert found.tile == (128, 256) and found.threads == 8
    assert rows_that_fit(found, 128, 16384, overlap_px=12) == 128


def test_less_memory_never_gives_more_and_the_least_that_is_named_is_the_least() -> None:
    with pytest.raises(UsageError, match="--max-memory 1MB: too little") as caught:
        plan(MB)
    least = parse_size(str(caught.value).rpartition(" ")[2])
    with pytest.raises(UsageError):
        plan(least - 2 * MB)
    sizes = [(found.threads, *found.tile) for found in (plan(least + step * 2 * MB) for step in range(200))]
    assert sizes == sorted(sizes)
    assert sizes[0] == (1, LEAST_TILE_PX, LEAST_TILE_PX) and sizes[-1] == (8, 128, 256)


def test_threads_are_given_up_only_when_the_tiles_are_small() -> None:
    for limit in range(480 * MB, 700 * MB, 5 * MB):
        found = plan(limit)
        assert found.threads == 8 or found.tile == (LEAST_TILE_PX, LEAST_TILE_PX)


def test_a_small_tile_that_was_asked_for_is_not_made_larger() -> None:
    assert plan(10**10, tile=(32, 32)).tile == (32, 32)


def test_a_micrograph_that_is_too_wide_is_refused_by_name_of_the_limit() -> None:
    found = MemoryPlan((64, 64), 1, band_bytes=(LEAST_BAND_ROWS + 24) * 4096 * 4)
    assert rows_that_fit(found, 128, 4096, overlap_px=12) == LEAST_BAND_ROWS
    assert rows_that_fit(found, 5, 4096, overlap_px=12) == 5
    with pytest.raises(UsageError, match="--max-memory: a micrograph of 8192 px width needs 11MB more"):
        rows_that_fit(found, 128, 8192, overlap_px=12)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2GB", 2 * 10**9),
        ("1.5 GiB", 3 * 2**29),
        ("800m", 800 * MB),
        ("512", 512),
        ("4KiB", 4096),
        ("7 kb", 7000),
        ("1T", 10**12),
    ],
)
def test_sizes_are_read(text: str, wanted: int) -> None:
    assert parse_size(text) == wanted


@pytest.mark.parametrize("text", ["", "0", "-1GB", "GB", "1PB", "1e9", "2 G B", "nan", "1,5GB", "0.1"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="as in 2GB"):
        parse_size(text)


@pytest.mark.parametrize("size_bytes", [1, MB, 999 * MB, 10**9, 123456789012])
def test_a_size_that_is_shown_can_be_given_back(size_bytes: int) -> None:
    assert parse_size(show_size(size_bytes)) == pytest.approx(size_bytes, rel=0.05, abs=MB)


def test_this_process_takes_memory() -> None:
    assert resident_bytes() > 10 * MB
