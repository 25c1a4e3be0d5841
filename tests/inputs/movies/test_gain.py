from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryoplug.errors import FormatError, InputError, ShapeError
from cryoplug.inputs.movies.gain import (
    DefectRepair,
    Gain,
    centre_window,
    check_gain,
    gain_complaint,
    parse_defects,
)

G = Path("gain.mrc")


def test_zeros_and_pixels_that_are_not_finite_are_defects():
    pixels = np.ones((20, 30), np.float32)
    pixels[3, 4], pixels[5, 6] = 0, np.nan
    gain = check_gain(pixels, G)
    assert np.argwhere(gain.defects).tolist() == [[3, 4], [5, 6]]
    frame = np.full((20, 30), 2, np.float32)
    gain.apply(frame)
    assert (frame[3, 4], frame[5, 6], frame[0, 0]) == (0, 0, 2)
    assert check_gain(np.ones((4, 4), np.float32), G).defects is None


@pytest.mark.parametrize(
    ("value", "count", "message"), [(-1.5, 1, r"gain\.mrc: the lowest pixel is -1\.5"), (0, 99, "16 % of the pixels")]
)
def test_what_is_no_gain_reference_is_refused(value, count, message):
    pixels = np.ones((20, 30), np.float32)
    pixels.flat[:count] = value
    with pytest.raises(InputError, match=message):
        check_gain(pixels, G)


def test_a_list_of_defects_is_x_y_width_height_from_0():
    mask = parse_defects("# K3\n\n 2 1 3 1\n7  0\t1 6\r\n", Path("d.txt"), (6, 8))
    expected = np.zeros((6, 8), bool)
    expected[1, 2:5] = expected[0:6, 7] = True
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("1 2 3", FormatError, "line 1 is '1 2 3'; allowed: x y w h"),
        ("1 2 3 4\nCameraSizeX 4096", FormatError, "line 2 .* IMOD's clip defect"),
        ("1 2 -3 4", FormatError, "line 1"),
        ("1 2 3 1e9", FormatError, "line 1"),
        ("6 0 3 1", ShapeError, r"3 x 1 pixels at x 6, y 0 .* frame of 8 x 6 \(x, y\)"),
        ("0 0 0 1", ShapeError, "line 1"),
        ("0 0 999999999 999999999", ShapeError, "line 1"),
    ],
)
def test_a_wrong_list_of_defects_is_refused_with_its_line(text, error, message):
    with pytest.raises(error, match=message):
        parse_defects(text, Path("d.txt"), (6, 8))


@pytest.mark.parametrize("where", [np.s_[5, 5], np.s_[0, 0], np.s_[:, 10:13], np.s_[4:15, 20:30], np.s_[19, 29]])
def test_defects_take_the_value_of_a_flat_surrounding_and_nothing_else_changes(where):
    mask = np.zeros((20, 30), bool)
    mask[where] = True
    image = np.full((20, 30), 7, np.float32)
    image[mask] = 1e6
    DefectRepair(mask).apply(image)
    np.testing.assert_allclose(image, 7, rtol=1e-6)
    noisy = np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32)
    before = noisy.copy()
    DefectRepair(mask).apply(noisy)
    np.testing.assert_array_equal(noisy[~mask], before[~mask])
    y, x = np.argwhere(mask)[0]
    block, good = (
        before[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2],
        ~mask[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2],
    )
    assert noisy[y, x] == pytest.approx(block[good].mean(), rel=1e-5)


def test_repairing_a_sum_is_the_sum_of_repaired_frames():
    rng = np.random.default_rng(1)
    mask = rng.random((40, 50)) < 0.2
    repair = DefectRepair(mask)
    frames = rng.normal(size=(3, 40, 50)).astype(np.float32)
    total = frames.sum(0)
    repair.apply(total)
    for frame in frames:
        repair.apply(frame)
    np.testing.assert_allclose(total, frames.sum(0), atol=1e-5)


def test_nothing_but_defects_cannot_be_repaired():
    with pytest.raises(ShapeError, match="every pixel is a defect"):
        DefectRepair(np.ones((4, 4), bool))


@pytest.mark.parametrize("shape", [(2000, 1501), (1024, 1024), (1025, 1024), (30, 40)])
def test_the_central_window_stays_where_it_is_when_the_image_is_turned(shape):
    image = np.arange(shape[0] * shape[1]).reshape(shape)
    window = centre_window(shape)
    np.testing.assert_array_equal(image[window][::-1, ::-1], image[::-1, ::-1][window])
    assert max(image[window].shape) <= 1025


def raw_and_gain(side: int = 500) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    gain = 1 + 0.05 * rng.normal(size=(1, side)) + 0.03 * rng.normal(size=(side, side))
    return rng.poisson(20 / gain).astype(np.float32), gain.astype(np.float32)


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        (lambda g: g, None),
        (lambda g: g[::-1], "than turned upside down"),
        (lambda g: g[:, ::-1], "than mirrored left to right"),
        (lambda g: g[::-1, ::-1], "than rotated by 180 degrees"),
        (lambda g: g.T, "than transposed"),
        (lambda g: np.rot90(g), "than rotated by 90 degrees clockwise"),
        (lambda g: np.rot90(g, -1), "than rotated by 90 degrees anticlockwise"),
        (lambda g: 1 / g, "must be divided by it, not multiplied"),
        (lambda g: g + np.random.default_rng(9).normal(0, 0.1, g.shape).astype("f4") - (g - 1), "not in the frames"),
        (lambda g: np.ones_like(g), None),
    ],
)
def test_a_gain_reference_that_does_not_fit_the_frames_is_noticed(turn, message):
    raw, gain = raw_and_gain()
    found = gain_complaint(raw, Gain(np.ascontiguousarray(turn(gain)), None), may_transpose=True)
    assert message in found if message else not found


def test_a_gain_reference_that_was_applied_before_is_noticed():
    raw, gain = raw_and_gain()
    assert "corrected already" in gain_complaint(raw * gain, Gain(gain, None), may_transpose=True)


def test_few_electrons_are_no_reason_to_complain():
    rng = np.random.default_rng(3)
    gain = (1 + 0.02 * rng.normal(size=(64, 64))).astype(np.float32)
    raw = rng.poisson(1, size=(64, 64)).astype(np.float32)
    assert gain_complaint(raw, Gain(gain, None), may_transpose=True) == ""
