"""The layers of `cryoplug.kernels.block_layers` in plain torch, on any device: the reference for the kernels."""

from __future__ import annotations

import torch

from cryoplug.kernels.block_layers import LastLayer, Layer
from cryoplug.kernels.block_maps import Map


def first(layer: Layer, windows: torch.Tensor, target: Map) -> None:
    """Apply the layer that sees pixels to their windows, in each orientation."""
    matrix = layer.weight[:, 0].transpose(1, 2).flatten(2).float()
    seen = windows[:, None].flatten(2, 3).float()
    made = seen @ matrix[None, :, : seen.shape[3]]
    _place(made.flatten(0, 1), layer, target, phase=(0, 0), shortcut=None)


def convolve(layer: Layer, fine: Map, coarse: Map | None, target: Map, *, adds: bool) -> None:
    """Apply a layer to features; see `cryoplug.kernels.block_launch.convolve`."""
    block = layer.block
    places = target.height // layer.step[0], target.width // layer.step[1]
    for number in range(layer.weight.shape[1]):
        phase = divmod(number, layer.step[1] // block.x)
        matrix = layer.weight[:, number].transpose(1, 2).flatten(2).float()
        window = block.y + 2, layer.fine[1]
        made = _product(fine.windows(places, step=layer.step, window=window, begin=phase), matrix)
        if coarse is not None:
            begin = phase[0] if block.y == 1 else 0, phase[1] if block.x == 1 else 0
            window = block.coarse_rows, layer.coarse[1]
            seen = coarse.windows(places, step=(1, 1), window=window, begin=begin)
            made += _product(seen, matrix[:, layer.fine[2] :])
        _place(made, layer, target, phase=phase, shortcut=fine if adds else None)


def halve(source: Map, target: Map) -> None:
    """Write the means of 2x2 pixels."""
    shape = source.count, target.height, 2, target.width, 2, source.channels
    target.inner().copy_(source.inner().float().reshape(shape).mean((2, 4)))


def end(layer: LastLayer, features: Map) -> torch.Tensor:
    """Give the mean over the orientations, ``(n, blocks, outputs)``, float32."""
    block, orientations = layer.block, len(layer.weight)
    places = features.height // block.y, features.width // block.x
    window = block.y + 2, (block.x + 2) * features.channels
    seen = features.windows(places, step=(block.y, block.x), window=window, begin=(0, 0))
    made = _product(seen, layer.weight.float()).unflatten(0, (-1, orientations))
    return made.sum(1) * layer.scale + layer.bias


def _product(windows: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Multiply the windows of each image by the matrix of its orientation."""
    shared = windows.float().unflatten(0, (-1, len(matrix)))
    return (shared @ matrix[:, : windows.shape[2]]).flatten(0, 1)


def _place(made: torch.Tensor, layer: Layer, target: Map, *, phase: tuple[int, int], shortcut: Map | None) -> None:
    block, step = layer.block, layer.step
    shape = target.count, target.height // step[0], target.width // step[1], block.y, block.x, layer.channels
    values = (made + layer.bias).view(shape)
    for y in range(block.y):
        for x in range(block.x):
            where = (slice(None), slice(phase[0] + y, None, step[0]), slice(phase[1] + x, None, step[1]))
            result = values[:, :, :, y, x]
            if shortcut is not None:
                result = result + shortcut.inner()[where].float()
            target.inner()[where] = result.relu().to(target.values.dtype)
