"""Pixels measured in one pass have the numbers that numpy gives; the kernel is that of the plain sums."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from cryoplug.kernels.measuring import measure, measure_by_triton


def images() -> list[torch.Tensor]:
    random = np.random.default_rng(0)
    drawn = [random.normal(mean, std, size) for mean, std, size in ((6802, 8.9, 9001), (0, 1, 4096), (-3, 1e-3, 1))]
    broken = random.normal(0, 1, 5000)
    broken[[3, 4100, 4999]] = np.nan, np.inf, -np.inf
    return [torch.from_numpy(np.asarray(pixels, np.float32)) for pixels in (*drawn, broken, np.full(5, np.nan))]


@pytest.mark.parametrize("pixels", images(), ids=["far from zero", "normal", "one", "broken", "nothing"])
@pytest.mark.parametrize("limits", [(None, None), (-1.0, 6803.0)])
@pytest.mark.parametrize("by_triton", [False, True])
def test_they_are_those_of_numpy(
    pixels: torch.Tensor, limits: tuple[float | None, float | None], by_triton: bool
) -> None:
    if by_triton:
        pytest.importorskip("triton", reason="triton is not installed: its interpreter runs the GPU kernels in tests")
    on_gpu = by_triton and os.environ.get("TRITON_INTERPRET") != "1"
    with np.errstate(all="ignore"):
        found = (measure_by_triton if by_triton else measure)(pixels.cuda() if on_gpu else pixels, *limits)
    exact = pixels.numpy().astype(np.float64)
    exact = exact[np.isfinite(exact)]
    if limits[0] is not None:
        exact = exact.clip(*limits)
    if not exact.size:
        assert found[:2].tolist() == [0, 0] and found[4:].isnan().all()
        return
    wanted = [exact.size, np.count_nonzero(exact > 0), exact.min(), exact.max()]
    assert found[:4].tolist() == wanted
    np.testing.assert_allclose(found[4:].tolist(), [exact.mean(), exact.std()], rtol=1e-12, atol=1e-300)
