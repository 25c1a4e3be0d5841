"""The GPU kernels of a U-Net on blocks of pixels: 3x3 convolutions as matrix products, halving, and the last layer.

Each row of a product is a window around one block, read directly from memory: a row of its pixels, with their channels, is
one contiguous piece. `cryoplug.kernels.block_matrices` has the matrices, `cryoplug.kernels.block_plain` the same sums in
plain torch. Inputs are in half precision, sums in float32.

Differences between layers are arguments at run time, so that few kernels must be compiled, for each takes seconds. Sizes
named ``..8`` are in units of 8 values; so the compiler knows that they are whole vectors.
"""

from __future__ import annotations

from cryoplug.kernels.quick_triton import tl, triton


@triton.jit
def _rectified(values):
    # Not tl.maximum: it gives 0 for NaN, and an overflow must be seen at the end.
    return tl.where(values < 0, 0.0, values)


@triton.jit
def _in_rows(at, row8, stride8):
    """Give the offsets of the values of a window, whose rows have `row8` values and lie `stride8` apart."""
    places = at // (row8 * 8) * (stride8 * 8) + at % (row8 * 8)
    return tl.max_contiguous(tl.multiple_of(places, 8), 8)


@triton.jit
def _multiply(
    sums1, sums2, source, seen, weight, row8, stride8, size, N1: tl.constexpr, N2: tl.constexpr, K: tl.constexpr
):
    """Add the product of windows and matrix to the sums: `size` values, in steps of K."""
    k = tl.arange(0, K)
    n1 = tl.arange(0, N1)
    n2 = N1 + tl.arange(0, N2 if N2 else 16)
    for first in range(0, size, K):
        window = tl.load(source + seen[:, None] + _in_rows(first + k, row8, stride8)[None, :])
        rows = weight + ((first + k) * (N1 + N2))[:, None]
        sums1 = tl.dot(window, tl.load(rows + n1[None, :]), sums1)
        if N2:
            sums2 = tl.dot(window, tl.load(rows + n2[None, :]), sums2)
    return sums1, sums2


@triton.jit
def _store(
    sums, bias, shortcut, target, start, inside, first, block_row8, target_row8, N: tl.constexpr, ADDS: tl.constexpr
):
    n = first + tl.arange(0, N)
    places = start[:, None] + _in_rows(n, block_row8, target_row8)[None, :]
    values = sums + tl.load(bias + n)[None, :]
    if ADDS:
        values += tl.load(shortcut + places, mask=inside[:, None], other=0.0).to(tl.float32)
    tl.store(target + places, _rectified(values).to(target.dtype.element_ty), mask=inside[:, None])


_SIZES = [
    *("blocks", "columns", "orientations", "shared", "parts", "source_step_y", "source_step_x", "step_y", "step_x"),
    *("phases_x", "coarse_shift_y", "coarse_shift_x", "outputs8", "block_row8", "target_row8", "target_image8"),
    *("fine8", "fine_window8", "fine_size", "fine_row8", "fine_image8"),
    *("coarse8", "coarse_window8", "coarse_size", "coarse_row8", "coarse_image8"),
]


@triton.jit(do_not_specialize=_SIZES)
def convolve_blocks(
    fine,
    coarse,
    weight,
    bias,
    target,
    blocks,
    columns,
    orientations,
    shared,
    parts,
    source_step_y,
    source_step_x,
    step_y,
    step_x,
    phases_x,
    coarse_shift_y,
    coarse_shift_x,
    outputs8,
    block_row8,
    target_row8,
    target_image8,
    fine8,
    fine_window8,
    fine_size,
    fine_row8,
    fine_image8,
    coarse8,
    coarse_window8,
    coarse_size,
    coarse_row8,
    coarse_image8,
    HAS_COARSE: tl.constexpr,
    ADDS: tl.constexpr,
    N1: tl.constexpr,
    N2: tl.constexpr,
    M: tl.constexpr,
    K: tl.constexpr,
):
    """Convolve, add, rectify. Grid: (tiles of M blocks times `parts` of the outputs, phases, images times orientations)."""
    part = tl.program_id(0) % parts
    phase = tl.program_id(1)
    image = tl.program_id(2)
    phase_y = phase // phases_x
    phase_x = phase % phases_x
    m = (tl.program_id(0) // parts) * M + tl.arange(0, M)
    inside = m < blocks
    m = tl.minimum(m, blocks - 1)
    y = m // columns
    x = m % columns
    matrix = (image % orientations * tl.num_programs(1) + phase) * parts + part
    weight += matrix.to(tl.int64) * ((fine_size + coarse_size) * (N1 + N2))
    sums1 = tl.zeros((M, N1), tl.float32)
    sums2 = tl.zeros((M, N2 if N2 else 16), tl.float32)

    fine_image = fine + (image // shared).to(tl.int64) * (fine_image8 * 8)
    seen = (source_step_y * y + phase_y) * (fine_row8 * 8) + (source_step_x * x + phase_x) * (fine8 * 8)
    sums1, sums2 = _multiply(sums1, sums2, fine_image, seen, weight, fine_window8, fine_row8, fine_size, N1, N2, K)
    if HAS_COARSE:
        coarse += image.to(tl.int64) * (coarse_image8 * 8)
        weight += fine_size * (N1 + N2)
        seen = (y + phase_y * coarse_shift_y) * (coarse_row8 * 8) + (x + phase_x * coarse_shift_x) * (coarse8 * 8)
        sums1, sums2 = _multiply(
            sums1, sums2, coarse, seen, weight, coarse_window8, coarse_row8, coarse_size, N1, N2, K
        )

    target += image.to(tl.int64) * (target_image8 * 8)
    shortcut = fine + image.to(tl.int64) * (target_image8 * 8)
    start = (step_y * y + phase_y + 1) * (target_row8 * 8) + (step_x * x + phase_x + 1) * (outputs8 * 8)
    first = part * (N1 + N2)
    _store(sums1, bias, shortcut, target, start, inside, first, block_row8, target_row8, N1, ADDS)
    if N2:
        _store(sums2, bias, shortcut, target, start, inside, first + N1, block_row8, target_row8, N2, ADDS)


@triton.jit(do_not_specialize=["columns", "channels8", "source_row8", "target_row8", "source_image8", "target_image8"])
def halve_blocks(
    source, target, columns, channels8, source_row8, target_row8, source_image8, target_image8, SIZE: tl.constexpr
):
    """Write means of 2x2 pixels. Grid: (pieces of a row, rows of the target, images)."""
    image = tl.program_id(2).to(tl.int64)
    channels = channels8 * 8
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    inside = at < columns * channels
    pixels = tl.max_contiguous(tl.multiple_of(at // channels * (2 * channels) + at % channels, 8), 8)
    start = source + image * (source_image8 * 8) + (2 * tl.program_id(1) + 1) * (source_row8 * 8) + channels + pixels
    total = tl.load(start, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(start + channels, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(start + source_row8 * 8, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(start + source_row8 * 8 + channels, mask=inside, other=0.0).to(tl.float32)
    place = target + image * (target_image8 * 8) + (tl.program_id(1) + 1) * (target_row8 * 8) + channels + at
    tl.store(place, (total * 0.25).to(target.dtype.element_ty), mask=inside)


@triton.jit(
    do_not_specialize=[
        *("blocks", "columns", "orientations", "scale", "step_y", "step_x", "channels8", "window8", "size"),
        *("row8", "image8"),
    ]
)
def end_blocks(
    features,
    weight,
    bias,
    target,
    blocks,
    columns,
    orientations,
    scale,
    step_y,
    step_x,
    channels8,
    window8,
    size,
    row8,
    image8,
    N: tl.constexpr,
    M: tl.constexpr,
    K: tl.constexpr,
):
    """Convolve without rectifying, and add up the orientations. Grid: (tiles of M blocks, images)."""
    image = tl.program_id(1)
    m = tl.program_id(0) * M + tl.arange(0, M)
    inside = m < blocks
    m = tl.minimum(m, blocks - 1)
    seen = step_y * (m // columns) * (row8 * 8) + step_x * (m % columns) * (channels8 * 8)
    k = tl.arange(0, K)
    n = tl.arange(0, N)
    sums = tl.zeros((M, N), tl.float32)
    features += (image * orientations).to(tl.int64) * (image8 * 8)
    for _ in range(orientations):
        for first in range(0, size, K):
            window = tl.load(features + seen[:, None] + _in_rows(first + k, window8, row8)[None, :])
            sums = tl.dot(window, tl.load(weight + ((first + k) * N)[:, None] + n[None, :]), sums)
        features += image8.to(tl.int64) * 8
        weight += size * N
    values = sums * scale + tl.load(bias + n)[None, :]
    places = (image * blocks + m).to(tl.int64)[:, None] * N + n[None, :]
    tl.store(target + places, values, mask=inside[:, None])
