from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn

from cryoplug.errors import FormatError, UsageError
from cryoplug.inference.denoiser import Denoiser
from cryoplug.kernels.bands import loss_and_gradients
from cryoplug.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cryoplug.models.registry import UNET
from cryoplug.training.engine import bands_are_exact

CONFIGS = [
    {"depth": 1, "width": 4},
    {"depth": 2, "width": 3},
    {"depth": 3, "width": 2},
    {"depth": 1, "width": 3, "stem": 2},
    {"depth": 2, "width": 3, "most": 4, "outputs": 2},
    {},
]


def awake(config: dict[str, Any], seed: int = 0) -> nn.Module:
    """Make a network whose output layer is not zero any more."""
    network = UNET.build(seed=seed, config=config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        output = network.get_parameter("output.weight")
        output.copy_(0.1 * torch.randn(output.shape, generator=generator))
    return network


def weights_of(network: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (8, 8), (17, 31), (64, 50)])
@pytest.mark.parametrize("norm", ["none", "group"])
def test_it_begins_as_the_identity_for_any_size(shape: tuple[int, int], norm: str) -> None:
    image = torch.from_numpy(noise(2, 1, *shape))
    for stem in (1, 2, 4):
        config = {"depth": 2, "width": 8, "norm": norm, "stem": stem}
        assert torch.equal(UNET.build(seed=1, config=config)(image), image)
        assert not UNET.build(seed=1, config={**config, "skip": "none"})(image).any()


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_pixel_reaches_exactly_as_far_as_the_spec_says(config: dict[str, Any]) -> None:
    spec = UNET.configured(config)
    network = UNET.build(config={**config, "width": 2})
    with torch.no_grad():
        for parameter in network.parameters():  # positive everywhere: no ReLU shuts and nothing cancels
            parameter.fill_(0.05)
    radius, multiple = spec.receptive_field_px, spec.size_multiple
    side, farthest = -(-2 * radius // multiple) * multiple + 3 * multiple, 0
    middle = side // 2 // multiple * multiple
    for position in range(middle, middle + multiple):
        image = torch.ones(1, 1, side, side, requires_grad=True)
        network(image)[0, 0, position, position].backward()
        assert image.grad is not None
        for axis in torch.nonzero(image.grad[0, 0], as_tuple=True):
            farthest = max(farthest, int((axis - position).abs().max()))
    assert farthest == radius


@pytest.mark.parametrize("config", [*CONFIGS, {"depth": 2, "width": 8, "norm": "group"}], ids=str)
def test_weights_of_the_spec_are_those_of_the_network(config: dict[str, Any]) -> None:
    found = {name: tuple(tensor.shape) for name, tensor in UNET.build(config=config).state_dict().items()}
    assert found == UNET.configured(config).weight_shapes()


def test_the_description_tells_the_parameters() -> None:
    count = sum(parameter.numel() for parameter in UNET.build().parameters())
    assert f"{count:,} parameters" in UNET.description


@pytest.mark.parametrize("shape", [(150, 210), (97, 133), (40, 300)])
@pytest.mark.parametrize("tile", [0, 16, 50])
@pytest.mark.parametrize("stem", [1, 2])
def test_tiles_equal_the_whole_image(shape: tuple[int, int], tile: int, stem: int) -> None:
    config = {"depth": 2, "width": 4, "stem": stem}
    network = awake(config)
    image = noise(*shape)
    with torch.no_grad():
        wanted = network(torch.from_numpy(image)[None, None])[0, 0].numpy()
    assert np.abs(wanted - image).max() > 0.1, "the network changes the image"
    checkpoint = Checkpoint("unet", weights_of(network), config=config, normalize="none")
    denoiser = Denoiser(checkpoint, device="cpu", tile=tile, threads=2)
    assert np.abs(denoiser.denoise(image) - wanted).max() < 2e-5 * np.abs(wanted).max()


def test_tiles_of_a_group_norm_differ_and_it_is_said() -> None:
    config = {"depth": 2, "width": 8, "norm": "group"}
    checkpoint = Checkpoint("unet", weights_of(awake(config)), config=config, normalize="none")
    notes: list[str] = []
    image = noise(128, 128) + np.linspace(0, 4, 128, dtype=np.float32)
    small, large = (
        Denoiser(checkpoint, device="cpu", tile=tile, threads=1, note=notes.append).denoise(image) for tile in (32, 512)
    )
    assert np.abs(small - large).max() > 0.01
    assert notes and "depends on the tiles" in notes[0]
    assert not bands_are_exact(UNET.build(config=config))


def test_bands_give_the_result_and_the_gradients_of_the_whole_image() -> None:
    config = {"depth": 2, "width": 3}
    spec, network = UNET.configured(config), awake(config)
    noisy, clean = torch.from_numpy(noise(1, 1, 90, 37)), torch.zeros(1, 1, 90, 37)
    cut = {"receptive_field_px": spec.receptive_field_px, "size_multiple": spec.size_multiple, "band_rows": 20}
    loss, gradients = loss_and_gradients(network, noisy, clean, **cut)
    whole = nn.functional.mse_loss(network(noisy), clean)
    assert loss == pytest.approx(whole.item(), rel=1e-5)
    for mine, theirs in zip(gradients, torch.autograd.grad(whole, list(network.parameters())), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("shape", "beyond"), [((37, 50), "reflect"), ((1, 50), "edge")])
def test_a_size_off_the_grid_is_continued_by_the_mirror_image_where_there_is_one(
    shape: tuple[int, int], beyond: Literal["reflect", "edge"]
) -> None:
    module = awake({"depth": 2, "width": 3})
    image = noise(*shape)
    filled = np.pad(image, [(0, -side % 4) for side in shape], mode=beyond)
    height, width = shape
    with torch.inference_mode():
        found, wanted = (module(torch.from_numpy(one)[None, None])[..., :height, :width] for one in (image, filled))
    assert torch.equal(found, wanted)


def test_a_checkpoint_keeps_the_options_and_is_checked_against_them(tmp_path: Path) -> None:
    config = {"depth": 2, "width": 3}
    saved = Checkpoint("unet", weights_of(awake(config)), config=config, normalize="zscore")
    save_checkpoint(tmp_path / "epoch_0001", saved, 1.0)
    found = load_checkpoint(tmp_path)
    assert found.config == config and found.sha256 == saved.sha256
    assert found.spec.size_multiple == 4
    path = tmp_path / "epoch_0001" / "checkpoint.json"
    record = json.loads(path.read_text())
    for depth, problem in ((3, "needs"), (40, "depth 40 .allowed: 1 to 6"), ("x", "depth 'x'")):
        path.write_text(json.dumps({**record, "config": {**config, "depth": depth}}))
        with pytest.raises(FormatError, match=problem):
            load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"depth": 0}, "depth 0"),
        ({"depth": True}, "depth True"),
        ({"width": 100000}, "width 100000 .allowed with depth 3: 1 to 256"),
        ({"norm": "batch"}, "norm 'batch' .allowed: none, group"),
        ({"width": 12, "norm": "group"}, "multiples of 8"),
        ({"breadth": 3}, "breadth"),
        ({"outputs": 3}, "outputs 3 .allowed: 1 to 2"),
        ({"outputs": True}, "outputs True"),
        ({"clip": -1.0}, "clip -1.0 .allowed: 0 for none, or a positive number"),
        ({"clip": float("nan")}, "clip nan"),
        ({"clip": float("inf")}, "clip inf"),
        ({"clip": "5"}, "clip '5'"),
        ({"most": 16}, "width 32 .allowed with depth 3: 1 to 16"),
        ({"most": -1}, "most -1"),
        ({"most": 4096}, "most 4096"),
        ({"width": 16, "most": 20, "norm": "group"}, "most 20 .allowed with norm group: multiples of 8"),
        ({"stem": 3, "skip": "output"}, r"stem 3 .allowed: 1, 2, 4.; skip 'output' .allowed: input, none"),
    ],
)
def test_options_that_make_no_network_are_refused(config: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        UNET.configured(config)
    with pytest.raises(UsageError, match=problem):
        UNET.build(config=config)


def test_its_numbers_are_told_without_torch() -> None:
    code = (
        "import sys; from cryoplug.models.registry import UNET; "
        "assert UNET.configured({'depth': 2}).size_multiple == 4; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_channels_double_up_to_the_most_and_no_further() -> None:
    shapes = UNET.configured({"depth": 4, "width": 16, "most": 48}).weight_shapes()
    sides = [shapes[f"{name}.conv2.weight"][0] for name in ("down0", "down1", "down2", "down3", "middle", "up3", "up0")]
    assert sides == [16, 32, 48, 48, 48, 48, 16]
    assert (
        UNET.configured({"depth": 4, "width": 16, "most": 256}).weight_shapes()
        == UNET.configured({"depth": 4, "width": 16}).weight_shapes()
    )


@pytest.mark.parametrize("stem", [1, 2, 4])
@pytest.mark.parametrize("skip", ["input", "none"])
def test_each_output_is_what_a_network_with_that_output_alone_gives(stem: int, skip: str) -> None:
    config = {"depth": 1, "width": 3, "stem": stem, "skip": skip, "outputs": 2}
    both = awake(config)
    image = torch.from_numpy(noise(2, 1, 13, 18))
    together = both(image)
    assert together.shape == (2, 2, 13, 18)
    for index, name in enumerate(UNET.configured(config).outputs):
        one = UNET.build(config={**config, "outputs": 1})
        weights = dict(both.state_dict())
        for part in ("output.weight", "output.bias"):
            weights[part] = weights[part][index * stem**2 : (index + 1) * stem**2]
        one.load_state_dict(weights)
        alone = one(image)
        if name == "particles" and skip == "input":
            alone = alone - image
        torch.testing.assert_close(together[:, index : index + 1], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("skip", ["input", "none"])
def test_what_lies_beyond_the_clip_is_added_to_the_image_and_never_to_the_particles(skip: str) -> None:
    config = {"depth": 1, "width": 3, "skip": skip, "outputs": 2, "clip": 2.0}
    network = awake(config)
    image = torch.from_numpy(noise(1, 1, 24, 24)).clamp(-2, 2)
    hot = image.clone()
    hot[0, 0, 5, 7], hot[0, 0, 20, 3] = 300.0, -40.0
    at_limit = hot.clamp(-2, 2)
    found, wanted = network(hot), network(at_limit)
    torch.testing.assert_close(found[:, 1], wanted[:, 1])
    torch.testing.assert_close(found[:, 0] - wanted[:, 0], (hot - at_limit)[:, 0])
    unclipped = UNET.build(config={**config, "clip": 0})
    unclipped.load_state_dict(network.state_dict())
    torch.testing.assert_close(network(image), unclipped(image))


def test_half_weights_leave_what_lies_beyond_the_clip_exact() -> None:
    config = {"depth": 1, "width": 3, "skip": "none", "outputs": 2, "clip": 2.0}
    half = awake(config).half()
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 4, 4] = 70000.25
    with torch.no_grad():
        found = half(image)
    assert found.dtype == torch.float32 and found.isfinite().all()
    assert abs(float(found[0, 0, 4, 4]) - 70000.25) < 10
