"""A U-Net on blocks of pixels in the place of its layers; the plain sums stand for the kernels of a GPU."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from cryoplug.inference.network import fastest
from cryoplug.inference.network.fastest import Network
from cryoplug.inference.network.tile_network import TileNetwork
from cryoplug.kernels import block_plain
from cryoplug.kernels.block_unet import BlockUNet
from cryoplug.kernels.dispatch import KernelChoice
from cryoplug.models.checkpoint import Checkpoint
from cryoplug.models.registry import UNET, model_spec

CONFIG = {"depth": 2, "width": 32, "stem": 2, "skip": "none", "outputs": 2, "clip": 4.0}


def checkpoint_of(factor: float = 1.0) -> Checkpoint:
    random = np.random.default_rng(0)
    weights = {
        name: (factor * random.normal(0, 0.08, tensor.shape)).astype(np.float32)
        for name, tensor in UNET.build(config=CONFIG).state_dict().items()
    }
    return Checkpoint("unet", weights, CONFIG, "zscore")


def network_of(checkpoint: Checkpoint, target: str = "image") -> Network:
    return Network(
        checkpoint,
        torch.device("cpu"),
        layout=torch.channels_last,
        precision="float32",
        normalize="zscore",
        target=target,
    )


@pytest.fixture
def images() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).normal(0, 1, (2, 50, 70)).astype(np.float32))


def in_blocks(monkeypatch: pytest.MonkeyPatch, network: Network) -> Network:
    monkeypatch.setattr(fastest, "BlockUNet", functools.partial(BlockUNet, arithmetic=block_plain))
    network.kernels = KernelChoice("blocks", "as on a GPU that they were tested on")
    network._half = torch.float16
    return network


@pytest.mark.parametrize("target", ["image", "particles"])
@pytest.mark.parametrize("tta", [True, False])
def test_both_ways_give_the_same(monkeypatch: pytest.MonkeyPatch, images: torch.Tensor, target: str, tta: bool) -> None:
    checkpoint = checkpoint_of()
    images[0, 7, 9] = 60.0
    wanted = TileNetwork(network_of(checkpoint, target), multiple=8, tta=tta).many(images)
    blocks = in_blocks(monkeypatch, network_of(checkpoint, target))
    found = TileNetwork(blocks, multiple=8, tta=tta).many(images)
    assert found.shape == wanted.shape and found.dtype == torch.float32
    difference = (found - wanted).abs().max() / (wanted.max() - wanted.min())
    assert 0 < difference <= 1e-3
    blocks.forget_buffers()
    assert torch.equal(TileNetwork(blocks, multiple=8, tta=tta).many(images), found)


@pytest.mark.parametrize("tta", [True, False])
def test_what_does_not_fit_into_half_precision_is_computed_in_float32(
    monkeypatch: pytest.MonkeyPatch, images: torch.Tensor, tta: bool
) -> None:
    checkpoint = checkpoint_of(20.0)
    wanted = TileNetwork(network_of(checkpoint), multiple=8, tta=tta).many(images)
    assert wanted.isfinite().all() and wanted.abs().max() > 65504
    found = TileNetwork(in_blocks(monkeypatch, network_of(checkpoint)), multiple=8, tta=tta).many(images)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("tta", [True, False])
@pytest.mark.parametrize("factor", [1.0, 20.0])
def test_who_does_not_wait_is_told_whether_all_did_fit(
    monkeypatch: pytest.MonkeyPatch, images: torch.Tensor, tta: bool, factor: float
) -> None:
    blocks = TileNetwork(in_blocks(monkeypatch, network_of(checkpoint_of(factor))), multiple=8, tta=tta)
    wanted, fits = blocks.many(images), list[torch.Tensor]()
    found = blocks.many(images, fits)
    assert [bool(flag) for flag in fits] == [factor == 1.0]
    assert torch.equal(found, wanted) == (factor == 1.0), "else nothing was computed once more"


def test_without_a_compiler_the_layers_compute(monkeypatch: pytest.MonkeyPatch, images: torch.Tensor) -> None:
    wanted = TileNetwork(network_of(checkpoint_of()), multiple=8, tta=False).many(images)
    blocks, notes = in_blocks(monkeypatch, network_of(checkpoint_of())), list[str]()
    error = RuntimeError("CUDA error: device-side assert")
    monkeypatch.setattr(BlockUNet, "__call__", lambda *anything: (_ for _ in ()).throw(error))
    with pytest.raises(RuntimeError, match="device-side"):
        TileNetwork(blocks, multiple=8, tta=False).many(images)
    error = RuntimeError("Failed to find C compiler")
    monkeypatch.setattr(blocks, "_note", notes.append)
    found = TileNetwork(blocks, multiple=8, tta=False).many(images)
    assert len(notes) == 1 and "(Failed to find C compiler); going on with torch's layers" in notes[0]
    assert blocks.kernels == KernelChoice("plain", "the kernels could not be built (Failed to find C compiler)")
    assert (found - wanted).abs().max() <= 2e-3 * (wanted.max() - wanted.min())


def test_a_driver_that_cannot_load_the_kernels_is_no_failure_of_the_gpu(
    monkeypatch: pytest.MonkeyPatch, images: torch.Tensor
) -> None:
    blocks, notes = in_blocks(monkeypatch, network_of(checkpoint_of())), list[str]()
    monkeypatch.setattr(blocks, "_note", notes.append)
    error = RuntimeError("Triton Error [CUDA]: device kernel image is invalid")
    monkeypatch.setattr(BlockUNet, "__call__", lambda *anything: (_ for _ in ()).throw(error))
    TileNetwork(blocks, multiple=8, tta=True).many(images)
    assert len(notes) == 1 and "kernel image is invalid" in notes[0]


def test_without_the_fused_kernels_the_layers_compute(monkeypatch: pytest.MonkeyPatch, images: torch.Tensor) -> None:
    spec = model_spec("cryo_cnn")
    weights = {name: tensor.numpy() for name, tensor in spec.build(seed=0).state_dict().items()}
    network, notes = network_of(Checkpoint("cryo_cnn", weights, {}, "zscore")), list[str]()
    wanted = TileNetwork(network, multiple=1, tta=True).many(images)
    network.kernels, network._half = KernelChoice("fused", "as on a GPU"), torch.bfloat16
    monkeypatch.setattr(network, "_note", notes.append)
    monkeypatch.setattr(fastest, "fused_network", lambda *given, **named: compile("?", "kernel", "exec"))
    found = TileNetwork(network, multiple=1, tta=True).many(images)
    assert (found - wanted).abs().max() <= 2e-2 * (wanted.max() - wanted.min())
    assert network.kernels.kernels == "plain" and len(notes) == 1 and "kernels could not be built" in notes[0]


def test_the_memory_of_their_maps_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = network_of(checkpoint_of())
    assert plain.bytes_per_pixel(64) == 256
    assert 32 < in_blocks(monkeypatch, plain).bytes_per_pixel(64) < 256
