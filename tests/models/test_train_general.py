"""The loss that the general model learns by: faint crops count, and what is uncertain fades instead of vanishing."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_general" / "evenly.py"


@pytest.fixture(scope="module")
def evenly() -> ModuleType:
    spec = importlib.util.spec_from_file_location("evenly", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def learnt_amplitude(evenly: ModuleType, present: float) -> float:
    """Learn how strongly to show a pattern that is there in a part of the crops."""
    random = torch.Generator().manual_seed(0)
    pattern = 0.05 * torch.randn((64, 64), generator=random)
    amplitude = torch.nn.Parameter(torch.tensor(0.02))
    loss, optimizer = evenly.EvenLoss(1, torch.device("cpu")), torch.optim.Adam([amplitude], lr=0.004)
    late = []
    for step in range(1200):
        there = (torch.rand((8, 1, 1, 1), generator=random) < present).float()
        unpredictable = 0.02 * torch.randn((8, 1, 64, 64), generator=random)
        output = (amplitude * pattern).expand(8, 1, 64, 64)
        optimizer.zero_grad()
        loss(output.detach(), output - there * (pattern + unpredictable)).backward()
        optimizer.step()
        if step >= 900:
            late.append(float(amplitude.detach()))
    return sum(late) / len(late)


@pytest.mark.parametrize("present", [0.25, 0.5, 0.75])
def test_what_may_be_there_fades_and_is_not_erased(evenly: ModuleType, present: float) -> None:
    # The expected image has the amplitude `present`. Errors that count by their logarithm take something away from it.
    assert 0.35 * present < learnt_amplitude(evenly, present) < 1.1 * present


def test_in_the_long_run_a_crop_of_each_strength_costs_the_same(evenly: ModuleType) -> None:
    random = torch.Generator().manual_seed(1)
    loss = evenly.EvenLoss(1, torch.device("cpu"))
    for strength in (0.003, 0.1, 3.0):
        costs = []
        for _ in range(300):
            output = strength * torch.randn((8, 1, 64, 64), generator=random)
            costs.append(float(loss(output, 0.6 * output.roll(1, 3))))
        assert sum(costs[200:]) / 100 == pytest.approx(1, abs=0.05)
