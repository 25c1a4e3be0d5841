"""The networks by name: what each is, how far it sees, how to build it. torch is imported only to build one."""

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
"""Side of the kernels of the founding networks: every layer is a 3x3 convolution."""


@dataclass(frozen=True)
class ModelSpec:
    """A network that can be trained and applied."""

    id: str
    """Its name in ``--model`` and ``checkpoint.json``."""
    description: str
    """One line for people."""
    factory: str | Callable[..., nn.Module]
    """``"package.module:function"`` (imported on first use) or the function; called as ``factory(seed=0, **config)``.

    The network maps ``(b, 1, y, x)`` to ``(b, outputs, y, x)``, and its first weights depend on ``seed`` alone.
    """
    receptive_field_px: int
    """Radius: an output pixel depends on input pixels at most this far away in y and in x."""
    size_multiple: int = 1
    """Product of all pooling strides; bands and tiles must begin at multiples of it."""
    layers: tuple[tuple[str, int, int], ...] = ()
    """``(name, channels out, channels in)`` of 3x3 convolutions, first layer first.

    State key ``name.weight`` is stored in the founding file ``name_weights.bin``, ``name.bias`` in ``name_bias.bin``.
    Empty for networks that the founding format cannot express; they are only in ``model.safetensors``.
    """
    tensor_shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """State key and shape of every weight, if `layers` cannot say it; empty if not known before the network is built."""
    tile_channels: int = 0
    """Most float32 values in memory for each pixel of a tile; 0 estimates them from the widest layer."""
    uses_whole_image: bool = False
    """Whether a pixel depends on all others (by a norm over the image); then tiles differ from the whole image."""
    outputs: tuple[str, ...] = ("image",)
    """Names of the output channels, the denoised ``image`` first."""
    mixed_precision: bool = False
    """Whether training in bfloat16 was tested; then ``--precision auto`` uses it if the device can."""
    configurator: str | Callable[..., ModelSpec] | None = None
    """If the numbers above depend on the config: a function, or its name ``"package.module:function"``. It is called as
    ``configurator(spec, **config)`` and returns the completed entry. It must not import torch."""

    def __post_init__(self) -> None:
        """Refuse numbers that would cause seams."""
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
        """Shapes of all weights by state key, from `tensor_shapes` or `layers`; empty without both."""
        shapes: dict[str, tuple[int, ...]] = dict(self.tensor_shapes)
        for name, channels_out, channels_in in self.layers:
            shapes[f"{name}.weight"] = (channels_out, channels_in, KERNEL_SIDE, KERNEL_SIDE)
            shapes[f"{name}.bias"] = (channels_out,)
        return shapes

    @property
    def parameters(self) -> int | None:
        """Number of weights; None if their shapes are not known."""
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
"""The two networks whose checkpoints may consist of ``.bin`` files alone."""
UNET = ModelSpec(
    id="unet",
    description="residual U-Net, options depth (3), width (32) and norm (none or group); 1,946,561 parameters",
    factory="cryoplug.models.unet:build",
    receptive_field_px=0,
    mixed_precision=True,
    configurator="cryoplug.models.unet_geometry:configure",
)
"""The U-Net; its numbers depend on its options, so use `ModelSpec.configured`."""
BUILT_IN = (*FOUNDING_MODELS, UNET)
"""Every network of this package."""


def models() -> dict[str, ModelSpec]:
    """Return every network by id: those of this package, then those of plugins.

    A plugin gives a `ModelSpec`; it cannot take over an id that is already used.
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
        There is no such network; the message lists those that exist.
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
