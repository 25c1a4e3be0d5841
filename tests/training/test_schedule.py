from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from cryoplug.errors import FormatError
from cryoplug.models.registry import CRYO_CNN
from cryoplug.training.average import WeightAverage
from cryoplug.training.config import TrainConfig
from cryoplug.training.schedule import gave_up, is_done, learning_rate, limit_gradients
from cryoplug.training.state import Position, pack_state, unpack_state
from cryoplug.training.weights import weights_of

PATH = Path("resume/state.safetensors")
TOTAL = 100


def rates(**fields: object) -> list[float]:
    config = TrainConfig(lr=0.5, **fields)  # type: ignore[arg-type]
    return [learning_rate(config, step, total_steps=TOTAL) for step in range(TOTAL)]


def test_the_default_learning_rate_never_changes_by_a_bit() -> None:
    assert set(rates()) == {0.5}


def test_warm_up_rises_linearly_to_the_full_rate() -> None:
    found = rates(warmup_steps=10)
    assert found[:10] == pytest.approx([0.05 * number for number in range(1, 11)])
    assert set(found[10:]) == {0.5}


def test_cosine_falls_from_the_full_rate_to_nearly_zero_through_the_half() -> None:
    found = rates(schedule="cosine", warmup_steps=20)
    assert found[20] == 0.5 and found[60] == pytest.approx(0.25)
    assert all(late < early for early, late in itertools.pairwise(found[20:]))
    assert 0 < found[-1] < 0.001


def test_gradients_are_scaled_together_to_the_limit_and_small_ones_are_left_alone() -> None:
    gradients = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])]
    limit_gradients(gradients, 10.0)
    assert torch.equal(gradients[0], torch.tensor([3.0, 0.0]))
    limit_gradients(gradients, 1.0)
    torch.testing.assert_close(gradients[0], torch.tensor([0.6, 0.0]))
    torch.testing.assert_close(gradients[1], torch.tensor([[0.8]]))


def test_gradients_of_zero_stay_zero() -> None:
    gradients = [torch.zeros(3)]
    limit_gradients(gradients, 1.0)
    assert torch.equal(gradients[0], torch.zeros(3))


def test_a_run_is_given_up_after_patience_epochs_without_a_better_one() -> None:
    config = TrainConfig(epochs=9, patience=2)
    # (epoch in progress, best epoch): epochs before it are finished
    assert not gave_up(Position(epoch=1), config)
    assert not gave_up(Position(epoch=4, best_epoch=2), config)
    assert gave_up(Position(epoch=5, best_epoch=2), config)
    assert not gave_up(Position(epoch=5, best_epoch=2), TrainConfig(epochs=9))
    assert not is_done(Position(epoch=9, best_epoch=8), config)
    assert is_done(Position(epoch=10, best_epoch=9), config)


def test_the_average_follows_its_formula_and_the_network_gets_its_weights_back() -> None:
    module = CRYO_CNN.build(seed=1)
    average = WeightAverage(module, 0.5)
    expected = weights_of(module)["conv1.weight"].astype(np.float64)
    for step in range(1, 12):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += 0.25
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weights_of(module)["conv1.weight"]
    np.testing.assert_allclose(average.weights()["conv1.weight"], expected, rtol=1e-5)
    before = weights_of(module)
    with average.in_the_network():
        assert np.array_equal(weights_of(module)["conv1.weight"], average.weights()["conv1.weight"])
        assert np.array_equal(average.stepped_weights()["conv1.weight"], before["conv1.weight"])
    assert all(np.array_equal(before[name], array) for name, array in weights_of(module).items())


def test_a_state_saved_while_the_average_is_in_the_network_keeps_both() -> None:
    module = CRYO_CNN.build(seed=1)
    optimizer = torch.optim.Adam(module.parameters())
    average = WeightAverage(module, 0.9)
    with torch.no_grad():
        module.get_parameter("conv1.bias").add_(1)
    average.update(1)
    stepped, averaged = weights_of(module), average.weights()
    with average.in_the_network():
        payload = pack_state(module, optimizer, Position(), environment={}, average=average)
    other = CRYO_CNN.build(seed=2)
    restored, other_optimizer = WeightAverage(other, 0.9), torch.optim.Adam(other.parameters())
    unpack_state(payload, other, other_optimizer, path=PATH, average=restored)
    assert all(np.array_equal(array, stepped[name]) for name, array in weights_of(other).items())
    assert all(np.array_equal(array, averaged[name]) for name, array in restored.weights().items())
    without = pack_state(module, optimizer, Position(), environment={})
    with pytest.raises(FormatError, match="average of the weights is not in it"):
        unpack_state(without, other, other_optimizer, path=PATH, average=restored)


def test_a_warm_up_longer_than_a_short_run_shrinks_to_a_fifth_of_it() -> None:
    found = rates(schedule="cosine", warmup_steps=500)
    assert found[19] == 0.5 and found[9] == pytest.approx(0.25)
