"""A residual U-Net: by halving the image it sees far; it computes a correction of its input, or the image itself."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from cryoplug.kernels.convolve_relu import convolve_add_relu, convolve_relu
from cryoplug.kernels.halving import double, halve
from cryoplug.kernels.narrow import convolve_to_one
from cryoplug.models.unet_geometry import GROUPS, block_channels


class Block(nn.Module):
    """Two 3x3 convolutions with zero padding; a shortcut leads around the second one."""

    def __init__(self, channels_in: int, channels_out: int, norm: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        grouped = norm == "group"
        self.norm1: nn.Module = nn.GroupNorm(GROUPS, channels_out) if grouped else nn.Identity()
        self.norm2: nn.Module = nn.GroupNorm(GROUPS, channels_out) if grouped else nn.Identity()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map ``(b, channels_in, y, x)`` to ``(b, channels_out, y, x)``."""
        if isinstance(self.norm1, nn.Identity):
            hidden = convolve_relu(features, self.conv1)
            return convolve_add_relu(hidden, self.conv2, hidden)
        hidden = functional.relu(self.norm1(self.conv1(features)))
        return functional.relu_(hidden + self.norm2(self.conv2(hidden)))


class UNet(nn.Module):
    """Map a noisy image ``(b, 1, y, x)`` of any size to ``(b, outputs, y, x)``: the denoised one, then its particles.

    See `cryoplug.models.unet_geometry.configure`. Halving averages 2x2 pixels, doubling repeats pixels: both stay on the
    grid of multiples of ``stem * 2**depth``.
    """

    weights_may_be_half = True
    """Weights may be in half precision while images are float32: then only the correction is rounded."""
    runs_in_blocks = True
    """`cryoplug.kernels.block_unet` knows its layers."""

    def __init__(
        self,
        *,
        depth: int,
        width: int,
        norm: str,
        stem: int,
        skip: str,
        outputs: int = 1,
        clip: float = 0.0,
        most: int = 0,
    ) -> None:
        super().__init__()
        self.depth, self.stem, self.outputs, self.clip = depth, stem, outputs, clip
        self.normed = norm != "none"
        self.adds_input = skip == "input"
        for name, (channels_in, channels_out) in block_channels(depth, width, stem, most).items():
            self.add_module(name, Block(channels_in, channels_out, norm))
        self.output = nn.Conv2d(width, outputs * stem**2, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Denoise. If a side is not a multiple of the grid, the image is continued by its mirror image at the end."""
        height, width = images.shape[-2:]
        bottom, right = (-side % (self.stem << self.depth) for side in (height, width))
        padded = mirrored_beyond(images, bottom, right)
        blocks = dict(self.named_children())
        seen = padded.clamp(-self.clip, self.clip) if self.clip else padded
        hidden, skips = seen.to(self.output.weight.dtype), []
        if self.stem > 1:
            hidden = functional.pixel_unshuffle(hidden, self.stem)
        for level in range(self.depth):
            hidden = blocks[f"down{level}"](hidden)
            skips.append(hidden)
            hidden = halve(hidden)
        hidden = blocks["middle"](hidden)
        for level in reversed(range(self.depth)):
            hidden = double(hidden)
            hidden = blocks[f"up{level}"](torch.cat((skips.pop(), hidden), dim=1))
        result = self._outputs(hidden)
        if self.adds_input:
            result = _with_image(result, padded)
        elif self.clip:
            result = _with_image(result, padded - seen)
        return result[..., :height, :width]

    def _outputs(self, hidden: torch.Tensor) -> torch.Tensor:
        if self.stem == 1 and self.outputs == 1:
            return convolve_to_one(hidden, self.output)
        return functional.pixel_shuffle(self.output(hidden), self.stem)


def mirrored_beyond(images: torch.Tensor, bottom: int, right: int) -> torch.Tensor:
    """Continue images ``(b, c, y, x)`` after their last rows and columns by their mirror image.

    Repeating the last row would be wrong: in a faint exposure 20 equal rows are a strong line, which was visible 100 pixels
    away. Only an image that is too small for a mirror image repeats its last row and column.
    """
    if not bottom and not right:
        return images
    fits = bottom < images.shape[-2] and right < images.shape[-1]
    return functional.pad(images, (0, right, 0, bottom), mode="reflect" if fits else "replicate")


def _with_image(result: torch.Tensor, addend: torch.Tensor) -> torch.Tensor:
    """Add to the image, which is the first output, and to no other output."""
    if result.shape[1] == 1:
        return addend + result
    return torch.cat((addend + result[:, :1], result[:, 1:].to(addend.dtype)), dim=1)


def build(
    *,
    seed: int = 0,
    depth: int = 3,
    width: int = 32,
    norm: str = "none",
    stem: int = 1,
    skip: str = "input",
    outputs: int = 1,
    clip: float = 0.0,
    most: int = 0,
) -> UNet:
    """Make the network: He weights drawn from `seed`, smaller ones around the shortcuts, an output of zero.

    Parameters
    ----------
    seed
        Decides all weights; torch's own random state is not touched.
    depth, width, norm, stem, skip, outputs, clip, most
        See `cryoplug.models.unet_geometry.configure`, which checks them.
    """
    with torch.random.fork_rng(devices=[]):
        network = UNet(depth=depth, width=width, norm=norm, stem=stem, skip=skip, outputs=outputs, clip=clip, most=most)
    generator = torch.Generator().manual_seed(seed)
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            # Without a norm, He's bound keeps the activations' size over ten layers; shortcuts would add to it.
            slope = math.sqrt(5) if name.endswith("conv2") else 0.0
            nn.init.kaiming_uniform_(layer.weight, a=slope, nonlinearity="leaky_relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    nn.init.zeros_(network.output.weight)
    return network
