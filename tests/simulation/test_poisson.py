"""Poisson numbers: draws after one another are independent, on every device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import cryoplug.simulation
from cryoplug.simulation.poisson import NUMBERS_PER_DRAW, draw_poisson

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("expected", [0.5, 9.0, 34.0, 63.9, 64.1, 300.0])
def test_draws_after_one_another_do_not_correlate(device: str, expected: float) -> None:
    generator = torch.Generator(device).manual_seed(1)
    expectations = torch.full((1000, 1000), expected, device=device)
    first, second = (draw_poisson(expectations, generator) for _ in range(2))
    then = torch.randn(first.shape, generator=generator, device=device)
    numbers = torch.stack([image.flatten().double() for image in (first, second, then)])
    assert torch.corrcoef(numbers).sub(torch.eye(3, device=device)).abs().max() < 5e-3
    assert torch.allclose(numbers[:2].mean(1), torch.tensor(expected, dtype=torch.float64, device=device), rtol=5e-3)
    assert torch.allclose(numbers[:2].var(1), torch.tensor(expected, dtype=torch.float64, device=device), rtol=1e-2)


class _CountingGenerator:
    """Stands for a generator on a GPU."""

    device = torch.device("cuda")

    def __init__(self) -> None:
        self.offset = 20

    def get_offset(self) -> int:
        return self.offset

    def set_offset(self, offset: int) -> None:
        self.offset = offset


def test_the_generator_of_a_gpu_is_moved_beyond_all_numbers_that_a_draw_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "poisson", lambda expected, generator: expected)
    generator = _CountingGenerator()
    draw_poisson(torch.ones(3), generator)  # type: ignore[arg-type]
    assert generator.offset == 20 + NUMBERS_PER_DRAW
    assert generator.offset % 4 == 0


def test_no_other_file_of_the_simulation_draws_poisson_numbers() -> None:
    folder = Path(cryoplug.simulation.__file__).parent
    assert [path.name for path in folder.glob("*.py") if "torch.poisson(" in path.read_text()] == ["poisson.py"]
