"""A packed convolution is the layer, with what follows it, to rounding; with the library and without."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from cryoplug.kernels import packed
from cryoplug.kernels.packed import PackedConvolution


@pytest.mark.parametrize("with_library", [True, False])
@pytest.mark.parametrize(("inside", "outside", "side"), [(1, 1, 3), (4, 40, 3), (40, 8, 3), (17, 12, 2)])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("adds", [True, False])
def test_it_gives_what_the_layer_gives(monkeypatch, with_library, inside, outside, side, relu, adds) -> None:
    if not with_library:
        monkeypatch.setattr(packed, "can_pack", lambda: False)
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    weight, bias = random(outside, inside, side, side), random(outside) if relu else None
    features = random(1, inside, 9, 13).contiguous(memory_format=torch.channels_last)
    wanted = functional.conv2d(features, weight, bias, padding=(0, 1))
    addend = random(*wanted.shape).contiguous(memory_format=torch.channels_last) if adds else None
    before = features.clone(), None if addend is None else addend.clone()
    with torch.inference_mode():
        layer = PackedConvolution(weight, bias, padding=(0, 1))
        assert layer.packs == (with_library and packed.can_pack())
        found = layer(features, addend, relu=relu)
    if addend is not None:
        wanted = wanted + addend
        assert torch.equal(addend, before[1]), "it is read again by others"
    assert torch.equal(features, before[0])
    wanted = functional.relu(wanted) if relu else wanted
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= 2e-6 * wanted.abs().max() * inside**0.5
