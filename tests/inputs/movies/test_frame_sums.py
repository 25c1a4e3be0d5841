from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cryoplug.inputs.movies.frame_sums import ShiftedSum


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.mark.parametrize("shape", [(1, 1), (7, 11), (64, 48), (129, 130)])
@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-40, 100)])
def test_whole_shifts_move_the_pixels_themselves(pool, shape, shift):
    frame = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    total = ShiftedSum(shape, pool)
    total.add(frame, shift)
    np.testing.assert_allclose(total.result(), np.roll(frame, shift, (0, 1)), atol=1e-5)


def test_parts_of_a_pixel_move_a_wave_by_its_phase(pool):
    y, x = np.mgrid[:60, :72]
    wave = lambda dy, dx: np.cos(2 * np.pi * (3 * (y - dy) / 60 + 5 * (x - dx) / 72))  # noqa: E731
    total = ShiftedSum((60, 72), pool)
    total.add(wave(0, 0).astype(np.float32), (0.4, -1.7))
    np.testing.assert_allclose(total.result(), wave(0.4, -1.7), atol=1e-5)


def test_sums_are_sums_and_shifts_add_up(pool):
    frames = np.random.default_rng(0).normal(size=(4, 33, 34)).astype(np.float32)
    total = ShiftedSum((33, 34), pool)
    for frame in frames:
        total.add(frame, (1.25, 0))
    whole = total.result()
    again = ShiftedSum((33, 34), pool)
    again.add(whole, (0.75, 0))
    np.testing.assert_allclose(again.result(), np.roll(frames.sum(0), 2, 0), atol=1e-4)
