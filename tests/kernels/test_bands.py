from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from cryoplug.errors import UsageError
from cryoplug.kernels.bands import (
    band_workers,
    default_band_rows,
    loss_and_gradients,
    mean_loss,
    plan_bands,
)
from cryoplug.models.registry import CRYO_CNN, RESIDUAL_CNN, ModelSpec

SHAPES = [(1, 1), (2, 7), (37, 41), (48, 48), (65, 17), (131, 5)]


class Pooling(nn.Module):
    """Looks two pixels far, and only works when its input begins on an even row."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.out = nn.Conv2d(4, 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[2:]
        padded = functional.pad(images, (0, width % 2, 0, height % 2))
        up = functional.interpolate(functional.avg_pool2d(self.conv(padded), 2), scale_factor=2.0)
        return self.out(up)[:, :, :height, :width]


@given(
    height=st.integers(1, 400),
    halo=st.integers(0, 20),
    rows=st.integers(1, 90),
    multiple=st.sampled_from([1, 2, 4, 8]),
)
def test_every_row_is_kept_once_and_sees_its_neighbours(height: int, halo: int, rows: int, multiple: int) -> None:
    bands = plan_bands(height, receptive_field_px=halo, band_rows=rows, size_multiple=multiple)
    assert [row for band in bands for row in range(band.start, band.stop)] == list(range(height))
    for band in bands:
        assert band.read_start <= max(0, band.start - halo) and band.read_stop >= min(height, band.stop + halo)
        assert band.read_start % multiple == 0
        assert band.read_stop % multiple == 0 or band.read_stop == height


def test_impossible_bands_are_refused() -> None:
    with pytest.raises(UsageError, match="band_rows 0"):
        plan_bands(10, receptive_field_px=3, band_rows=0)


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 20), rows=st.integers(1, 20))
def test_the_loss_by_bands_of_a_pooling_network_is_that_of_the_whole_image(height: int, width: int, rows: int) -> None:
    module = Pooling().double()
    noisy, clean = torch.rand(2, 1, 1, height, width, dtype=torch.float64)
    found = mean_loss(module, noisy, clean, receptive_field_px=2, band_rows=rows, size_multiple=2)
    assert found == pytest.approx(functional.mse_loss(module(noisy), clean).item(), rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
@pytest.mark.parametrize("rows", [5, 32])
@pytest.mark.parametrize("spec", [CRYO_CNN, RESIDUAL_CNN], ids=lambda spec: spec.id)
def test_gradients_by_bands_are_those_of_the_whole_batch(
    spec: ModelSpec, rows: int, dtype: torch.dtype, tolerance: float, shape: tuple[int, int]
) -> None:
    # tolerance: relative to the largest gradient of the tensor; in float32 sums of some 10^4 terms in another
    # order, and now and then a ReLU whose input is zero to rounding
    noisy, clean = torch.rand(2, 2, 1, *shape, dtype=dtype)
    reference = spec.build(seed=2).to(dtype)
    loss = functional.mse_loss(reference(noisy), clean)
    expected = torch.autograd.grad(loss, list(reference.parameters()))
    module = spec.build(seed=2).to(dtype).to(memory_format=torch.channels_last)
    found, gradients = loss_and_gradients(
        module, noisy, clean, receptive_field_px=spec.receptive_field_px, band_rows=rows
    )
    assert found == pytest.approx(loss.item(), rel=max(tolerance, 1e-12))
    for mine, theirs in zip(gradients, expected, strict=True):
        largest = float(theirs.abs().max())
        torch.testing.assert_close(mine, theirs, rtol=0, atol=tolerance * max(largest, 1e-3))
    again = mean_loss(module, noisy, clean, receptive_field_px=spec.receptive_field_px, band_rows=rows)
    assert again == pytest.approx(loss.item(), rel=max(tolerance, 1e-12))


def test_the_number_of_threads_changes_no_bit() -> None:
    noisy, clean = torch.rand(2, 4, 1, 97, 61)
    module = CRYO_CNN.build(seed=2).to(memory_format=torch.channels_last)
    results = []
    for threads in (1, 2, 5):
        with band_workers(threads) as pool:
            results.append(loss_and_gradients(module, noisy, clean, receptive_field_px=3, band_rows=16, pool=pool))
    for loss, gradients in results[1:]:
        assert loss == results[0][0]
        assert all(torch.equal(mine, first) for mine, first in zip(gradients, results[0][1], strict=True))


def test_workers_give_torch_its_threads_back() -> None:
    before = torch.get_num_threads()
    with band_workers(2) as pool:
        assert torch.get_num_threads() == 1
        assert isinstance(pool, ThreadPoolExecutor)
    assert torch.get_num_threads() == before


def test_an_error_in_a_band_reaches_the_caller() -> None:
    with band_workers(2) as pool, pytest.raises(RuntimeError, match="channels"):
        mean_loss(
            CRYO_CNN.build(),
            torch.rand(1, 2, 40, 8),
            torch.rand(1, 1, 40, 8),
            receptive_field_px=3,
            band_rows=8,
            pool=pool,
        )


@pytest.mark.parametrize(
    ("spec", "shape", "least_bands", "most_rows"),
    [
        (CRYO_CNN, (8, 1, 1024, 1024), 32, 256),
        (CRYO_CNN, (1, 1, 512, 512), 2, 256),  # a small batch keeps two cores busy, too
        (CRYO_CNN, (1, 1, 4096, 4096), 32, 128),
        (RESIDUAL_CNN, (8, 1, 1024, 1024), 40, 220),  # its many layers take memory
        (RESIDUAL_CNN, (1, 1, 64, 64), 1, 10**9),
    ],
)
def test_a_step_has_bands_for_many_cores_in_bounded_memory(
    spec: ModelSpec, shape: tuple[int, int, int, int], least_bands: int, most_rows: int
) -> None:
    radius = spec.receptive_field_px
    rows = default_band_rows(spec.build(), shape, receptive_field_px=radius)
    assert 4 * radius <= rows <= most_rows
    assert shape[0] * len(plan_bands(shape[2], receptive_field_px=radius, band_rows=rows)) >= least_bands
