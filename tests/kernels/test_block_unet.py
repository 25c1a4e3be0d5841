"""A U-Net on blocks of pixels gives what its layers give, in one orientation and in all; the kernels give what the sums give.

Where the sums are in float32, only their order differs. Half precision: weights, windows and features have 11 bits (2.4e-4
each), and a few dozen roundings follow one another.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch

from cryoplug.inference.network.orientations import mean_over_orientations
from cryoplug.kernels import block_plain
from cryoplug.kernels.block_maps import Map
from cryoplug.kernels.block_matrices import Block, choose_block, split_outputs
from cryoplug.kernels.block_unet import BlockUNet, bytes_per_pixel, why_not
from cryoplug.models.unet import UNet, build

CONFIGS: list[dict[str, Any]] = [
    {"depth": 2, "width": 40, "stem": 2, "skip": "none", "outputs": 2, "most": 80, "clip": 1.0},
    {"depth": 3, "width": 8},
    {"depth": 2, "width": 32, "skip": "none"},
    {"depth": 1, "width": 80, "most": 80, "clip": 0.5},
    {"depth": 1, "width": 160, "most": 160, "outputs": 2},
    {"depth": 2, "width": 24, "stem": 4, "skip": "none"},
]


def network_of(config: dict[str, Any]) -> UNet:
    """One whose every weight counts: those of the output are zero before a training, and so are all biases."""
    network = build(**config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return network


def images_of(network: UNet, count: int = 2) -> torch.Tensor:
    side = network.stem << network.depth
    return torch.randn(count, 1, 2 * side, 3 * side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("config", CONFIGS)
def test_turned_weights_are_as_good_as_turned_images(config: dict[str, Any]) -> None:
    network = network_of(config)
    images = images_of(network)
    wanted = mean_over_orientations(network, images)
    for output in range(network.outputs):
        blocks = BlockUNet(network, output=output, dtype=torch.float32, arithmetic=block_plain)
        torch.testing.assert_close(blocks(images), wanted[:, output : output + 1], atol=4e-6, rtol=1e-5)
    plain = network(images)
    alone = BlockUNet(network, orientations=1, dtype=torch.float32, arithmetic=block_plain)
    torch.testing.assert_close(alone(images), plain[:, :1], atol=4e-6, rtol=1e-5)
    assert (wanted - plain).abs().max() > 1e-2, "else the orientations are not tested"


def test_images_of_another_size_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of(CONFIGS[0])
    blocks = BlockUNet(network, dtype=torch.float32, arithmetic=block_plain)
    images = images_of(network, 1)
    first = blocks(images)
    assert blocks(images[..., :16]).shape == (1, 1, *images.shape[2:3], 16)
    assert torch.equal(blocks(images), first), "the border of the maps is zero, whatever was computed before"
    blocks.forget_buffers()
    assert torch.equal(blocks(images), first)


def test_orientations_go_in_turns_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of(CONFIGS[0])
    images = images_of(network)
    wanted = BlockUNet(network, dtype=torch.float32, arithmetic=block_plain)(images)
    blocks = BlockUNet(network, dtype=torch.float32, arithmetic=block_plain)
    real, asked = blocks._new_maps, []

    def short(count: int, *size: Any) -> Any:
        asked.append(count)
        if count > 4:
            raise torch.OutOfMemoryError("no room")
        return real(count, *size)

    monkeypatch.setattr(blocks, "_new_maps", short)
    torch.testing.assert_close(blocks(images), wanted, atol=2e-6, rtol=1e-5)
    assert asked == [16, 8, 4]
    with pytest.raises(torch.OutOfMemoryError):
        blocks(torch.cat([images] * 3))


@pytest.mark.parametrize(("config", "orientations"), [(CONFIGS[0], 2), (CONFIGS[3], 1)])
def test_the_kernels_compute_these_sums(config: dict[str, Any], orientations: int) -> None:
    pytest.importorskip("triton", reason="triton is not installed: its interpreter runs the GPU kernels in tests")
    device = torch.device("cpu") if os.environ.get("TRITON_INTERPRET") == "1" else torch.device("cuda")
    network = network_of({**config, "depth": 1}).to(device)
    images = images_of(network, 1).to(device)
    wanted = BlockUNet(network, orientations=orientations, arithmetic=block_plain)(images)
    found = BlockUNet(network, orientations=orientations)(images)
    assert (found - wanted).abs().max() <= 1e-3 * (wanted.max() - wanted.min())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here: the interpreter is too slow for these")
@pytest.mark.parametrize("orientations", [8, 1])
@pytest.mark.parametrize("config", [*CONFIGS, {"depth": 4, "width": 40, "most": 320, "stem": 2, "skip": "none"}])
def test_on_a_gpu_half_precision_stays_near_the_layers(config: dict[str, Any], orientations: int) -> None:
    network = network_of(config).cuda()
    images = torch.randn(1, 1, 32 * 9, 32 * 11, device="cuda").clamp(-3, 3)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        wanted = mean_over_orientations(network, images) if orientations == 8 else network(images)
    for output in range(network.outputs):
        found = BlockUNet(network, output=output, orientations=orientations)(images)
        difference = (found - wanted[:, output : output + 1]).abs().max()
        assert difference <= 2e-3 * (wanted[:, output].max() - wanted[:, output].min())


def test_what_overflows_is_seen() -> None:
    pytest.importorskip("triton", reason="triton is not installed: its interpreter runs the GPU kernels in tests")
    device = torch.device("cpu") if os.environ.get("TRITON_INTERPRET") == "1" else torch.device("cuda")
    network = network_of({"depth": 1, "width": 80, "most": 80}).to(device)
    network.get_submodule("down0.conv1").weight.fill_(3e4)  # type: ignore[operator, union-attr]
    images = images_of(network, 1).to(device)
    with np.errstate(all="ignore"):
        assert not BlockUNet(network, orientations=1)(images).isfinite().all()


def test_a_network_that_is_not_for_it_says_why() -> None:
    assert why_not(torch.nn.Conv2d(1, 1, 3)) == "it is not a unet"
    assert why_not(build(depth=1, width=8, norm="group")) == "it has a norm"
    assert why_not(build(depth=1, width=12)) == "12 channels are not for the units of a GPU"
    assert not any(why_not(build(**config)) for config in CONFIGS)


@pytest.mark.parametrize(
    ("outputs", "wanted"),
    [(16, (1, 16, 0)), (96, (1, 64, 32)), (160, (1, 128, 32)), (256, (2, 128, 0)), (320, (2, 128, 32)), (40, None)],
)
def test_outputs_are_shared_in_powers_of_two(outputs: int, wanted: tuple[int, int, int] | None) -> None:
    assert split_outputs(outputs) == wanted


def test_blocks_fill_a_matrix() -> None:
    assert [choose_block(channels) for channels in (32, 40, 48, 80, 96)] == [
        *[Block(2, 2)] * 2,
        *[Block(1, 2)] * 2,
        Block(1, 1),
    ]


def test_a_map_that_the_kernels_cannot_count_is_refused() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="16384x16384 points and 32 channels is too large"):
        Map(1, 16384, 16384, 32, torch.empty(0))


def test_its_memory_is_counted() -> None:
    network = build(**CONFIGS[0])
    blocks = BlockUNet(network, orientations=1, arithmetic=block_plain)
    side = 128
    blocks(torch.zeros(1, 1, side, side))
    held = sum(maps.values.numel() * 2 for maps in blocks._maps.values())
    assert 0.8 * held <= (bytes_per_pixel(network) - 32) * side**2 <= held
