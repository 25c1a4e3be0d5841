from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from cryoplug.models.registry import CRYO_CNN
from cryoplug.store.manifest import Manifest, MicrographEntry
from cryoplug.store.pairs import PairStore, create_store, open_store
from cryoplug.training.choice import Units
from cryoplug.training.data.balance import Balance, measure_balance
from cryoplug.training.data.loader import BatchLoader
from cryoplug.training.data.mixing import Mixer
from cryoplug.training.engine import WholeBatchEngine
from cryoplug.training.validation import validate

SHAPE = (1, 1, 600, 600)
CPU = torch.device("cpu")


def smooth(rng: np.random.Generator, side: int) -> np.ndarray:
    spectrum = np.fft.rfft2(rng.standard_normal((side, side)))
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    field = np.fft.irfft2(spectrum * np.exp(-((frequency / 0.06) ** 2)), s=(side, side))
    return (field / field.std()).astype(np.float32)


def halves(signal: float = 0.5, ratio: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Truth, and halves that hold it; `ratio` is even's noise variance over odd's."""
    truth = signal * torch.randn(SHAPE)
    return truth, truth + math.sqrt(ratio) * torch.randn(SHAPE), truth + torch.randn(SHAPE)


def exact(signal: float, ratio: float = 1.0) -> Balance:
    noise = ratio / (1 + ratio)
    return Balance(1.0, ratio, signal**2 + noise, noise)


@pytest.mark.parametrize("share", [1.0, 0.7, 0.5, 0.25])
@pytest.mark.parametrize("ratio", [1.0, 0.1, 5.0])
@pytest.mark.parametrize("number", [None, 3])
def test_noise_of_input_and_target_is_uncorrelated_wherever_the_difference_comes_from(
    share: float, ratio: float, number: int | None
) -> None:
    truth, even, odd = halves(0.5, ratio)
    balance = exact(0.5, ratio)
    mixer = Mixer(share, balance, seed=1, device=CPU)
    mixer.prepare(number)
    scale = 1 / math.sqrt(balance.mean_variance + share**2 * balance.noise_variance)
    noise = scale**2 * balance.noise_variance
    for mixed, target in zip(*mixer.mix(even, odd), strict=True):
        in_input, in_target = mixed - scale * truth[0], target - scale * truth[0]
        correlation = float((in_input * in_target).mean() / (in_input.std() * in_target.std()))
        assert abs(correlation) < 5 / math.sqrt(truth.numel())
        assert float(mixed.var()) == pytest.approx(1.0, rel=0.02)
        assert float(in_input.var()) == pytest.approx(noise * (1 + share**2), rel=0.02)
        assert float(in_target.var()) == pytest.approx(noise * (1 + 1 / share**2), rel=0.02)


@pytest.mark.parametrize("ratio", [1.0, 0.1])
def test_the_mean_of_two_mixtures_is_the_weighted_mean_of_the_halves_with_none_of_their_difference(
    ratio: float,
) -> None:
    even, odd = torch.randn(3, 1, 20, 24), torch.randn(3, 1, 20, 24)
    mixer = Mixer(0.25, exact(0.5, ratio), seed=1, device=CPU)
    mixer.prepare(5)
    inputs, targets = mixer.mix(even, odd)
    assert inputs.shape == targets.shape == (6, 1, 20, 24)
    mean = (even + ratio * odd) / (1 + ratio)
    for images in (inputs, targets):
        of_pair = images.view(3, 2, 1, 20, 24).mean(1)
        torch.testing.assert_close(of_pair / of_pair.std(), mean / mean.std(), rtol=0, atol=1e-4)
    apart = (inputs[0::2] - inputs[1::2]).std() / (targets[0::2] - targets[1::2]).std()
    assert float(apart) == pytest.approx(0.25**2)


@pytest.mark.parametrize("number", [None, 1])
def test_share_1_gives_the_halves_themselves_and_exchanged(number: int | None) -> None:
    _, even, odd = halves()
    mixer = Mixer(1.0, Balance(mean_variance=0.5, noise_variance=0.5), seed=0, device=CPU)
    mixer.prepare(number)
    inputs, targets = mixer.mix(even, odd)
    torch.testing.assert_close(inputs, torch.cat((even, odd)), rtol=0, atol=1e-5)
    torch.testing.assert_close(targets, torch.cat((odd, even)), rtol=0, atol=1e-5)


def counts(mean: float, shape: tuple[int, ...]) -> torch.Tensor:
    return (torch.poisson(torch.full(shape, mean)) - mean) / math.sqrt(mean)


@pytest.mark.parametrize("frames", [1, 4])
def test_the_square_of_the_input_tells_nothing_of_the_targets_skewed_noise(frames: int) -> None:
    # Even is the mean of some frames, odd a single one. Unlike halves leak with either sign of their difference, and as much
    # the other way with the other sign.
    shape, ratio = (1, 1, 1000, 1000), 1 / frames
    leaks: dict[float, list[float]] = {1.0: [], 0.7: [], 0.5: []}
    for number in range(12):
        even, odd = counts(4.0 * frames, shape).mul_(math.sqrt(ratio)), counts(4.0, shape)
        for share, of_share in leaks.items():
            mixer = Mixer(share, exact(0.0, ratio), seed=0, device=CPU)
            mixer.prepare(number)
            inputs, targets = mixer.mix(even, odd)
            square = inputs**2
            of_share.append(float(((square - square.mean()) * targets).mean() / (inputs.var() * targets.std())))
    assert all(abs(float(np.mean(of_share))) < 0.004 for of_share in leaks.values()), leaks


def test_a_small_share_brings_the_input_close_to_the_mean_of_the_halves() -> None:
    _, even, odd = halves()
    mean = (even + odd) / 2
    mixer = Mixer(0.2, Balance(), seed=0, device=CPU)
    mixer.prepare(7)
    inputs, _ = mixer.mix(even, odd)
    assert torch.corrcoef(torch.stack((inputs[0].flatten(), mean.flatten())))[0, 1] > 0.97


def test_a_linear_filter_learns_the_gain_for_the_sum_and_not_that_for_a_half() -> None:
    _, even, odd = halves(signal=0.3)
    mixer = Mixer(0.3, exact(0.3), seed=0, device=CPU)
    mixer.prepare(1)
    inputs, targets = mixer.mix(even, odd)
    gain = float((inputs * targets).mean() / (inputs * inputs).mean())
    signal, noise = 0.09, 1.0
    of_the_sum, of_a_half = signal / (signal + noise / 2), signal / (signal + noise)
    assert abs(gain - of_the_sum) < 0.5 * abs(gain - of_a_half)


def test_each_step_takes_its_noise_from_elsewhere_and_the_same_step_from_the_same_place() -> None:
    _, even, odd = halves()
    mixer = Mixer(0.5, Balance(), seed=0, device=CPU)

    def mixed(number: int) -> torch.Tensor:
        mixer.prepare(number)
        return mixer.mix(even, odd)[0]

    assert torch.equal(mixed(4), mixed(4))
    assert not torch.allclose(mixed(4), mixed(5))


def stored(folder: Path, even_noise: float, odd_noise: float, signal: float = 1.0) -> PairStore:
    """Six z-scored pairs of a smooth signal with white noise of these deviations."""
    side, count = 128, 6
    head = Manifest((side, side), "float32", "halves", "zscore", 0, side)
    rng = np.random.default_rng(0)
    with create_store(folder, head) as writer:
        for number in range(count):
            truth = signal * smooth(rng, side)
            pair = [truth + noise * rng.standard_normal((side, side)) for noise in (even_noise, odd_noise)]
            records = [{"kind": "zscore", "offset": float(image.mean()), "scale": float(image.std())} for image in pair]
            scored = [((image - image.mean()) / image.std()).astype(np.float32) for image in pair]
            writer.append("train", scored[0], scored[1], (0, 0))
            writer.acknowledge(
                MicrographEntry(f"m{number}.mrc", "train", (side, side), 1.0, records[0], f"m{number}.mrc", records[1])
            )
        writer.finish()
    return open_store(folder)


@pytest.mark.parametrize(("even_noise", "odd_noise"), [(0.3, 2.0), (2.0, 0.3), (1.0, 1.5)])
def test_the_balance_of_unlike_halves_is_found(tmp_path: Path, even_noise: float, odd_noise: float) -> None:
    with stored(tmp_path / "store", even_noise, odd_noise) as store:
        assert store.manifest is not None and not store.manifest.halves_alike
        balance = measure_balance(store, np.arange(6), alike=False)
    assert balance is not None
    assert balance.noise_ratio == pytest.approx((even_noise / odd_noise) ** 2, rel=0.1)
    amplitude = math.sqrt((1 + odd_noise**2) / (1 + even_noise**2))
    assert balance.signal_ratio == pytest.approx(amplitude, rel=0.1)


def test_the_measured_variances_are_those_of_the_mixtures(tmp_path: Path) -> None:
    with stored(tmp_path / "store", 0.5, 1.5) as store:
        balance = measure_balance(store, np.arange(6), alike=False)
        assert balance is not None
        even, odd = (torch.empty((6, 1, 128, 128)) for _ in range(2))
        store.read(range(6), even[:, 0].numpy(), odd[:, 0].numpy())
    mixer = Mixer(0.5, balance, seed=0, device=CPU)
    mixer.prepare(None)
    assert float(mixer.mix(even, odd)[0].var()) == pytest.approx(1.0, rel=0.1)


def test_like_halves_are_not_measured_but_for_their_variances(tmp_path: Path) -> None:
    with stored(tmp_path / "store", 1.0, 1.0) as store:
        balance = measure_balance(store, np.arange(6), alike=True)
    assert balance is not None
    assert dataclasses.replace(balance, mean_variance=0.5, noise_variance=0.5) == Balance()
    assert balance.mean_variance == pytest.approx(0.75, rel=0.1) and balance.noise_variance == pytest.approx(
        0.25, rel=0.1
    )


def test_validation_counts_both_mixtures_of_a_patch_with_its_micrograph(tmp_path: Path) -> None:
    engine = WholeBatchEngine(CRYO_CNN.build(seed=3))
    mixer = Mixer(0.5, Balance(), seed=0, device=CPU)
    units = Units("micrographs", np.array([0, 0, 1, 1, 2]))
    found = []
    with stored(tmp_path / "store", 1.0, 1.0) as store:
        even, odd = (torch.empty((5, 1, 128, 128)) for _ in range(2))
        store.read(range(5), even[:, 0].numpy(), odd[:, 0].numpy())
        for batch_size in (1, 3, 5):
            loader = BatchLoader(store, batch_size=batch_size)
            done = validate(
                engine, loader, np.arange(5), units=units, mixer=mixer, max_batches=None, check=lambda *_: None
            )
            assert done is not None
            found.append(done)
    mixer.prepare(None)
    inputs, targets = mixer.mix(even, odd)
    with torch.inference_mode():
        losses = 0.25 * ((engine.module(inputs) - targets) ** 2).mean((1, 2, 3)).view(5, 2).mean(1)
    for validation in found:
        of_units = [float(losses[:2].mean()), float(losses[2:4].mean()), float(losses[4])]
        assert validation.unit_losses == pytest.approx(of_units, rel=1e-5)
        assert validation.loss == pytest.approx(float(losses.mean()), rel=1e-5)


def test_unlike_halves_without_common_signal_give_no_balance(tmp_path: Path) -> None:
    with stored(tmp_path / "store", 1.0, 3.0, signal=0.0) as store:
        assert measure_balance(store, np.arange(6), alike=False) is None
