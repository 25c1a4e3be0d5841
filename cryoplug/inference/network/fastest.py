"""Run a checkpoint's network by the fastest kernels of its device, at the chosen precision."""

from __future__ import annotations

import copy
import threading
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from cryoplug.errors import FormatError
from cryoplug.inference.network.orientations import COUNT, mean_over_orientations
from cryoplug.inference.network.precision import choose_precision
from cryoplug.inference.target import ONLY_TARGET, output_index
from cryoplug.kernels.block_unet import BlockUNet, bytes_per_pixel
from cryoplug.kernels.dispatch import KernelChoice, choose_blocks, choose_kernels, fused_network
from cryoplug.models.checkpoint import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryoplug.kernels.fused import FusedCryoCNN

FUSED_SHAPES = 18
"""Most shapes of tiles for which the fused kernels keep buffers: inside, at borders and in corners, also turned."""
NOT_LOADED = (
    "device kernel image is invalid",
    "no kernel image",
    "invalid PTX",
    "PTX version",
    "unsupported toolchain",
)
"""Words of the driver about a kernel that it cannot load; after these the GPU works on."""
Fits = list[torch.Tensor] | None
"""Flags on the device; see `Network.__call__`."""
_DTYPES = {"float16": torch.float16, "bf16": torch.bfloat16}


class Network:
    """Maps normalised pixels ``(1, 1, y, x)``, float32 on the device, to one of its outputs, of the same shape and type.

    Parameters
    ----------
    checkpoint
        The weights.
    device
        Device to run on.
    layout
        Memory format of pixels and weights in float32.
    precision
        One of `cryoplug.inference.network.precision.PRECISIONS`.
    normalize
        Normalization of the pixels before the network.
    target
        Output of the network; see `cryoplug.inference.target`.
    note
        Called with a sentence when the kernels that were chosen cannot be built.

    Raises
    ------
    FormatError
        The weights do not fit the network.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        *,
        layout: torch.memory_format,
        precision: str,
        normalize: str,
        target: str = ONLY_TARGET,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        spec = checkpoint.spec
        self._note = note
        self.output = output_index(target, checkpoint)
        """Number of the output, from 0."""
        self._channel = slice(self.output, self.output + 1) if len(spec.outputs) > 1 else slice(None)
        self.precision = choose_precision(precision, spec, device, normalize=normalize)
        """``float32``, ``float16`` or ``bf16``."""
        self.layout = layout
        self.module = with_weights(checkpoint).to(device)
        self._half = _DTYPES.get(self.precision)
        self._half_module: nn.Module | None = None
        self.kernels = choose_kernels(self.module, device)
        """Kernels that compute; all except ``plain`` keep hidden values in float16."""
        if self.kernels.kernels == "fused" and self.precision != "float16":
            self.kernels = KernelChoice("plain", f"the fused kernels compute in float16, not in {self.precision}")
        elif self.kernels.kernels == "plain" and self.precision == "float16" and not spec.uses_whole_image:
            self.kernels = choose_blocks(self.module, device)
        if self._half is not None:
            self.layout = torch.channels_last
        self._whole = spec.uses_whole_image
        if self.kernels.kernels != "blocks":
            self._make_half_module()
        self.module.to(memory_format=self.layout)  # type: ignore[call-overload]
        self._fused: dict[torch.Size, FusedCryoCNN] = {}
        self._blocks: dict[int, BlockUNet] = {}
        self._changes = 0
        self._building = threading.Lock()

    def __call__(self, pixels: torch.Tensor, fits: Fits = None) -> torch.Tensor:
        """Apply the network; a result that does not fit into half precision is computed again in float32.

        Parameters
        ----------
        pixels
            Normalised.
        fits
            Where nobody is to wait here: gets what tells on the device whether all did fit, and nothing is computed once more.
        """
        if self._half is None:
            return self._plain(pixels)
        denoised = self._in_half(pixels)
        return denoised if _fits(denoised, fits) else self._plain(pixels)

    def averaged(self, images: torch.Tensor, fits: Fits = None) -> torch.Tensor:
        """Give the mean result over the eight orientations of images, whose sides fit the pooling grid."""
        denoised = self._in_blocks(images, COUNT)
        if denoised is None:
            return mean_over_orientations(
                lambda turned: self(turned.contiguous(memory_format=self.layout), fits), images
            )
        return denoised if _fits(denoised, fits) else mean_over_orientations(self._plain, images)

    def bytes_per_pixel(self, values: int) -> int:
        """Give the least bytes per pixel of a tile for a network whose widest layer has this many values per pixel."""
        return bytes_per_pixel(self.module) if self.kernels.kernels == "blocks" else values * self.bytes_per_value

    @property
    def most_values(self) -> int:
        """Most values of the widest layer, input and output, that a tile may have."""
        # The largest tensor of cuDNN is at most half of them, and may have 2^31 values. On blocks of pixels it is an
        # eighth; that leaves a factor of two.
        return 1 << (33 if self.kernels.kernels == "blocks" else 32)

    @property
    def bytes_per_value(self) -> int:
        """Size of a hidden value in bytes."""
        return 4 if self._half is None else 2

    @property
    def memory_state(self) -> tuple[int, ...]:
        """Changes whenever memory that is kept between two calls is given back or made anew."""
        return self._changes, *(network.changes for network in self._blocks.values())

    def forget_buffers(self) -> None:
        """Free the memory that is kept between two calls."""
        self._fused.clear()
        self._changes += 1
        for network in self._blocks.values():
            network.forget_buffers()

    def _plain(self, pixels: torch.Tensor) -> torch.Tensor:
        if pixels.device.type == "cpu":
            return self._chosen(self.module(pixels))
        # TF32 keeps 10 bits of the products: 1e-3 of the range away from the same network on a CPU.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=False):
            return self._chosen(self.module(pixels))

    def _in_half(self, pixels: torch.Tensor) -> torch.Tensor:
        denoised = self._in_fused(pixels) if self.kernels.kernels == "fused" else self._in_blocks(pixels, 1)
        if denoised is not None:
            return denoised
        if self._half_module is not None:
            return self._chosen(self._half_module(pixels)).float()
        with torch.autocast(pixels.device.type, dtype=self._half):
            return self._chosen(self.module(pixels)).float()

    def _chosen(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs[:, self._channel]

    def _in_blocks(self, images: torch.Tensor, orientations: int) -> torch.Tensor | None:
        """Compute on blocks of pixels; None if blocks are not used, or their kernels cannot be built here."""
        network = self._blocks.get(orientations)
        if network is not None:
            return network(images)
        with self._building:  # of several threads, one builds, or says that it cannot be done
            if self.kernels.kernels != "blocks":
                return None
            network = self._blocks.get(orientations)
            return self._first_in_blocks(images, orientations) if network is None else network(images)

    def _first_in_blocks(self, images: torch.Tensor, orientations: int) -> torch.Tensor | None:
        network = BlockUNet(self.module, output=self.output, orientations=orientations)
        denoised = self._if_built(lambda: network(images), images.device)
        if denoised is not None:
            self._blocks[orientations] = network
        return denoised

    def _in_fused(self, pixels: torch.Tensor) -> torch.Tensor | None:
        """Compute by the fused kernels; None if they cannot be built here."""
        if self._fused:
            return self._fused_for(pixels.shape).forward(pixels)
        with self._building:
            if self.kernels.kernels != "fused":
                return None
            return self._if_built(lambda: self._fused_for(pixels.shape).forward(pixels), pixels.device)

    def _if_built(self, compute: Callable[[], torch.Tensor], device: torch.device) -> torch.Tensor | None:
        """Compute by kernels for the first time; if they cannot be built or loaded, say so, and give None from now on."""
        try:
            return compute()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            if "CUDA" in reason and not any(words in reason for words in NOT_LOADED):
                raise
            # An older triton, a compiler that fails, an older driver: the layers compute the same, to the rounding of float16.
            self._blocks.clear()
            self._fused.clear()
            self._changes += 1
            self._make_half_module()
            self.kernels = KernelChoice("plain", f"the kernels could not be built ({reason})")
            self._note(
                f"{device}: cryoplug's kernels could not be built ({reason}); going on with torch's layers, which are "
                "slower and give the same to the rounding of half precision"
            )
            return None

    def _make_half_module(self) -> None:
        if self._half is not None and getattr(self.module, "weights_may_be_half", False) and not self._whole:
            low = copy.deepcopy(self.module).to(self._half)
            self._half_module = low.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _fused_for(self, shape: torch.Size) -> FusedCryoCNN:
        network = self._fused.get(shape)
        if network is None:
            if len(self._fused) >= FUSED_SHAPES:
                self._fused.clear()
                self._changes += 1
            batch, _, height, width = shape
            network = fused_network(list(self.module.parameters()), batch=batch, height=height, width=width)
            self._fused[shape] = network
        return network


def _fits(denoised: torch.Tensor, fits: Fits) -> bool:
    """Tell whether nothing was too large: half precision ends at 65504, and one value beyond spoils all that see it."""
    fitted = denoised.isfinite().all()
    if fits is None:
        return bool(fitted)
    fits.append(fitted)
    return True


def with_weights(checkpoint: Checkpoint) -> nn.Module:
    """Build a checkpoint's network on the CPU, for inference; see `Network` for the errors."""
    module = checkpoint.spec.build(config=checkpoint.config)
    weights = {name: torch.from_numpy(np.array(array, np.float32)) for name, array in checkpoint.weights.items()}
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        found = " ".join(str(error).split())
        raise FormatError(f"{checkpoint.path}: the weights do not fit {checkpoint.model_id} ({found})") from error
    return module.eval().requires_grad_(False)
