"""Training that cannot go well: bad pixels, and a learning rate that is too high."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryoplug.errors import DivergedError
from cryoplug.models.checkpoint import load_checkpoint
from cryoplug.training.data.loader import epoch_order
from workflows.train.made_runs import CONFIG, SIDE, pairs, run, write_bins

pytestmark = pytest.mark.usefixtures("no_pictures")


def epoch_that_first_meets(patch: int, *, batches: int) -> int:
    train_patches = np.arange(10)
    for epoch in range(1, 50):
        order = epoch_order(train_patches, seed=0, epoch=epoch, shuffle=True)
        if patch in order[: batches * CONFIG.batch_size]:
            return epoch
    raise AssertionError


@pytest.mark.parametrize(("side", "value"), [("noisy", np.nan), ("clean", np.inf)])
def test_a_bad_pixel_stops_the_run_names_its_patch_and_keeps_the_best(tmp_path: Path, side: str, value: float) -> None:
    patch = next(index for index in range(10) if epoch_that_first_meets(index, batches=1) == 3)
    noisy, clean = pairs()
    (noisy if side == "noisy" else clean)[patch, 5, 7] = value
    data = write_bins(tmp_path / "data", noisy, clean)
    with pytest.raises(DivergedError) as raised:
        run(data, tmp_path / "out", max_batches=1, epochs=9)
    kept = load_checkpoint(tmp_path / "out")
    message = str(raised.value)
    assert "training diverged in epoch 3, batch 1: the loss is" in message
    assert f"patch {patch} of train: 1 {side} pixels of {SIDE * SIDE} are not finite, first at y 5, x 7" in message
    assert f"the best checkpoint is kept: {kept.path}" in message
    assert raised.value.exit_code == 6
    assert all(np.isfinite(array).all() for array in kept.weights.values())


def test_a_bad_pixel_among_the_validation_patches_is_named_too(tmp_path: Path) -> None:
    noisy, clean = pairs()
    noisy[11, 0, 0] = np.nan
    with pytest.raises(
        DivergedError, match=r"validation diverged in epoch 1, batch 1.*patch 11 of train.*no checkpoint"
    ):
        run(write_bins(tmp_path / "data", noisy, clean), tmp_path / "out")


def test_a_learning_rate_that_is_too_high_is_told_apart_from_bad_pixels(tmp_path: Path) -> None:
    noisy, clean = pairs()
    data = write_bins(tmp_path / "data", noisy * np.float32(1e12), clean)
    with pytest.raises(DivergedError, match=r"all pixels of its 4 patches are finite .*; try --lr below 1e\+20"):
        run(data, lr=1e20)
