"""The networks by name: what each is, how far it looks, how to build it. torch is imported only when one is built."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryoplug.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

KERNEL_SIDE = 3
"""Every layer of the founding networks is a 3x3 convolution."""


@dataclass(frozen=True)
class ModelSpec:
    """A network that can be trained and applied."""

    id: str
    """What ``--model`` and ``checkpoint.json`` call it."""
    description: str
    """One line for people."""
    factory: str | Callable[..., nn.Module]
    """``"package.module:function"`` (imported on first use) or the function; called as ``factory(seed=0, **config)``.

    The network maps ``(b, 1, y, x)`` to ``(b, outputs, y, x)``, and its first weights depend on ``seed`` alone.
    """
    receptive_field_px: int
    """Radius: an output pixel depends on input pixels at most this far away in y and in x."""
    size_multiple: int = 1
    """Origins of bands and tiles must be multiples of it: the product of all pooling strides."""
    layers: tuple[tuple[str, int, int], ...] = ()
    """``(name, channels out, channels in)`` of 3x3 convolutions, first layer first.

    State key ``name.weight`` is kept as the founding file ``name_weights.bin``, ``name.bias`` as ``name_bias.bin``.
    Empty for networks that the founding format cannot express: they live in ``model.safetensors`` alone.
    """
    tensor_shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """State key and shape of every weight, where `layers` cannot say it; empty when it is not known beforehand."""
    tile_channels: int = 0
    """Float32 values that a pixel of a tile takes at most while the network runs; 0: estimated from the widest layer."""
    uses_whole_image: bool = False
    """Whether the result depends on all pixels at once (a norm over the image): then tiles cannot equal the whole."""
    outputs: tuple[str, ...] = ("image",)
    """Names of the channels that come out, the denoised ``image`` first."""
    mixed_precision: bool = False
    """Whether training with layers in bfloat16 was tried: then ``--precision auto`` does so where the device can."""
    configurator: str | Callable[..., ModelSpec] | None = None
    """Where the numbers above depend on the config: ``"package.module:function"`` or the function, called as
    ``configurator(spec, **config)``; returns the completed entry. It must not import torch."""

    def __post_init__(self) -> None:
        """Refuse numbers that would give wrong seams."""
        if self.receptive_field_px < 0 or self.size_multiple < 1:
            raise UsageError(
                f"model {self.id}: receptive_field_px {self.receptive_field_px} (allowed: 0 or more), "
                f"size_multiple {self.size_multiple} (allowed: 1 or more); correct the ModelSpec"
            )

    def configured(self, config: Mapping[str, Any] | None) -> ModelSpec:
        """Return the entry of the network with this config: its receptive field, size multiple and weights.

        Raises
        ------
        UsageError
            The network does not take this config.
        """
        if self.configurator is None:
            return self
        try:
            return _imported(self.configurator)(self, **dict(config or {}))
        except TypeError as error:
            raise self._refused(config, error) from error

    def build(self, *, seed: int = 0, config: Mapping[str, Any] | None = None) -> nn.Module:
        """Make the network with fresh weights that depend on `seed` alone.

        Parameters
        ----------
        seed
            Seed of the generator that draws the weights.
        config
            Further arguments of the factory, as recorded in a checkpoint.

        Raises
        ------
        UsageError
            The factory does not take this config.
        """
        self.configured(config)
        try:
            return _imported(self.factory)(seed=seed, **dict(config or {}))
        except TypeError as error:
            raise self._refused(config, error) from error

    def _refused(self, config: Mapping[str, Any] | None, error: TypeError) -> UsageError:
        return UsageError(
            f"model {self.id}: config {dict(config or {})} was refused ({error}); use a config of this version"
        )

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all weights by state key, from `tensor_shapes` or `layers`; empty when there are none."""
        shapes: dict[str, tuple[int, ...]] = dict(self.tensor_shapes)
        for name, channels_out, channels_in in self.layers:
            shapes[f"{name}.weight"] = (channels_out, channels_in, KERNEL_SIDE, KERNEL_SIDE)
            shapes[f"{name}.bias"] = (channels_out,)
        return shapes

    @property
    def parameters(self) -> int | None:
        """How many numbers the network learns; None when the shapes of its weights are not known."""
        shapes = self.weight_shapes()
        return sum(map(math.prod, shapes.values())) if shapes else None


def _imported(target: str | Callable[..., Any]) -> Callable[..., Any]:
    if not isinstance(target, str):
        return target
    module_name, _, function_name = target.partition(":")
    return getattr(importlib.import_module(module_name), function_name)


def _deep_layers(count: int, channels: int) -> tuple[tuple[str, int, int], ...]:
    return tuple(
        (f"conv{number:02d}", 1 if number == count else channels, 1 if number == 1 else channels)
        for number in range(1, count + 1)
    )


CRYO_CNN = ModelSpec(
    id="cryo_cnn",
    description="3 convolutions 1-16-16-1, ReLU between; 2,625 parameters",
    factory="cryoplug.models.cryo_cnn:build",
    receptive_field_px=3,
    layers=(("conv1", 16, 1), ("conv2", 16, 16), ("conv3", 1, 16)),
)
RESIDUAL_CNN = ModelSpec(
    id="residual_cnn",
    description="12 convolutions with 32 channels, ReLU between; input minus predicted noise; 93,089 parameters",
    factory="cryoplug.models.residual_cnn:build",
    receptive_field_px=12,
    layers=_deep_layers(12, 32),
    mixed_precision=True,
)
FOUNDING_MODELS = (CRYO_CNN, RESIDUAL_CNN)
"""The two networks whose checkpoints may be nothing but ``.bin`` files."""
UNET = ModelSpec(
    id="unet",
    description="residual U-Net, options depth (3), width (32) and norm (none or group); 1,946,561 parameters",
    factory="cryoplug.models.unet:build",
    receptive_field_px=0,
    mixed_precision=True,
    configurator="cryoplug.models.unet_geometry:configure",
)
"""Its numbers depend on its options: ask `ModelSpec.configured`."""
BUILT_IN = (*FOUNDING_MODELS, UNET)
"""Every network of this package."""


def models() -> dict[str, ModelSpec]:
    """Return every network by id: those of this package, then those of plugins.

    A plugin gives a `ModelSpec`; an id that is taken already stays with its owner.
    """
    from cryoplug.extensions import load_all

    found = {spec.id: spec for spec in BUILT_IN}
    for spec in load_all("models", expected=ModelSpec).values():
        assert isinstance(spec, ModelSpec)
        found.setdefault(spec.id, spec)
    return found


def model_spec(model_id: str) -> ModelSpec:
    """Return the network called `model_id`.

    Raises
    ------
    UsageError
        There is none; the message lists those that are.
    """
    for spec in BUILT_IN:
        if spec.id == model_id:
            return spec
    known = models()
    if model_id not in known:
        raise UsageError(
            f"model {model_id!r} is not known (known: {', '.join(known)}); choose one of them or install its plugin"
        )
    return known[model_id]
