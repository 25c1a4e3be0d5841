from __future__ import annotations

import builtins

import numpy as np
import pytest

from cryoplug.errors import ShapeError, UsageError
from cryoplug.reports.figures import before_after, draw_losses, loss_curve, new_figure

RECORDS = [{"epoch": n, "train_loss": 1 / n, "val_loss": 1.1 / n} for n in range(1, 4)]
IMAGES = {"raw": np.random.default_rng(0).standard_normal((40, 50)), "truth": np.zeros((40, 50), np.float32)}


def pixels(path):
    from matplotlib.image import imread

    return imread(path)


def test_loss_curve_is_a_picture(tmp_path):
    loss_curve(tmp_path / "deep" / "loss.png", RECORDS)
    image = pixels(tmp_path / "deep" / "loss.png")
    assert min(image.shape[:2]) > 300
    assert image.std() > 0.02


@pytest.mark.parametrize(
    "records",
    [[], RECORDS[:1], [{"epoch": 1, "train_loss": float("nan"), "val_loss": None}], [{"epoch": 1, "train_loss": 0.0}]],
)
def test_loss_curve_survives_missing_and_broken_losses(tmp_path, records):
    loss_curve(tmp_path / "loss.png", records)
    assert pixels(tmp_path / "loss.png").size


@pytest.mark.parametrize(("name", "shown"), [("mse", "mean squared error"), ("l1", "loss: l1")])
def test_axis_of_the_losses_names_the_loss(name, shown):
    axes = new_figure(4, 3).add_subplot()
    draw_losses(axes, [{"epoch": 1, "train_loss": 0.5, "loss_name": name}])
    assert axes.get_ylabel() == shown


def test_same_records_give_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        loss_curve(tmp_path / name, RECORDS)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_before_after_shows_one_panel_an_image_and_a_row_of_details(tmp_path):
    before_after(tmp_path / "one.png", IMAGES, "title")
    before_after(tmp_path / "two.png", IMAGES, "title", zoom_px=16)
    assert pixels(tmp_path / "two.png").shape[0] > 1.5 * pixels(tmp_path / "one.png").shape[0]


def test_panels_share_their_grey_limits(tmp_path):
    grey = {"dark": np.full((20, 20), 1.0), "bright": np.full((20, 20), 3.0)}
    before_after(tmp_path / "limits.png", grey, "", limits=(0.0, 4.0))
    image = pixels(tmp_path / "limits.png")[..., 0]
    middle = image.shape[0] // 2
    assert image[middle, image.shape[1] // 4] == pytest.approx(0.25, abs=0.01)
    assert image[middle, 3 * image.shape[1] // 4] == pytest.approx(0.75, abs=0.01)


def test_large_images_are_drawn(tmp_path):
    large = {"only": np.arange(2100 * 1100, dtype=np.float32).reshape(2100, 1100)}
    before_after(tmp_path / "large.png", large, "large")
    assert pixels(tmp_path / "large.png").size


@pytest.mark.parametrize("images", [{}, {"a": np.zeros((3, 4)), "b": np.zeros((4, 3))}, {"a": np.zeros(5)}])
def test_images_that_cannot_stand_side_by_side_are_refused(tmp_path, images):
    with pytest.raises(ShapeError):
        before_after(tmp_path / "no.png", images, "")
    assert not (tmp_path / "no.png").exists()


def test_missing_matplotlib_says_what_to_install(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **keywords):
        if name.startswith("matplotlib"):
            raise ImportError("No module named 'matplotlib'")
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"cryoplug\[figures\]"):
        loss_curve(tmp_path / "loss.png", RECORDS)
