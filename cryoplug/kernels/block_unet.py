"""A U-Net on blocks of pixels, all orientations of several images at once, in half precision, for GPUs.

Instead of the image, the weights are turned (`cryoplug.kernels.block_matrices`). So eight orientations are one batch,
whatever the shape of the image. The mean over them is part of the last layer's sum.
"""

from __future__ import annotations

import threading
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import nn

from cryoplug.kernels.block_layers import CONVOLVES, ENDS, Layer, first_layer, inner_layer, last_layer
from cryoplug.kernels.block_maps import VECTOR, Map, pixel_windows
from cryoplug.kernels.block_matrices import Block, choose_block, split_outputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryoplug.kernels.block_layers import Launch


class BlockUNet:
    """Maps images ``(n, 1, y, x)``, float32, to one output of a U-Net: the mean over the orientations, float32.

    Parameters
    ----------
    network
        A `cryoplug.models.unet.UNet` for which `why_not` is empty.
    output
        Number of the output, from 0.
    orientations
        8, in the order of `cryoplug.inference.network.orientations`, or 1 for the image as it is.
    dtype
        Type of weights and features.
    arithmetic
        `cryoplug.kernels.block_launch`, or `cryoplug.kernels.block_plain`, which is slow and needs more memory.
    launches
        For single layers, another `Launch` than the one that was measured as best.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        output: int = 0,
        orientations: int = 8,
        dtype: torch.dtype = torch.float16,
        arithmetic: ModuleType | None = None,
        launches: Mapping[str, Launch] | None = None,
    ) -> None:
        if arithmetic is None:
            from cryoplug.kernels import block_launch

            arithmetic = block_launch
        self._arithmetic = arithmetic
        self._launches = launches or {}
        self._dtype, self._orientations = dtype, orientations
        self.depth, self.stem = int(network.depth), int(network.stem)  # type: ignore[arg-type]
        self._clip = float(network.clip)  # type: ignore[arg-type]
        self._adds_input, self._adds_rest = output == 0 and bool(network.adds_input), output == 0 and self._clip > 0
        weights = {name: tensor.detach().float().contiguous() for name, tensor in network.state_dict().items()}
        self._layers: dict[str, Layer] = {}
        levels = range(self.depth)
        for block in (*(f"down{level}" for level in levels), "middle", *(f"up{level}" for level in levels)):
            for name in (f"{block}.conv1", f"{block}.conv2"):
                self._layers[name] = self._layer(name, weights[f"{name}.weight"], weights[f"{name}.bias"])
        pixels = slice(output * self.stem**2, (output + 1) * self.stem**2)
        self._last = last_layer(
            weights["output.weight"][pixels],
            weights["output.bias"][pixels],
            stem=self.stem,
            orientations=orientations,
            dtype=dtype,
            launch=self._launches.get("output", ENDS),
        )
        self._at_once = orientations
        self._maps: dict[str, Map] = {}
        self._shape: tuple[int, ...] = ()
        self._lock = threading.Lock()
        self._done: torch.cuda.Event | None = None
        self.changes = 0
        """Number of times that the memory kept between two calls was freed or allocated again."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Apply the network; sides are multiples of its pooling grid. Buffers are kept for the next images of this shape.

        Raises
        ------
        torch.OutOfMemoryError
            The device has no memory even for a single orientation.
        """
        # One after another: several threads may ask, each on a stream of its own, and the maps are there once.
        with self._lock:
            if not images.is_cuda or torch.cuda.is_current_stream_capturing():
                return self._compute(images)
            if self._done is not None:
                torch.cuda.current_stream(images.device).wait_event(self._done)
            made = self._compute(images)
            self._done = torch.cuda.Event()
            self._done.record()
            return made

    def forget_buffers(self) -> None:
        """Free the memory that is kept between two calls."""
        with self._lock:
            self._maps, self._shape = {}, ()
            self.changes += 1

    def _compute(self, images: torch.Tensor) -> torch.Tensor:
        seen = images.clamp(-self._clip, self._clip) if self._clip else images
        made = self._pixels(self._mean(seen[:, 0]))
        if self._adds_input:
            return made.add_(images)
        return made.add_(images - seen) if self._adds_rest else made

    def _mean(self, images: torch.Tensor) -> torch.Tensor:
        """Give the mean over orientations: ``(n, rows, columns, outputs of a block)``."""
        count, height, width = (images.shape[0], images.shape[1] // self.stem, images.shape[2] // self.stem)
        self._prepare(count, height, width, images.device)
        first, block = self._layers["down0.conv1"], self._last.block
        side = first.block.y * self.stem, first.block.x * self.stem
        windows = pixel_windows(images.to(self._dtype), block=side, more=self.stem)
        total: torch.Tensor | None = None
        for start in range(0, self._orientations, self._at_once):
            made = self._of(slice(start, start + self._at_once), windows)
            total = made if total is None else total.add_(made)
        assert total is not None
        return total.view(count, height // block.y, width // block.x, -1)

    def _of(self, orientations: slice, windows: torch.Tensor) -> torch.Tensor:
        """Run the network in some orientations."""
        maps = self._maps
        self._arithmetic.first(self._layers["down0.conv1"].of(orientations), windows, maps["hidden0"])
        for level in range(self.depth):
            if level:
                self._run(f"down{level}.conv1", orientations, maps[f"halved{level}"], maps[f"hidden{level}"])
            self._run(f"down{level}.conv2", orientations, maps[f"hidden{level}"], maps[f"kept{level}"], adds=True)
            self._arithmetic.halve(maps[f"kept{level}"], maps[f"halved{level + 1}"])
        below = f"kept{self.depth}"
        self._run("middle.conv1", orientations, maps[f"halved{self.depth}"], maps[f"hidden{self.depth}"])
        self._run("middle.conv2", orientations, maps[f"hidden{self.depth}"], maps[below], adds=True)
        for level in reversed(range(self.depth)):
            here = f"kept{level}"
            self._run(f"up{level}.conv1", orientations, maps[here], maps[f"hidden{level}"], coarse=maps[below])
            # The result takes the place of what was kept, which nothing reads any more.
            self._run(f"up{level}.conv2", orientations, maps[f"hidden{level}"], maps[here], adds=True)
            below = here
        made: torch.Tensor = self._arithmetic.end(self._last.of(orientations), maps[below])
        return made

    def _run(
        self, name: str, orientations: slice, fine: Map, target: Map, *, coarse: Map | None = None, adds: bool = False
    ) -> None:
        self._arithmetic.convolve(self._layers[name].of(orientations), fine, coarse, target, adds=adds)

    def _pixels(self, made: torch.Tensor) -> torch.Tensor:
        """Put the pixels of all blocks in their places in the image."""
        count, rows, columns, _ = made.shape
        high, wide = self._last.block.y * self.stem, self._last.block.x * self.stem
        pixels = made[..., : high * wide].view(count, rows, columns, high, wide)
        return pixels.permute(0, 1, 3, 2, 4).reshape(count, 1, rows * high, columns * wide)

    def _layer(self, name: str, weight: torch.Tensor, bias: torch.Tensor) -> Layer:
        options = {
            "orientations": self._orientations,
            "dtype": self._dtype,
            "launch": self._launches.get(name, CONVOLVES),
        }
        if name == "down0.conv1":
            return first_layer(weight, bias, stem=self.stem, **options)  # type: ignore[arg-type]
        kept = weight.shape[0] if name.startswith("up") and name.endswith("conv1") else weight.shape[1]
        # Only above the coarsest level are all sides even.
        even = not name.startswith("middle")
        return inner_layer(weight, bias, fine=kept, even=even, **options)  # type: ignore[arg-type]

    def _prepare(self, count: int, height: int, width: int, device: torch.device) -> None:
        """Make maps for images of this size on the finest level, for as many orientations at once as memory allows."""
        if self._shape == (count, height, width):
            return
        self._shape, self._at_once = (), self._orientations
        self.changes += 1
        while True:
            self._maps = {}
            try:
                self._maps = self._new_maps(count * self._at_once, height, width, device)
            except torch.OutOfMemoryError:
                if self._at_once == 1:
                    raise
                self._at_once //= 2
            else:
                self._shape = count, height, width
                return

    def _new_maps(self, count: int, height: int, width: int, device: torch.device) -> dict[str, Map]:
        like = torch.empty(0, dtype=self._dtype, device=device)
        maps = {}
        above = 0
        for level in range(self.depth + 1):
            channels = self._layers[f"down{level}.conv1" if level < self.depth else "middle.conv1"].channels
            size = height >> level, width >> level
            maps[f"hidden{level}"] = Map(count, *size, channels, like)
            maps[f"kept{level}"] = Map(count, *size, channels, like)
            if level:
                maps[f"halved{level}"] = Map(count, *size, above, like)
            above = channels
        return maps


def bytes_per_pixel(network: nn.Module) -> int:
    """Give the bytes that the maps of one orientation take for each pixel of the image, in half precision."""
    size, above = 0.0, 0
    depth, stem = int(network.depth), int(network.stem)  # type: ignore[arg-type]
    for level in range(depth + 1):
        channels = _channels(network, level)
        size += (2 * channels + above) * 2 / (stem << level) ** 2
        above = channels
    # And windows of the pixels, the result, and what torch holds of both.
    return int(size) + 32


def why_not(network: nn.Module) -> str:
    """Say why `BlockUNet` cannot run a network; empty if it can."""
    if not getattr(network, "runs_in_blocks", False):
        return "it is not a unet"
    if any(isinstance(layer, nn.GroupNorm) for layer in network.modules()):
        return "it has a norm"
    depth = int(network.depth)  # type: ignore[arg-type]
    for level in range(depth + 1):
        channels = _channels(network, level)
        block = choose_block(channels) if level < depth else Block(1, 1)
        if channels % VECTOR or split_outputs(block.pixels * channels) is None:
            return f"{channels} channels are not for the units of a GPU"
    return ""


def _channels(network: nn.Module, level: int) -> int:
    block = network.get_submodule(f"down{level}" if level < int(network.depth) else "middle")  # type: ignore[arg-type]
    return int(block.get_submodule("conv1").out_channels)  # type: ignore[arg-type]
