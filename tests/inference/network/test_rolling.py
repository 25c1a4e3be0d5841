"""A U-Net that rolls over the rows of an image gives what it gives on the image at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.nn import functional

from cryoplug.inference.denoiser import Denoiser
from cryoplug.inference.network import rolling
from cryoplug.inference.network.doubled import Doubled
from cryoplug.inference.network.rolling import RollingUNet, rolls
from cryoplug.machine.core_workers import one_core_workers
from cryoplug.machine.devices import Interrupted
from cryoplug.models.checkpoint import Checkpoint
from cryoplug.models.registry import model_spec
from cryoplug.models.unet import UNet

WAIT_S = 90


def network_of(**config: object) -> UNet:
    module = model_spec("unet").build(seed=3, config={"width": 6, **config})
    assert isinstance(module, UNet)
    generator = torch.Generator().manual_seed(1)
    for name, values in module.named_parameters():
        if name.startswith("output") or name.endswith("bias"):
            torch.nn.init.normal_(values, 0, 0.2, generator=generator)
    return module.eval().requires_grad_(False)


def image_of(height: int, width: int) -> torch.Tensor:
    return 3 * torch.randn(1, 1, height, width, generator=torch.Generator().manual_seed(height))


def rolled(module: UNet, image: torch.Tensor, *, output: int = 0, threads: int = 1) -> torch.Tensor:
    workers = one_core_workers(threads)

    def run() -> torch.Tensor:
        with torch.inference_mode():
            return RollingUNet(module, output=output, workers=workers, threads=threads)(image)

    return workers.submit(run).result()


@pytest.mark.parametrize("rows", [1, 2, 50])
@pytest.mark.parametrize(
    "config",
    [
        {"depth": 1},
        {"depth": 2, "stem": 2},
        {"depth": 3, "stem": 4, "skip": "none", "most": 9},
        {"depth": 2, "stem": 2, "skip": "none", "outputs": 2, "clip": 2.0},
        {"depth": 2, "outputs": 2, "clip": 2.0},
    ],
)
def test_the_result_does_not_depend_on_the_steps(monkeypatch, config, rows) -> None:
    monkeypatch.setattr(rolling, "LEAST_ROWS", rows)
    monkeypatch.setattr(rolling, "PIECE_POINTS", 100)
    module = network_of(**config)
    grid = module.stem << module.depth
    for height, width in ((grid, grid), (grid, 3 * grid), (7 * grid, 2 * grid), (12 * grid, grid)):
        image = image_of(height, width)
        with torch.inference_mode():
            wanted = module(image)
        for output in range(module.outputs):
            found = rolled(module, image, output=output, threads=1 + rows % 2)
            assert found.shape == image.shape
            assert (found - wanted[:, output : output + 1]).abs().max() <= 1e-5 * wanted.abs().max()


def test_a_doubled_image_is_convolved_from_its_own_points() -> None:
    generator = torch.Generator().manual_seed(2)
    weight, coarse = torch.randn(5, 3, 3, 3, generator=generator), torch.randn(1, 3, 6, 7, generator=generator)
    wanted = functional.conv2d(functional.interpolate(coarse, scale_factor=2.0), weight, padding=1)
    seen = functional.pad(coarse, (0, 0, 1, 1)).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        doubled = Doubled(weight)
        for start, stop in ((0, 12), (0, 1), (3, 8), (4, 9), (11, 12)):
            # The lower half of the row of zeros above the image comes first.
            found = doubled.rows(seen, start + 1, stop + 1)
            assert (found - wanted[:, :, start:stop]).abs().max() <= 1e-5 * wanted.abs().max()


def test_a_network_with_a_norm_over_all_that_it_sees_does_not_roll() -> None:
    assert rolls(network_of(depth=1))
    assert not rolls(model_spec("unet").build(seed=0, config={"width": 8, "norm": "group"}))
    assert not rolls(model_spec("cryo_cnn").build(seed=0))


def test_a_stop_is_heard_between_two_steps() -> None:
    module = network_of(depth=1)
    workers = one_core_workers(1)
    network = RollingUNet(module, output=0, workers=workers, threads=1)
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 2

    with pytest.raises(Interrupted):
        network(image_of(100, 8), should_stop)
    assert asked == 3


def test_two_images_at_a_time_do_not_wait_for_each_other_for_ever() -> None:
    """Each occupies a thread and hopes for the help of the other."""
    module, image = network_of(depth=2), image_of(64, 32)
    workers: ThreadPoolExecutor = one_core_workers(2)
    network = RollingUNet(module, output=0, workers=workers, threads=2)
    both = threading.Barrier(2)

    def run() -> torch.Tensor:
        both.wait(WAIT_S)
        with torch.inference_mode():
            return network(image)

    first, second = [begun.result(WAIT_S) for begun in [workers.submit(run) for _ in range(2)]]
    assert torch.equal(first, second)


def denoiser_of(**options: object) -> Denoiser:
    module = network_of(depth=2, stem=2)
    weights = {name: values.numpy() for name, values in module.state_dict().items()}
    config = {"width": 6, "depth": 2, "stem": 2}
    return Denoiser(Checkpoint("unet", weights, config, "zscore"), device="cpu", **options)


@pytest.mark.parametrize("tta", ["off", "on"])
def test_it_is_what_tiles_give(tta: str) -> None:
    image = np.random.default_rng(0).normal(0, 1, (230, 170)).astype(np.float32)
    found = denoiser_of(tta=tta, threads=2).denoise(image)
    wanted = denoiser_of(tta=tta, threads=2, tile=64).denoise(image)
    assert np.abs(found - wanted).max() <= 1e-5 * np.ptp(wanted)


def test_without_memory_it_goes_on_in_tiles(monkeypatch) -> None:
    image = np.random.default_rng(0).normal(0, 1, (90, 100)).astype(np.float32)
    notes: list[str] = []
    denoiser = denoiser_of(threads=1, note=notes.append)
    wanted = denoiser.denoise(image)

    def no_memory(self: RollingUNet, images: torch.Tensor, should_stop: object) -> torch.Tensor:
        raise MemoryError

    monkeypatch.setattr(RollingUNet, "__call__", no_memory)
    found = denoiser.denoise(image)
    assert np.abs(found - wanted).max() <= 1e-5 * np.ptp(wanted)
    assert [note for note in notes if "memory ran out; going on with tiles" in note]
