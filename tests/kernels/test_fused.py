"""The GPU kernels against the plain layers in float64, in Triton's interpreter on the CPU.

Tolerances, as norm of the difference over norm of the expected:

| what | tolerance | reason |
|---|---|---|
| output | 1e-3 | images, weights and hidden values have 11 bits (2.4e-4 each), four roundings follow one another |
| loss | 1e-3 | twice the output's error, which cancels in part |
| gradients of the last layer | 2e-3 | one rounding of the slopes more |
| gradients of the first two | 5e-2 | a hidden value near 0 may fall on the other side of the ReLU; in a few pixels, one |
|  |  | such value is a percent of the sum (on 8 images of 1024 x 1024 it is 4e-4) |
"""

from __future__ import annotations

import os
from types import ModuleType

import pytest
import torch
from torch.nn import functional

from cryoplug.models.cryo_cnn import CryoCNN, build

SHAPES = [(1, 1, 1), (2, 2, 3), (1, 7, 31), (1, 5, 32), (3, 9, 33)]


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("triton", reason="triton is not installed: its interpreter runs the GPU kernels in tests")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("there is a GPU: benchmarks/gpu_training.py compares the compiled kernels with the plain layers")
    import cryoplug.kernels.fused as module

    # Small tiles, so that small images have several, of unequal sizes.
    monkeypatch.setattr(module, "FORWARD_HIDDEN", module.Tiling(16, 4, 1))
    monkeypatch.setattr(module, "FORWARD_OUTPUT", module.Tiling(32, 5, 1))
    monkeypatch.setattr(module, "BACKWARD", module.Tiling(16, 6, 1))
    return module


def pair(shape: tuple[int, int, int]) -> tuple[CryoCNN, torch.Tensor, torch.Tensor]:
    module = build(seed=1)
    with torch.no_grad():
        module.conv3.bias.fill_(0.2)
    noisy, clean = torch.rand(2, *shape)[:, :, None]
    return module, noisy, clean


def distance(mine: torch.Tensor, expected: torch.Tensor) -> float:
    return float((mine.detach().double() - expected.detach()).norm() / expected.detach().norm())


def check_gradients(mine: list[torch.Tensor], expected: tuple[torch.Tensor, ...]) -> None:
    for number, (a, b) in enumerate(zip(mine, expected, strict=True)):
        assert a.shape == b.shape
        assert distance(a, b) < (2e-3 if number >= 4 else 5e-2), f"parameter {number}"


@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients_are_those_of_the_plain_layers(fused: ModuleType, shape: tuple[int, int, int]) -> None:
    module, noisy, clean = pair(shape)
    batch, height, width = shape
    network = fused.FusedCryoCNN(list(module.parameters()), batch=batch, height=height, width=width)
    loss, flat = network.loss_and_gradients(noisy, clean)
    gradients = network.split(flat)
    module.double()
    expected = functional.mse_loss(module(noisy.double()), clean.double())
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-3)
    check_gradients(gradients, torch.autograd.grad(expected, list(module.parameters())))


@pytest.mark.parametrize("shape", [(1, 3, 5), (2, 6, 33)])
def test_the_output_is_that_of_the_plain_layers(fused: ModuleType, shape: tuple[int, int, int]) -> None:
    module, noisy, _ = pair(shape)
    batch, height, width = shape
    network = fused.FusedCryoCNN(list(module.parameters()), batch=batch, height=height, width=width)
    assert distance(network.forward(noisy), module.double()(noisy.double())) < 1e-3


def test_fewer_images_than_there_is_room_for(fused: ModuleType) -> None:
    module, noisy, clean = pair((3, 4, 6))
    network = fused.FusedCryoCNN(list(module.parameters()), batch=3, height=4, width=6)
    network.loss_and_gradients(noisy, clean)
    loss, flat = network.loss_and_gradients(noisy[:1], clean[:1])
    alone = fused.FusedCryoCNN(list(module.parameters()), batch=1, height=4, width=6)
    again, flat_again = alone.loss_and_gradients(noisy[:1], clean[:1])
    assert torch.equal(loss, again)
    assert torch.equal(flat, flat_again)
    assert network.fits(noisy[:2])
    assert not alone.fits(noisy[:2])


# The interpreter is numpy, which warns where a GPU gives infinity in silence.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_training_engine_leaves_an_overflow_to_the_plain_layers(fused: ModuleType) -> None:
    from cryoplug.training.engine import FusedEngine, WholeBatchEngine

    module, noisy, clean = pair((1, 3, 4))
    engine, plain = FusedEngine(module), WholeBatchEngine(module)
    for factor in (1.0, 1e7):
        loss, gradients = engine.loss_and_gradients(noisy * factor, clean)
        expected, expected_gradients = plain.loss_and_gradients(noisy * factor, clean)
        assert loss == pytest.approx(expected, rel=1e-3)
        check_gradients(gradients, tuple(gradient.double() for gradient in expected_gradients))
        assert engine.loss(noisy * factor, clean) == pytest.approx(expected, rel=1e-3)
