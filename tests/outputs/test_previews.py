"""Previews: what the three panels show, the scale bar, and names."""

from __future__ import annotations

import io
import os
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

from cryoplug.core.thumbnail import BeforeAfter, SmallImage
from cryoplug.errors import InputError
from cryoplug.formats.mrc import write_mrc
from cryoplug.outputs.pictures import grey_bytes, jpeg, png, resized, text_mask
from cryoplug.outputs.previews import (
    GAP_PX,
    STRIP_PX,
    bar_length,
    blurred,
    draw_preview,
    preview_name,
    preview_of,
    preview_of_files,
    write_preview,
)

RNG = np.random.default_rng(5)


def both(raw: np.ndarray, denoised: np.ndarray) -> BeforeAfter:
    return BeforeAfter(*(SmallImage(image.astype(np.float32), image.shape) for image in (raw, denoised)))


def test_what_was_removed_is_the_raw_micrograph_less_the_denoised_one() -> None:
    raw, denoised = RNG.normal(7, 1, (60, 50)), RNG.normal(7, 0.2, (60, 50))
    preview = preview_of(both(raw, denoised), 2.0)
    np.testing.assert_allclose(preview.removed, raw - denoised, atol=1e-5)
    assert np.std(preview.raw) < 0.7 * np.std(raw)  # low-passed
    np.testing.assert_array_equal(preview.denoised, denoised.astype(np.float32))


def test_raw_and_denoised_have_one_grey_scale_and_removed_the_same_span() -> None:
    preview = preview_of(both(RNG.normal(100, 5, (80, 80)), RNG.normal(100, 1, (80, 80))), 3.0)
    (low, high), (removed_low, removed_high) = preview.limits, preview.removed_limits
    assert high - low == pytest.approx(removed_high - removed_low)
    picture = draw_preview(preview)
    assert picture.shape == (80 + STRIP_PX, 3 * 80 + 2 * GAP_PX)
    place = (10, 80 + GAP_PX + 10)
    assert picture[place] == grey_bytes(preview.denoised, low, high)[10, 10]


def test_particles_that_lie_at_the_mean_do_not_make_the_raw_panel_white() -> None:
    raw = RNG.normal(100, 1, (200, 200))
    raw[:80, :80] -= 300  # an ice ball, so that the mean is 52 and the ice 100
    preview = preview_of(both(raw, RNG.normal(raw.mean(), 0.3, raw.shape)), 3.0)
    low, high = preview.raw_limits
    assert low < 99.5 and high > 100.5 and high - low == pytest.approx(np.diff(preview.limits)[0])
    panel = draw_preview(preview)[100:200, :200]
    assert 60 < np.median(panel) < 200
    near = preview_of(both(raw, np.where(raw < 0, -200, RNG.normal(100, 0.3, raw.shape))), 3.0)
    assert near.raw_limits == near.limits, "equal greys are equal values where both can be seen"


def test_an_ice_ball_does_not_burn_out_the_rest() -> None:
    clean = RNG.normal(0, 1, (200, 200))
    icy = clean.copy()
    icy[:80, :80] -= 1000
    spans = [np.diff(preview_of(both(image, image), 4.0).limits)[0] for image in (clean, icy)]
    assert spans[1] < 2 * spans[0]


@pytest.mark.parametrize("width", [60, 200, 512, 720])
@pytest.mark.parametrize("size", [0.1, 0.83, 4.98, 33.0])
def test_the_scale_bar_is_a_round_length_that_fits(width: int, size: float) -> None:
    length = bar_length(width, size)
    assert f"{length:e}"[0] in "125"
    assert 0.1 < length / (width * size) <= 0.3 + 1e-6


@pytest.mark.parametrize("size", [2.0, 5.0])
def test_the_bar_in_the_picture_is_as_long_as_it_says(size: float) -> None:
    picture = draw_preview(preview_of(both(np.zeros((300, 400)), np.zeros((300, 400))), size))
    white = picture[300 - 16 + 1, :400] == 255
    assert white.sum() == round(bar_length(400, size) / size)


def test_without_a_pixel_size_nothing_is_claimed_about_angstrom() -> None:
    preview = preview_of(both(RNG.normal(size=(100, 100)), np.zeros((100, 100))), None)
    assert preview.captions()[0] == "raw, averaged"
    assert not (draw_preview(preview)[85, :100] == 255).all()
    assert "20 A" in preview_of(both(np.zeros((9, 9)), np.zeros((9, 9))), 1.0).captions()[0]


@pytest.mark.parametrize("value", [0.0, 3.5, np.nan, np.inf])
@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (33, 47)])
def test_constant_and_broken_pixels_are_drawn_all_the_same(shape: tuple[int, int], value: float) -> None:
    image = np.full(shape, value)
    with np.errstate(invalid="ignore"):
        preview = preview_of(both(image, image), 1.0)
    assert draw_preview(preview).dtype == np.uint8


def test_a_coarser_result_is_shown_in_the_same_place(tmp_path: Path) -> None:
    raw = np.zeros((900, 1800), np.float32)
    raw[600:660, 1200:1290] = 1
    coarse = raw.reshape(300, 3, 600, 3).mean(axis=(1, 3))
    for name, image, size in (("raw", raw, 1.0), ("made", coarse, 3.0)):
        write_mrc(tmp_path / f"{name}.mrc", image, pixel_size_angstrom=size)
    preview = preview_of_files([tmp_path / "raw.mrc"], tmp_path / "made.mrc", stated_angstrom=1.2)
    assert preview.pixel_size_angstrom == pytest.approx(1.2 * 3)
    assert np.abs(preview.removed).max() < 0.35


def test_both_halves_are_summed_where_there_is_no_micrograph(tmp_path: Path) -> None:
    for name, value in (("even", 2.0), ("odd", 3.0), ("made", 4.0)):
        write_mrc(tmp_path / f"{name}.mrc", np.full((20, 20), value, np.float32), pixel_size_angstrom=5.0)
    preview = preview_of_files([tmp_path / "even.mrc", tmp_path / "odd.mrc"], tmp_path / "made.mrc")
    assert (preview.raw.mean(), preview.removed.mean()) == (5.0, 1.0)


def test_a_raw_file_that_went_is_an_input_error(tmp_path: Path) -> None:
    write_mrc(tmp_path / "made.mrc", np.zeros((20, 20), np.float32))
    with pytest.raises(InputError):
        preview_of_files([tmp_path / "gone.mrc"], tmp_path / "made.mrc")


def test_the_picture_is_a_jpeg_under_its_final_name_alone(tmp_path: Path) -> None:
    path = tmp_path / "previews" / "a.jpg"
    write_preview(path, preview_of(both(RNG.normal(size=(64, 64)), np.zeros((64, 64))), 1.0))
    with Image.open(path) as picture:
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "L", (3 * 64 + 2 * GAP_PX, 64 + STRIP_PX))
    assert [item.name for item in path.parent.iterdir()] == ["a.jpg"]


def test_no_two_outputs_share_a_picture() -> None:
    names = ["a.mrc", "a.mrcs", "a.mrcs.mrc", "a.st", "a.tif.mrc", "a.ali", "x/a.mrc", "previews/a.mrc", "a.jpg.mrc"]
    pictures = [preview_name(PurePosixPath(name)) for name in names]
    assert len(set(pictures)) == len(names)
    assert pictures[0] == PurePosixPath("previews/a.jpg")
    assert all(picture.parts[0] == "previews" and picture.suffix == ".jpg" for picture in pictures)


def test_a_blur_keeps_the_mean_and_halves_the_amplitude_where_it_says() -> None:
    size = 2.0
    wave = np.cos(2 * np.pi * np.arange(200) * size / 20.0)[None] * np.ones((40, 1))
    preview = preview_of(both(5 + wave, wave), size)
    assert preview.raw.mean() == pytest.approx(5, abs=0.02)
    assert np.ptp(preview.raw[:, 40:160]) / 2 == pytest.approx(0.5, abs=0.05)
    np.testing.assert_array_equal(blurred(np.ones((1, 30), np.float32), 2.0), np.ones((1, 30)))


def test_pictures_in_memory_come_back_as_they_were() -> None:
    pixels = RNG.integers(0, 256, (30, 20), dtype=np.uint8)
    assert np.array_equal(np.array(Image.open(io.BytesIO(png(pixels)))), pixels)
    assert np.array(Image.open(io.BytesIO(jpeg(pixels)))).shape == (30, 20)
    assert grey_bytes(np.array([[0.0, 1.0, 2.0, np.nan]], np.float32), 0.0, 1.0).tolist() == [[0, 255, 255, 0]]
    assert resized(np.full((8, 8), 3.0, np.float32), (4, 2)).tolist() == [[3.0, 3.0]] * 4
    assert text_mask("A").max() == 255


def test_a_picture_is_the_same_where_the_system_allows_no_file_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (50, 80), np.uint8)
    wanted = jpeg(pixels)

    def refused(name: str) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "memfd_create", refused, raising=False)
    assert jpeg(pixels) == wanted
    monkeypatch.delattr(os, "memfd_create")
    assert jpeg(pixels) == wanted and wanted[:2] == b"\xff\xd8"
