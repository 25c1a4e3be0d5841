"""Laws of bad borders: straight faults are replaced by pixels from beside, whatever belongs to the specimen is left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryoplug.core.bad_border import MOST_LINES, SMALLEST_SIDE, BadBorder
from cryoplug.core.fourier_crop import resample_image
from cryoplug.core.look import look_at
from cryoplug.core.micrograph import ArrayMicrograph
from cryoplug.core.repairs import RepairedMicrograph, repaired_image

SHAPE = (600, 700)
LINES = {
    "one column": (0, 0, 1, 0),
    "two columns": (0, 0, 3, 2),
    "top": (7, 0, 0, 0),
    "frame": (12, 5, 40, 64),
}


def micrograph(mean: float = 500.0, sigma: float = 13.0, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Make noise with a gradient and a few particles."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    noise = np.random.default_rng(5).normal(mean, sigma, shape)
    noise += sigma * (columns / 300 - rows / 200)
    for y, x in ((5, 90), (300, 3), (590, 500), (200, 690)):
        noise[(rows - y) ** 2 + (columns - x) ** 2 < 15**2] -= sigma
    return noise.astype(np.float32)


def frame(lines: tuple[int, int, int, int], shape: tuple[int, int] = SHAPE) -> np.ndarray:
    top, bottom, left, right = lines
    outside = np.ones(shape, bool)
    outside[top : shape[0] - bottom, left : shape[1] - right] = False
    return outside


def spoilt(image: np.ndarray, lines: tuple[int, int, int, int], fault: str) -> np.ndarray:
    outside, result, sigma = frame(lines, image.shape), image.copy(), 13.0
    noise = np.random.default_rng(6).normal(0, 1, image.shape)
    values = {
        "zero": 0 * noise,
        "mean": 0 * noise + image.mean(),
        "dark": image - 12 * sigma,
        "bright": image + 3 * sigma,
        "noisy": image + 6 * sigma * noise,
    }[fault]
    result[outside] = values[outside]
    return result


@pytest.mark.parametrize("lines", LINES.values(), ids=LINES)
@pytest.mark.parametrize("fault", ["zero", "mean", "dark", "bright", "noisy"])
def test_a_straight_fault_at_the_border_is_replaced_and_nothing_else(
    lines: tuple[int, int, int, int], fault: str
) -> None:
    image = micrograph()
    made, repairs = repaired_image(spoilt(image, lines, fault))
    for found, wanted in zip(repairs.border.lines, lines, strict=True):
        assert wanted <= found <= wanted + (2 if wanted else 0), "of the fault, and hardly more"
    outside = frame(repairs.border.lines)
    assert np.array_equal(made[~outside], image[~outside])
    assert abs(made[outside].mean() - image[outside].mean()) < 0.2 * 13, "the grey level of what is beside"
    assert np.abs(made[outside] - image[outside]).std() < 2 * 13, "and its noise"
    assert "bad border: " in repairs.remark and not len(repairs.hot)


@pytest.mark.parametrize("steps", [[3, 6, 9, 30], [1, 2, 3, 4, 5, 6, 7, 8]])
def test_the_stairs_that_a_drifting_movie_leaves_are_replaced(steps: list[int]) -> None:
    image = micrograph()
    drifted = image.copy()
    for step in steps:
        drifted[:, :step] -= 500 / len(steps) * image[:, :step] / image.mean()
    found = repaired_image(drifted)[1].border
    assert steps[-1] <= found.left <= steps[-1] + 1 and sum(found.lines) == found.left


def test_a_border_that_is_bad_over_one_half_of_a_side_is_replaced() -> None:
    image = micrograph()
    image[310:, :2] -= 15 * 13
    assert repaired_image(image)[1].border.lines == (0, 0, 2, 0)


def test_the_echo_of_an_earlier_fourier_crop_is_replaced_with_its_cause() -> None:
    large = np.random.default_rng(2).normal(0, 1, (2400, 2800))
    large[:, :4] -= 60
    image = resample_image(large, SHAPE)
    found = repaired_image(image)[1].border
    assert 3 <= found.left <= 40 and 1 <= found.right <= 40, (
        "columns beside the fault are off, too, and at the other end"
    )
    made = repaired_image(image)[0]
    assert np.abs(np.median(made, axis=0)).max() < 1.5 * made.std() < np.abs(np.median(image, axis=0)).max() / 10


CLEAN = {
    "as it is": lambda image, rows, columns: image,
    "counts": lambda image, rows, columns: np.random.default_rng(1).poisson(1.0, image.shape),
    "carbon": lambda image, rows, columns: image - 60 * (columns < 5 + rows / 20),
    "soft carbon": lambda image, rows, columns: image - 300 / (1 + np.exp((columns - 5 - rows / 15) / 6)),
    "a gradient": lambda image, rows, columns: image + 2.0 * columns,
    "the edge of the beam": lambda image, rows, columns: image * (1 - np.exp(-(columns + 3) / 40)),
    "gold": lambda image, rows, columns: image - 400 * ((rows - 300) ** 2 + (columns - 900) ** 2 > 885**2),
    "an ice ball": lambda image, rows, columns: image - 200 * (rows**2 + (columns - 300) ** 2 < 200**2),
    "a ramp without noise": lambda image, rows, columns: 3.7 * columns - 0.3 * rows + 1000.0,
    "waves": lambda image, rows, columns: image + 20 * np.sin(columns / 3 + rows / 5),
    "not finite": lambda image, rows, columns: np.where(columns < 3, np.nan, image),
    "half of it constant": lambda image, rows, columns: np.where(columns < 300, 500, image),
    "most of it constant": lambda image, rows, columns: np.where((columns > 600) & (rows > 500), image, 501.3),
    "too small": lambda image, rows, columns: np.where(columns < 3, 0, image)[: SMALLEST_SIDE - 1],
}


@pytest.mark.parametrize("specimen", CLEAN)
def test_what_belongs_to_the_specimen_is_not_changed_in_one_bit(specimen: str) -> None:
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    image = np.asarray(CLEAN[specimen](micrograph(), rows, columns) + np.zeros(1), np.float32)
    for turned in (image, image.T, image[::-1, ::-1]):
        made, repairs = repaired_image(turned)
        assert not repairs.border and repairs.border.remark == repairs.border.words == ""
        if not len(repairs.hot):
            assert np.array_equal(made, turned, equal_nan=True)


def test_the_replacement_does_not_ring_in_a_fourier_crop() -> None:
    image = spoilt(np.random.default_rng(0).normal(500, 13, SHAPE).astype(np.float32), (0, 0, 2, 1), "zero")
    raw, mended = (resample_image(pixels, (230, 270))[:, 5:-5] for pixels in (image, repaired_image(image)[0]))
    stripes = [float(small.mean(axis=0).std() / small.std()) for small in (raw, mended)]
    assert stripes[0] > 3 * stripes[1] and stripes[1] < 0.1


@pytest.mark.parametrize("step", [1, 37, 600])
def test_bands_of_a_file_give_what_the_whole_image_gives(step: int) -> None:
    image = spoilt(micrograph(), (12, 5, 40, 3), "zero")
    image[300, 350] = 1e6
    made, repairs = repaired_image(image)
    looked = look_at(ArrayMicrograph(image), "robust", repair=True, sample=False).source
    for source in (RepairedMicrograph(ArrayMicrograph(image)), looked):
        assert isinstance(source, RepairedMicrograph)
        assert source.repairs.border == repairs.border and len(source.repairs.hot) == len(repairs.hot) == 1
        rows = [source.read_rows(start, min(start + step, 600)) for start in range(0, 600, step)]
        assert np.array_equal(np.concatenate(rows), made)
    assert repairs.remark in looked.warnings


def test_the_border_of_a_repaired_micrograph_is_sound() -> None:
    made, repairs = repaired_image(spoilt(micrograph(), (12, 5, 40, 3), "dark"))
    assert repairs.border and not repaired_image(made)[1].border


def test_a_fault_wider_than_a_border_is_left_alone() -> None:
    image = micrograph()
    image[:, : MOST_LINES + 5] -= 100
    assert not repaired_image(image)[1].border


def test_the_remark_names_all_sides() -> None:
    assert BadBorder(SHAPE, left=1).remark == "bad border: 1 column at the left was replaced by pixels from beside"
    assert BadBorder(SHAPE, 2, 1, 0, 3).words == "2 rows at the top, 1 row at the bottom and 3 columns at the right"


def test_of_real_micrographs_two_have_a_bad_border(shared_data: Path) -> None:
    from cryoplug.formats.registry import open_micrograph

    found = {}
    for path in sorted((shared_data / "micrographs").iterdir()) + sorted(
        (shared_data / "halves_apoferritin").iterdir()
    ):
        with open_micrograph(path) as source:
            border = repaired_image(source.read_rows(0, source.shape[0]))[1].border
        if border:
            found[path.name[:4]] = border.lines
    assert found == {"24de": (0, 0, 6, 5), "Ucsf": (1, 0, 1, 0)}
