"""Whom cryoplug believes about a pixel size, and what it says when they differ."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from cryoplug.core.pixel_size import (
    PixelSize,
    PixelSizeRemarks,
    known_pixel_size,
    pixel_size_of_exposure,
    said,
    unknown_pixel_size,
)
from cryoplug.errors import InputError

SIZES = (None, 1.0, 1.3, 2.6)


@pytest.mark.parametrize(("given", "listed", "header"), list(itertools.product(SIZES, repeat=3)))
def test_the_user_beats_the_list_and_the_list_beats_the_header(
    given: float | None, listed: float | None, header: float | None
) -> None:
    found = known_pixel_size(given, listed, header)
    in_header = None if header == 1.0 else header
    assert found.angstrom == (given or listed or in_header)
    assert found.source == ("stated" if given else "list" if listed else "header" if in_header else "")
    told = {"stated": given, "list": listed, "header": in_header}
    wanted = {name: size for name, size in told.items() if size and size != found.angstrom}
    assert dict(found.differing) == wanted


@pytest.mark.parametrize("header", [None, 1.0, 0.9999999, 1.0000001])
def test_a_header_of_exactly_one_says_nothing(header: float | None) -> None:
    assert said(header) is None and known_pixel_size(None, None, header) == PixelSize(None)


@pytest.mark.parametrize("header", [0.99, 1.01, 1.001, 0.6])
def test_a_header_near_one_says_what_it_says(header: float) -> None:
    assert known_pixel_size(None, None, header).angstrom == header


@pytest.mark.parametrize(
    ("header", "differs"), [(2.6, False), (2.62, False), (2.58, False), (2.63, True), (2.57, True)]
)
def test_one_percent_is_no_difference(header: float, differs: bool) -> None:
    assert bool(known_pixel_size(None, 2.6, header).differing) is differs


def test_what_one_file_of_an_exposure_knows_holds_for_all() -> None:
    assert pixel_size_of_exposure(None, (None, 2.6), (5.2, 1.0)) == (
        PixelSize(2.6, "list", (("header", 5.2),)),
        (2.6, 2.6),
    )
    assert pixel_size_of_exposure(None, (), (1.0, 2.6)) == (PixelSize(2.6, "header"), (None, 2.6))
    assert pixel_size_of_exposure(1.3, (2.6,), (2.6, 2.6))[1] == (1.3, 1.3)


def test_two_files_that_contradict_each_other_are_seen_unless_somebody_decides() -> None:
    assert pixel_size_of_exposure(None, (None, None), (2.6, 5.2))[1] == (2.6, 5.2)
    assert pixel_size_of_exposure(None, (2.6, 5.2), (None, None))[1] == (2.6, 5.2)
    assert pixel_size_of_exposure(2.6, (2.6, 5.2), (2.6, 5.2))[1] == (2.6, 2.6)


def test_there_is_one_remark_a_kind_with_the_number_of_micrographs() -> None:
    remarks = PixelSizeRemarks()
    for header in (5.2, 5.2, 1.0, 2.6, 1.3):
        remarks.add(known_pixel_size(None, 2.6, header))
    remarks.add(known_pixel_size(2.0, 2.6, 2.0))
    remarks.add(PixelSize(None))
    remarks.add(None)
    by_header, by_list = remarks.sentences()
    assert "the list says 2.6 A/px, the header of 3 micrographs 1.3 to 5.2; the list's was used" in by_header
    assert "--pixel-size 2 was used, but the list says 2.6 A/px for 1 micrograph" in by_list
    assert PixelSizeRemarks().sentences() == []


def test_the_error_says_what_to_do() -> None:
    error = unknown_pixel_size(Path("a.mrc"), "--angpix 5 needs it", "leave --angpix out")
    assert isinstance(error, InputError)
    assert all(text in str(error) for text in ("a.mrc: ", "--pixel-size A", "--angpix 5 needs it", "exactly 1 A/px"))
