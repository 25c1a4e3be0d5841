"""The layers of `cryoplug.kernels.block_layers` in Triton, on a GPU or in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import torch

from cryoplug.kernels import triton_blocks
from cryoplug.kernels.block_layers import LastLayer, Launch, Layer
from cryoplug.kernels.block_maps import VECTOR, Map

_HALVED_AT_ONCE = 1024


def first(layer: Layer, windows: torch.Tensor, target: Map) -> None:
    """Apply the layer that sees pixels to their windows ``(n, rows, columns, values)``, in each orientation."""
    _, rows, columns, window = windows.shape
    strides = columns * window, rows * columns * window
    _launch(layer, windows, strides, (1, 1), None, target, adds=False, shared=len(layer.weight))


def convolve(layer: Layer, fine: Map, coarse: Map | None, target: Map, *, adds: bool) -> None:
    """Apply a layer to features.

    Parameters
    ----------
    layer
        The layer.
    fine
        Features at the sampling of the target.
    coarse
        Features to double, if the layer has any.
    target
        Gets the result, ReLU applied.
    adds
        Whether to add `fine` before the ReLU; it must then be as large as `target`.
    """
    _launch(layer, fine.values, (fine.row, fine.image), layer.step, coarse, target, adds=adds, shared=1)


def halve(source: Map, target: Map) -> None:
    """Write the means of 2x2 pixels."""
    grid = -(-target.width * target.channels // _HALVED_AT_ONCE), target.height, target.count
    triton_blocks.halve_blocks[grid](
        source.values,
        target.values,
        target.width,
        target.channels // VECTOR,
        *(stride // VECTOR for stride in (source.row, target.row, source.image, target.image)),
        SIZE=_HALVED_AT_ONCE,
        num_warps=4,
    )


def end(layer: LastLayer, features: Map) -> torch.Tensor:
    """Give the mean over the orientations, ``(n, blocks, outputs)``, float32."""
    block = layer.block
    orientations, rows, outputs = layer.weight.shape
    columns = features.width // block.x
    blocks, count = columns * (features.height // block.y), features.count // orientations
    made = torch.empty((count, blocks, outputs), device=features.values.device)
    triton_blocks.end_blocks[(-(-blocks // layer.launch.m), count)](
        features.values,
        layer.weight,
        layer.bias,
        made,
        blocks,
        columns,
        orientations,
        layer.scale,
        block.y,
        block.x,
        features.channels // VECTOR,
        (block.x + 2) * features.channels // VECTOR,
        rows,
        features.row // VECTOR,
        features.image // VECTOR,
        N=outputs,
        **_cut(layer.launch),
    )
    return made


def _launch(
    layer: Layer,
    fine: torch.Tensor,
    fine_strides: tuple[int, int],
    source_step: tuple[int, int],
    coarse: Map | None,
    target: Map,
    *,
    adds: bool,
    shared: int,
) -> None:
    """Queue the kernel; `shared` orientations in a row see the same image of `fine`."""
    orientations, phases = layer.weight.shape[:2]
    parts, first_outputs, second_outputs = layer.split
    block, step = layer.block, layer.step
    columns = target.width // step[1]
    blocks = target.height // step[0] * columns
    strides = (0, 0) if coarse is None else (coarse.row, coarse.image)
    triton_blocks.convolve_blocks[(parts * -(-blocks // layer.launch.m), phases, target.count)](
        fine,
        fine if coarse is None else coarse.values,
        layer.weight,
        layer.bias,
        target.values,
        blocks,
        columns,
        orientations,
        shared,
        parts,
        *source_step,
        *step,
        step[1] // block.x,
        int(block.y == 1),
        int(block.x == 1),
        layer.channels // VECTOR,
        block.x * layer.channels // VECTOR,
        target.row // VECTOR,
        target.image // VECTOR,
        layer.fine[0] // VECTOR,
        layer.fine[1] // VECTOR,
        layer.fine[2],
        *(stride // VECTOR for stride in fine_strides),
        layer.coarse[0] // VECTOR,
        max(1, layer.coarse[1] // VECTOR),
        layer.coarse[2],
        *(stride // VECTOR for stride in strides),
        HAS_COARSE=coarse is not None,
        ADDS=adds,
        N1=first_outputs,
        N2=second_outputs,
        **_cut(layer.launch),
    )


def _cut(launch: Launch) -> dict[str, Any]:
    return {"M": launch.m, "K": launch.k, "num_warps": launch.warps, "num_stages": launch.stages}
