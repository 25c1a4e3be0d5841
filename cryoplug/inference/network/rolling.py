"""A `unet` on the CPU, row by row: each layer keeps the rows that it still needs, and nothing is computed twice.

If a network sees 224 pixels far, tiles have more overlap than image. Here the image passes through all layers in steps of some
hundred rows. This needs the memory of a few hundred rows of each layer, however high the image is. All cores share a step: the
rows of a layer are cut into pieces, and a core that is free takes the next piece. See docs/decisions/0034-rolling-rows.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from cryoplug.core.micrograph import ImageF32
from cryoplug.inference.network.fastest import Network
from cryoplug.inference.network.orientations import mean_over_orientations
from cryoplug.inference.network.rolling_rows import PackedBlock, RollingBlock, RollingLayer, RollingLevel
from cryoplug.inference.network.tile_network import filled_up
from cryoplug.kernels.packed import PackedConvolution
from cryoplug.machine.devices import Interrupted
from cryoplug.models.unet import Block, UNet

PIECE_POINTS = 8192
"""Points of a layer's grid in one piece; with 40 channels, 1.3 MB."""
LEAST_ROWS = 4
"""Rows of the coarsest level in one step. 8 are no faster and take 90 MB more; 2 are 3 % slower (1312 x 1312, general model)."""


class RollingNetwork:
    """A network over bands of rows, each in one piece; see `rolling_network`."""

    def __init__(self, rolling: RollingUNet, *, multiple: int, tta: bool, workers: ThreadPoolExecutor) -> None:
        self._rolling, self._multiple, self._tta, self._workers = rolling, multiple, tta, workers

    def start(self, rows: ImageF32, should_stop: Callable[[], bool]) -> Callable[[], ImageF32]:
        """Begin to compute normalised rows ``(y, x)``; call the returned function to wait for the result."""
        return self._workers.submit(self._run, rows, should_stop).result

    def _run(self, rows: ImageF32, should_stop: Callable[[], bool]) -> ImageF32:
        def ask(images: torch.Tensor) -> torch.Tensor:
            return self._rolling(images, should_stop)

        with torch.inference_mode():
            images = filled_up(torch.from_numpy(rows)[None, None], self._multiple)
            made = mean_over_orientations(ask, images) if self._tta else ask(images)
            return np.asarray(made[0, 0, : rows.shape[0], : rows.shape[1]].numpy())


def rolling_network(
    network: Network, *, multiple: int, tta: bool, workers: ThreadPoolExecutor, threads: int
) -> RollingNetwork | None:
    """Give a network on the CPU that rolls over the rows of an image; None if this network cannot.

    Parameters
    ----------
    network
        The network.
    multiple
        Its pooling grid.
    tta
        Whether to give the mean over eight orientations.
    workers
        Threads that compute on one core each.
    threads
        Number of threads.
    """
    if not isinstance(network.module, UNet) or not rolls(network.module):
        return None
    rolling = RollingUNet(network.module, output=network.output, workers=workers, threads=threads)
    return RollingNetwork(rolling, multiple=multiple, tta=tta, workers=workers)


def rolls(module: nn.Module) -> bool:
    """Say whether a network can be computed in this way: a `unet` without a norm over the image."""
    blocks = [block for block in module.children() if isinstance(block, Block)]
    return isinstance(module, UNet) and all(isinstance(block.norm1, nn.Identity) for block in blocks)


class RollingUNet:
    """Maps an image ``(1, 1, y, x)``, float32 on the CPU, to one output of a `unet`; equal to the module's, to rounding.

    Parameters
    ----------
    module
        The network; see `rolls`.
    output
        Number of the output, from 0.
    workers
        Threads that compute on one core each; the caller is one of them.
    threads
        Number of these threads.
    """

    def __init__(self, module: UNet, *, output: int, workers: ThreadPoolExecutor, threads: int) -> None:
        self._stem, self._clip = module.stem, module.clip
        self._adds_input, self._is_image = module.adds_input, output == 0
        self._step = (module.stem << module.depth) * max(LEAST_ROWS, 2 * threads)
        self._workers, self._threads = workers, threads
        blocks = {name: block for name, block in module.named_children() if isinstance(block, Block)}
        self._down = [PackedBlock(blocks[f"down{level}"]) for level in range(module.depth)]
        self._up = [PackedBlock(blocks[f"up{level}"], skip=self._down[level].width) for level in range(module.depth)]
        self._middle = PackedBlock(blocks["middle"])
        wanted = slice(output * module.stem**2, (output + 1) * module.stem**2)
        assert module.output.bias is not None
        self._output = PackedConvolution(module.output.weight[wanted], module.output.bias[wanted], padding=(0, 1))

    def __call__(self, images: torch.Tensor, should_stop: Callable[[], bool] = lambda: False) -> torch.Tensor:
        """Apply the network.

        Parameters
        ----------
        images
            One image, whose sides are multiples of the network's pooling grid.
        should_stop
            Called before each step; if it returns True, `Interrupted` is raised.
        """
        height = images.shape[2]
        network: RollingLevel | RollingBlock = RollingBlock(self._middle, self._pieces)
        for down, up in zip(reversed(self._down), reversed(self._up), strict=True):
            network = RollingLevel(down, network, up, self._pieces)
        output = RollingLayer(self._output, self._pieces)
        made, done = torch.empty_like(images, memory_format=torch.contiguous_format), 0
        for start in range(0, height, self._step):
            if should_stop():
                raise Interrupted
            last = start + self._step >= height
            features = functional.pixel_unshuffle(self._seen(images[:, :, start : start + self._step]), self._stem)
            hidden = network.push(features.contiguous(memory_format=torch.channels_last), last=last)
            rows = functional.pixel_shuffle(output.push(hidden, last=last, relu=False), self._stem)
            made[:, :, done : done + rows.shape[2]] = rows
            done += rows.shape[2]
        if self._adds_input and self._is_image:
            made += images
        elif self._clip and self._is_image:
            made += images - self._seen(images)
        return made

    def _seen(self, images: torch.Tensor) -> torch.Tensor:
        return images.clamp(-self._clip, self._clip) if self._clip else images

    def _pieces(self, rows: int, width: int, make: Callable[[int, int], None]) -> None:
        """Cut rows into pieces, at least one for each thread, and compute them together."""
        high = 2 * max(1, min(PIECE_POINTS // width, -(-rows // self._threads)) // 2)
        left = deque(range(0, rows, high))

        def help_out() -> None:
            with torch.inference_mode():  # it belongs to a thread
                while True:
                    try:
                        start = left.popleft()
                    except IndexError:
                        return
                    make(start, min(start + high, rows))

        helpers = [self._workers.submit(help_out) for _ in range(min(self._threads, len(left)) - 1)]
        help_out()
        for helper in helpers:
            # Whoever has not begun is busy with another image, and there is nothing left to do.
            if not helper.cancel():
                helper.result()
