from __future__ import annotations

import math

import pytest
import torch

from cryoplug.training.mixing import mix_halves

SHAPE = (1, 1, 600, 600)


def halves(signal: float = 0.5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    truth = signal * torch.randn(SHAPE)
    return truth, truth + torch.randn(SHAPE), truth + torch.randn(SHAPE)


@pytest.mark.parametrize("share", [1.0, 0.7, 0.5, 0.25])
def test_noise_of_input_and_target_stays_uncorrelated(share: float) -> None:
    truth, even, odd = halves()
    mix_halves(even, odd, share)
    scale = math.sqrt(2 / (1 + share**2))
    in_input, in_target = even - scale * truth, odd - scale * truth
    correlation = float((in_input * in_target).mean() / (in_input.std() * in_target.std()))
    assert abs(correlation) < 5 / math.sqrt(truth.numel())
    assert float(in_target.var()) == pytest.approx(1 / share**2, rel=0.02)
    assert float(in_input.var()) == pytest.approx(1.0, rel=0.02)


def test_share_1_leaves_the_halves_as_they_are() -> None:
    _, even, odd = halves()
    kept = even.clone(), odd.clone()
    mix_halves(even, odd, 1.0)
    torch.testing.assert_close((even, odd), kept)


def test_a_small_share_brings_the_input_close_to_the_mean_of_the_halves() -> None:
    _, even, odd = halves()
    mean = (even + odd) / 2
    mix_halves(even, odd, 0.2)
    correlation = torch.corrcoef(torch.stack((even.flatten(), mean.flatten())))[0, 1]
    assert correlation > 0.97


def test_a_linear_filter_learns_the_gain_for_the_sum_and_not_that_for_a_half() -> None:
    _, even, odd = halves(signal=0.3)
    signal, noise = 0.09, 1.0
    mix_halves(even, odd, 0.3)
    gain = float((even * odd).mean() / (even * even).mean())
    of_the_sum, of_a_half = signal / (signal + noise / 2), signal / (signal + noise)
    assert abs(gain - of_the_sum) < 0.3 * abs(gain - of_a_half)
