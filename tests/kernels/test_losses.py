from __future__ import annotations

import pytest
import torch

from cryoplug.kernels.bands import loss_and_gradients, mean_loss
from cryoplug.kernels.losses import loss_slope, loss_sum, mean_loss_of
from cryoplug.models.registry import CRYO_CNN
from cryoplug.training.config import LOSSES

FORMULAS = {
    "mse": lambda d: d**2,
    "l1": torch.abs,
    "charbonnier": lambda d: torch.sqrt(d**2 + 1e-6),
}


def test_every_loss_has_a_formula_here() -> None:
    assert set(FORMULAS) == set(LOSSES)


@pytest.mark.parametrize("kind", LOSSES)
def test_values_are_those_of_the_formula(kind: str) -> None:
    difference = torch.linspace(-2, 3, 1001, dtype=torch.float64).reshape(7, 143)
    expected = FORMULAS[kind](difference)
    assert loss_sum(difference, kind) == pytest.approx(float(expected.sum()), rel=1e-12)
    clean = torch.rand_like(difference)
    assert float(mean_loss_of(clean + difference, clean, kind)) == pytest.approx(float(expected.mean()), rel=1e-9)


@pytest.mark.parametrize("kind", LOSSES)
def test_slopes_are_the_derivative(kind: str) -> None:
    difference = torch.linspace(-2, 3, 50, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(FORMULAS[kind](difference).sum(), difference)
    found = loss_slope(difference.detach().clone(), kind, scale=0.25)
    torch.testing.assert_close(found, 0.25 * expected)


@pytest.mark.parametrize("kind", LOSSES)
def test_bands_and_whole_batch_agree(kind: str) -> None:
    noisy, clean = torch.rand(2, 3, 1, 40, 21, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    module = CRYO_CNN.build(seed=2).double()
    whole = mean_loss_of(module(noisy), clean, kind)
    expected = torch.autograd.grad(whole, list(module.parameters()))
    found, gradients = loss_and_gradients(module, noisy, clean, receptive_field_px=3, band_rows=8, loss=kind)
    assert found == pytest.approx(whole.item(), rel=1e-12)
    for mine, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert mean_loss(module, noisy, clean, receptive_field_px=3, band_rows=8, loss=kind) == pytest.approx(found)
