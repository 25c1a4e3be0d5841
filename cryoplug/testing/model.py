"""The laws of a network: tiles and training rely on what its entry in the registry promises."""

from __future__ import annotations

import functools
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from cryoplug.errors import UsageError
from cryoplug.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cryoplug.models.registry import ModelSpec, model_spec

if TYPE_CHECKING:
    import torch
    from torch import nn

SIZES = ((1, 1), (2, 3), (5, 4), (16, 17), (33, 30))
"""Sizes ``(y, x)``: the smallest one, odd and even ones; none is a multiple of a larger pooling grid."""
TOLERANCE = 1e-4
"""Largest difference between tiles and the whole image, as a part of the largest value; float32 gives 1e-6 to 1e-5."""


class ModelContract:
    """Laws of a network; a subclass sets `spec`, and `config` if the network has options.

    The laws first set every weight to a random value, because some networks begin as the identity, which sees no neighbour
    and shows no gradient.
    """

    spec: ModelSpec
    """The entry in the registry, not configured yet."""
    config: ClassVar[Mapping[str, Any]] = {}
    """Options, as ``--model-option`` gives them; small ones keep the tests fast."""

    def test_the_registry_finds_it(self) -> None:
        """A plugin must be installed for that: ``pip install -e .``."""
        assert model_spec(self.spec.id) is self.spec
        assert self.spec.description and "\n" not in self.spec.description

    def test_its_numbers_are_told_without_torch(self) -> None:
        """Importing torch takes seconds, and most commands do not need it."""
        code = (
            "import sys\nfrom cryoplug.models.registry import model_spec\n"
            f"model_spec({self.spec.id!r}).configured({dict(self.config)!r}).weight_shapes()\n"
            "sys.exit('it imports torch; name the factory as text' if 'torch' in sys.modules else 0)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def test_options_that_it_does_not_have_are_refused(self) -> None:
        """As `UsageError`, which the command line shows as a sentence."""
        with pytest.raises(UsageError):
            self.spec.build(config={**self.config, "no_such_option": 1})

    def test_an_image_keeps_its_shape_whatever_it_is(self) -> None:
        """From one pixel on, odd and even, in batches; float32 in, float32 out."""
        import torch

        network = self._network()
        for count, size in ((1, SIZES[0]), (2, SIZES[1]), *((1, size) for size in SIZES[2:]), (3, SIZES[-1])):
            images = _images(count, *size)
            result = self._apply(network, images)
            wanted = (count, len(self._configured().outputs), *size)
            assert result.shape == wanted, f"{tuple(images.shape)} became {tuple(result.shape)}, not {wanted}"
            assert result.dtype == torch.float32
            assert bool(torch.isfinite(result).all()), f"not finite for {tuple(images.shape)}"

    def test_images_of_a_batch_do_not_mix(self) -> None:
        """Each gives what it gives alone, the same every time, and stays as it was."""
        import torch

        network = self._network()
        images = _images(3, 33, 30)
        before = images.clone()
        together = self._apply(network, images)
        assert torch.equal(images, before), "the network changes the image that it is given"
        again = torch.cat([self._apply(network, images[index : index + 1]) for index in range(3)])
        _assert_close(together, again, "a batch and its images one by one")

    def test_it_is_a_function_of_its_seed(self) -> None:
        """Equal seeds give equal weights, others do not; the random state of everybody else is left alone."""
        import torch

        states = (torch.get_rng_state(), np.random.get_state(legacy=True), random.getstate())  # noqa: NPY002
        first, again, other = (_weights(self._build(seed)) for seed in (1, 1, 2))
        after = (torch.get_rng_state(), np.random.get_state(legacy=True), random.getstate())  # noqa: NPY002
        assert torch.equal(states[0], after[0]), "building draws from torch's global random state"
        assert str(states[1]) == str(after[1]), "building draws from NumPy's global random state"
        assert states[2] == after[2], "building draws from Python's global random state"
        assert all(np.array_equal(first[name], again[name]) for name in first), "seed 1 twice gives different weights"
        assert any(not np.array_equal(first[name], other[name]) for name in first), "seeds 1 and 2 give equal weights"

    def test_its_weights_are_those_of_the_spec(self) -> None:
        """Names and shapes, where the spec tells them, and float32 all of them: a checkpoint holds nothing else."""
        import torch

        state = self._build().state_dict()
        others = {name: tensor.dtype for name, tensor in state.items() if tensor.dtype != torch.float32}
        assert not others, f"weights that are not float32: {others}"
        promised = self._configured().weight_shapes()
        if promised:
            found = {name: tuple(tensor.shape) for name, tensor in state.items()}
            assert promised == found, "the shapes of the ModelSpec are not those of the network"

    def test_gradients_reach_every_weight(self) -> None:
        """A weight without one is never trained."""
        network = self._network().train()
        network(_images(2, 24, 24)).square().mean().backward()
        without = [name for name, item in network.named_parameters() if item.grad is None or not bool(item.grad.any())]
        assert not without, f"no gradient reaches {', '.join(without)}"

    def test_no_pixel_beyond_the_receptive_field_matters(self) -> None:
        """Otherwise tiles, which overlap by the receptive field, leave seams."""
        spec = self._configured()
        farthest = self._farthest()
        if spec.uses_whole_image:
            assert farthest > spec.receptive_field_px, "uses_whole_image is set, but far pixels do not matter"
        else:
            assert farthest <= spec.receptive_field_px, (
                f"a pixel {farthest} px away matters; receptive_field_px is {spec.receptive_field_px}"
            )

    def test_pixels_within_the_receptive_field_matter(self) -> None:
        """Up to its border, except for a step of the pooling grid; a larger overlap than needed costs time."""
        spec = self._configured()
        farthest = self._farthest()
        assert farthest > spec.receptive_field_px - spec.size_multiple, (
            f"no pixel farther than {farthest} px matters; receptive_field_px is {spec.receptive_field_px}"
        )

    def test_moving_the_image_by_the_size_multiple_moves_the_result(self) -> None:
        """Tiles begin on that grid; on a finer one a pooling network gives other pixels."""
        spec = self._configured()
        step, margin = spec.size_multiple, spec.receptive_field_px + 1
        side = -(-(2 * margin + 8) // step) * step + 2 * step
        network, images = self._network(), _images(1, side, side)
        whole, moved = self._apply(network, images), self._apply(network, images[..., step:, step:])
        if not spec.uses_whole_image:
            inside = slice(margin, side - step - margin)
            _assert_close(moved[..., inside, inside], whole[..., step:, step:][..., inside, inside], f"{step} px moved")

    def test_tiles_equal_the_whole_image(self) -> None:
        """Through cryoplug's own `Denoiser`, for sizes off every grid."""
        import torch

        from cryoplug.inference.denoiser import Denoiser

        spec, network = self._configured(), self._network()
        step = spec.size_multiple
        denoiser = Denoiser(self._checkpoint(network), device="cpu", tile=16, threads=1)
        side = 3 * spec.receptive_field_px + 4 * step + 61
        image = _images(1, side, side + step + 16)
        if not spec.uses_whole_image:
            tiled = torch.from_numpy(denoiser.denoise(image[0, 0].numpy()))
            _assert_close(tiled, self._apply(network, image)[0, 0], "tiles and the whole image")

    def test_a_checkpoint_gives_the_network_back(self, tmp_path: Path) -> None:
        """Bit for bit, with its options."""
        import torch

        network = self._network()
        save_checkpoint(tmp_path / "epoch_0001", self._checkpoint(network), 0.5)
        loaded = load_checkpoint(tmp_path)
        assert loaded.config == dict(self.config) and loaded.model_id == self.spec.id
        copy = loaded.spec.build(config=loaded.config)
        copy.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in loaded.weights.items()})
        images = _images(1, 20, 21)
        assert torch.equal(self._apply(copy, images), self._apply(network, images)), "another result after loading"

    def _configured(self) -> ModelSpec:
        return self.spec.configured(self.config)

    def _build(self, seed: int = 0) -> nn.Module:
        return self.spec.build(seed=seed, config=self.config)

    def _network(self) -> nn.Module:
        network = self._build()
        _give_weights(network, positive=False)
        return network

    def _apply(self, network: nn.Module, images: torch.Tensor) -> torch.Tensor:
        import torch

        with torch.no_grad():
            return network.eval()(images)

    def _checkpoint(self, network: nn.Module) -> Checkpoint:
        return Checkpoint(self.spec.id, _weights(network), config=dict(self.config), normalize="none")

    def _farthest(self) -> int:
        return _farthest(self.spec, tuple(sorted(self.config.items())))


@functools.lru_cache(maxsize=1)
def _farthest(spec: ModelSpec, config: tuple[tuple[str, Any], ...]) -> int:
    """Return the largest distance, along y or x, of a pixel on which a pixel of the result depends."""
    import torch

    # Each 3x3 layer divides the share of a far corner by nine: float32 ends after forty of them.
    network = spec.build(config=dict(config)).eval().double()
    _give_weights(network, positive=True)
    configured = spec.configured(dict(config))
    step = configured.size_multiple
    side = -(-(2 * configured.receptive_field_px + 8) // step) * step + 3 * step
    middle, farthest = side // 2 // step * step, 0
    # The maximum of a window passes its gradient to one pixel alone, so that several images are tried.
    for attempt in range(max(step, 2)):
        position = middle + attempt % step
        images = (1 + _images(1, side, side, seed=attempt).abs()).double().requires_grad_()
        network(images)[0, 0, position, position].backward()
        assert images.grad is not None
        for axis in torch.nonzero(images.grad[0, 0], as_tuple=True):
            assert len(axis), "the result depends on no pixel at all"
            farthest = max(farthest, int((axis - position).abs().max()))
    return farthest


def _give_weights(network: nn.Module, *, positive: bool) -> None:
    """Set every weight to a random value, so that values keep their size from layer to layer.

    With positive weights and images no ReLU gives 0, and nothing cancels. So every pixel that matters has a gradient.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = max(1, parameter.numel() // max(1, parameter.shape[0])) if parameter.dim() > 1 else 10
            if positive:
                parameter.copy_((0.5 + torch.rand(parameter.shape, generator=generator)) / fan_in)
            else:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * (2 / fan_in) ** 0.5)


def _weights(network: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy().copy() for name, tensor in network.state_dict().items()}


def _images(count: int, height: int, width: int, *, seed: int = 0) -> torch.Tensor:
    import torch

    return torch.randn((count, 1, height, width), generator=torch.Generator().manual_seed(seed))


def _assert_close(first: torch.Tensor, second: torch.Tensor, what: str) -> None:
    difference, largest = float((first - second).abs().max()), float(second.abs().max())
    assert difference <= TOLERANCE * largest, f"{what} differ by {difference:.3g}, of values up to {largest:.3g}"
