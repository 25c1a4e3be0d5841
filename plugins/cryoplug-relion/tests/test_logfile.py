"""The pages of logfile.pdf, and what is on them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from cryoplug.core.micrograph import ArrayMicrograph
from cryoplug.errors import StorageError

from cryoplug_relion.logfile import Logfile, check_logfile, listed
from cryoplug_relion.pictures import OVERVIEW_PX, grey_limits, view


def noise(*shape: int, sigma: float = 1.0) -> np.ndarray:
    return np.random.default_rng(0).normal(5, sigma, shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(5, 7), (64, 64), (641, 1300), (1300, 641), (2050, 700)])
def test_overview_is_the_average_of_the_whole_image_and_small(shape: tuple[int, int]) -> None:
    image = noise(*shape)
    shown = view(ArrayMicrograph(image)).overview
    step = -(-max(shape) // OVERVIEW_PX)
    height, width = shape[0] // step, shape[1] // step
    expected = image[: height * step, : width * step].reshape(height, step, width, step).mean(axis=(1, 3))
    np.testing.assert_allclose(shown, expected, rtol=1e-5)


def test_power_of_white_noise_is_its_variance_at_every_frequency() -> None:
    power = view(ArrayMicrograph(noise(700, 900, sigma=3.0))).power
    # The first rings hold few terms, and scatter.
    np.testing.assert_allclose(power[10:], 9.0, rtol=0.25)
    assert abs(power[10:].mean() - 9.0) < 0.2


def test_a_frame_around_the_image_does_not_set_the_greys() -> None:
    image = noise(320, 320)
    framed = image.copy()
    framed[:4] = framed[-4:] = framed[:, :4] = framed[:, -4:] = -1000
    assert grey_limits(framed) == grey_limits(image)


def test_pages_are_in_a_pdf_that_reads_back(tmp_path: Path) -> None:
    shown = view(ArrayMicrograph(noise(300, 200)))
    path = tmp_path / "logfile.pdf"
    with Logfile(path) as pages:
        pages.text("many lines", [f"line {number} with a $ and \\ in it" for number in range(100)])
        pages.before_after("a_$b_{c.mrc", shown, shown, ["remark with $x$"])
        pages.panels("rows", [{"one": shown.detail, "two": shown.detail}, {"one": shown.detail}])
        pages.losses("losses", [{"epoch": 1, "train_loss": 2.0, "val_loss": 1.0}])
    check_logfile(path)
    assert len(re.findall(rb"/Type /Page\b", path.read_bytes())) == 3 + 1 + 1 + 1


def test_half_a_pdf_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "logfile.pdf"
    with Logfile(path) as pages:
        pages.text("title", [])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StorageError, match="no whole PDF"):
        check_logfile(path)


def test_an_error_leaves_no_half_file(tmp_path: Path) -> None:
    path = tmp_path / "logfile.pdf"
    with pytest.raises(ZeroDivisionError), Logfile(path) as pages:
        pages.text("title", [str(1 // 0)])
    assert not path.exists()


def test_a_long_list_is_cut_and_says_so() -> None:
    assert listed("Failed:", []) == []
    lines = listed("Failed:", [f"file {number}" for number in range(250)])
    assert len(lines) == 2 + 100 + 1 and lines[-1].strip().startswith("and 150 more")
