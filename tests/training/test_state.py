from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cryoplug.errors import FormatError, UsageError
from cryoplug.models.registry import CRYO_CNN, RESIDUAL_CNN
from cryoplug.training.state import Position, pack_state, unpack_state
from cryoplug.training.weights import put_weights, weights_of

PATH = Path("resume/state.safetensors")


def a_run(seed: int = 0) -> tuple[nn.Module, torch.optim.Adam]:
    module = CRYO_CNN.build(seed=seed).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module, torch.optim.Adam(module.parameters(), lr=0.01)


def step(module: nn.Module, optimizer: torch.optim.Adam) -> None:
    optimizer.zero_grad()
    module(torch.ones(1, 1, 8, 8)).square().mean().backward()
    optimizer.step()


def test_a_run_goes_on_bit_for_bit_from_its_packed_state() -> None:
    module, optimizer = a_run()
    for _ in range(3):
        step(module, optimizer)
    position = Position(epoch=2, batch=3, step=3, loss_sum=0.1 + 0.2, patches=24, history=[{"epoch": 1}])
    payload = pack_state(module, optimizer, position, environment={"torch": "x"})
    other, other_optimizer = a_run(seed=9)
    assert unpack_state(payload, other, other_optimizer, path=PATH) == (position, {"torch": "x"})
    for _ in range(3):
        step(module, optimizer)
        step(other, other_optimizer)
    for mine, theirs in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_state_without_a_step_has_no_moments() -> None:
    module, optimizer = a_run()
    payload = pack_state(module, optimizer, Position(), environment={})
    other, other_optimizer = a_run(seed=9)
    assert unpack_state(payload, other, other_optimizer, path=PATH)[0] == Position()
    assert not other_optimizer.state


def test_a_flipped_bit_or_a_cut_is_noticed() -> None:
    module, optimizer = a_run()
    step(module, optimizer)
    payload = pack_state(module, optimizer, Position(step=1, loss_sum=0.123456789), environment={})
    where = payload.index(b"0.123456789") + 10
    for position in (len(payload) - 1, len(payload) // 2, where):
        damaged = bytearray(payload)
        damaged[position] ^= 1
        with pytest.raises(FormatError, match="damaged"):
            unpack_state(bytes(damaged), *a_run(), path=PATH)
    for size in (0, 7, 100, len(payload) - 1):
        with pytest.raises(FormatError, match="damaged"):
            unpack_state(payload[:size], *a_run(), path=PATH)


def test_the_state_of_another_network_is_refused() -> None:
    module, optimizer = a_run()
    payload = pack_state(module, optimizer, Position(), environment={})
    other = RESIDUAL_CNN.build()
    with pytest.raises(FormatError, match="the network needs"):
        unpack_state(payload, other, torch.optim.Adam(other.parameters()), path=PATH)


def test_weights_come_out_in_c_order_whatever_the_memory_format() -> None:
    module, _ = a_run()
    weights = weights_of(module)
    expected = CRYO_CNN.build().state_dict()
    for name, array in weights.items():
        assert array.flags.c_contiguous
        assert np.array_equal(array, expected[name].numpy())
    put_weights(module, {name: array + 1 for name, array in weights.items()})
    assert np.array_equal(weights_of(module)["conv2.weight"], weights["conv2.weight"] + 1)


def test_weights_that_are_not_float32_cannot_be_kept() -> None:
    with pytest.raises(UsageError, match=r"weight of this network is torch\.float64"):
        weights_of(nn.Linear(2, 2).double())
