"""Channels that are never on learn again, and the image does not change by waking them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from cryoplug.models.unet import UNet, build

_SPEC = importlib.util.spec_from_file_location(
    "dormant", Path(__file__).parents[2] / "examples" / "train_general" / "dormant.py"
)
assert _SPEC is not None and _SPEC.loader is not None
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)
wake = _MODULE.wake

ASLEEP = {"down0.conv1": [1], "down0.conv2": [1], "down1.conv2": [0, 2], "middle.conv1": [5], "up1.conv1": [3]}
"""Channels whose bias puts them to sleep. A hidden channel (conv1) with a live output can only sleep on."""
ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
IMAGES = torch.randn(3, 1, 32, 48, generator=torch.Generator().manual_seed(2))


def network(outputs: int, asleep: dict[str, list[int]]) -> UNet:
    module = build(seed=1, depth=2, width=6, stem=2, skip="none", outputs=outputs, clip=4.0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        module.output.weight.normal_(generator=generator)
        for name, channels in asleep.items():
            block, layer = name.split(".")
            getattr(module, block).get_submodule(layer).bias[channels] = -1e3
    return module


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=ON_GPU)])
def test_waking_changes_no_image_and_leaves_no_output_of_a_block_asleep(outputs: int, device: str) -> None:
    module, images = network(outputs, ASLEEP).to(device, memory_format=torch.channels_last), IMAGES.to(device)
    before = module(images)
    assert wake(module, images, seed=0) >= 3
    # A GPU may multiply in TF32, and chooses its algorithms by itself.
    torch.testing.assert_close(module(images), before, rtol=0, atol=1e-5 if device == "cpu" else 1e-2)
    assert wake(module, images, seed=0) == 0


def test_woken_channels_get_a_gradient() -> None:
    module = network(1, ASLEEP)

    def gradient() -> torch.Tensor:
        module.zero_grad()
        module(IMAGES).square().sum().backward()
        found = module.down1.conv1.weight.grad  # reads channel 1 of down0
        assert found is not None
        return found[:, 1]

    assert not gradient().any()
    wake(module, IMAGES, seed=0)
    assert gradient().any()


def test_a_network_that_is_awake_keeps_every_bit() -> None:
    module = network(2, {})
    for name, block in module.named_children():
        if name != "output":
            torch.nn.init.constant_(block.conv2.bias, 10.0)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert wake(module, IMAGES, seed=0) == 0
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
