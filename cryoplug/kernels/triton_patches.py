"""The GPU kernel that cuts patches from a flat set of images, turns them and converts them to float32 in one pass."""

from __future__ import annotations

from cryoplug.kernels.quick_triton import tl, triton


@triton.jit
def cut_patches(source, table, target, height, width, TILE: tl.constexpr):
    """Copy one tile of one patch. Grid: (patches, tiles in y, tiles in x); see `cryoplug.kernels.patches` for the table."""
    row = table + 4 * tl.program_id(0)
    start = tl.load(row)
    stride = tl.load(row + 1)
    turn = tl.load(row + 2)
    place = tl.load(row + 3)
    transpose = (turn & 1) != 0
    m = tl.arange(0, TILE)
    y = tl.program_id(1) * TILE + m
    x = tl.program_id(2) * TILE + m
    # Both are where the pixels come from, before the patch is transposed; neighbours in memory stay neighbours.
    from_y = tl.where((turn & 2) != 0, height - 1 - y, y)
    from_x = tl.where((turn & 4) != 0, width - 1 - x, x)
    rows = tl.where(transpose, from_x, from_y)[:, None]
    columns = tl.where(transpose, from_y, from_x)[None, :]
    inside = tl.where(transpose, x < width, y < height)[:, None] & tl.where(transpose, y < height, x < width)[None, :]
    pixels = tl.load(source + start + rows * stride + columns, mask=inside, other=0.0).to(tl.float32)
    if transpose:
        pixels = tl.trans(pixels)
    inside = (y < height)[:, None] & (x < width)[None, :]
    tl.store(target + place + y.to(tl.int64)[:, None] * width + x[None, :], pixels, mask=inside)
