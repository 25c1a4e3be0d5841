"""The GPU kernels of cryo_cnn: two pixels are one row of a matrix product, and hidden rows roll through registers.

A program owns a tile of ``2 * PAIRS`` columns and ``ROWS`` rows. Row by row it holds, for every pair of neighbouring
pixels, what the 3x3 windows of both need: 4 columns of 16 channels. A convolution of 16 to 16 channels is then three
products ``(PAIRS, 64) x (64, 32)``, one for each row of the window. Written as indices below:

- ``q`` 0..3: column of a quad, ``c - 1 + q`` for the pair whose left pixel is ``c``; ``p`` 0..1: pixel of the pair.
- ``j`` 0..3, ``i`` 0..7: row and column of a one-channel window, ``(r - 1 + j, c - 2 + i)``. ``j == 3`` is not a row but
  the pair's border flags: ``i == q`` is 1 if column q is inside the image, ``i == 4 + q`` is 1 if it is outside.

The tables that unfold weights into these matrices and fold gradients back are in `cryoplug.kernels.unfolding`.
"""

from __future__ import annotations

from cryoplug.kernels.quick_triton import tl, triton


@triton.jit
def pad_planes(source, target, scale, height, width, plane_rows, plane_width, first, BLOCK: tl.constexpr):
    """Copy ``(b, y, x)`` times a scale into half-precision planes whose margins stay zero. Grid: (columns, rows, b)."""
    x = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    y = tl.program_id(1)
    b = tl.program_id(2)
    inside = x < width
    values = tl.load(source + (b.to(tl.int64) * height + y) * width + x, mask=inside)
    values = values.to(tl.float32) * tl.load(scale)
    start = first + (b * plane_rows + y + 2) * plane_width + 2
    tl.store(target + start + x, values.to(tl.float16), mask=inside)


@triton.jit
def _window_offsets(x0, plane_width, PAIRS: tl.constexpr):
    """Give the offsets of one-channel windows for row 0, and which of them move with the row."""
    m = tl.arange(0, PAIRS)[:, None]
    k = tl.arange(0, 32)[None, :]
    j = k // 8
    i = k % 8
    moving = (j < 3).to(tl.int32)
    offsets = tl.where(j < 3, j * plane_width + x0 + 2 * m + i, (x0 // 2 + m) * 8 + i)
    return offsets, moving


@triton.jit
def _windows(planes, offsets, moving, row_start, flags_start):
    return tl.load(planes + (offsets + moving * row_start + (1 - moving) * flags_start))


@triton.jit
def _hidden_row(planes, offsets, moving, r, first, plane_row, plane_width, height, flags_outside, weights):
    """First layer at row r: ``relu(conv1)``; 0 outside the image, because the flags then subtract 60000."""
    outside = (r < 0) | (r >= height)
    window = _windows(
        planes, offsets, moving, first + (plane_row + r + 1) * plane_width, tl.where(outside, flags_outside, 0)
    )
    return tl.maximum(tl.dot(window, weights), 0.0).to(tl.float16)


@triton.jit
def forward_hidden(
    planes, hidden, unfolded, bias, height, width, tiles, strips, plane_rows, plane_width, first, flags_outside,
    hidden_rows, hidden_width,
    W1: tl.constexpr, W2: tl.constexpr, PAIRS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Compute the second hidden layer (after ReLU), channels last, from noisy planes. Grid: tiles * strips * batch."""
    pid = tl.program_id(0)
    x0 = (pid % tiles) * (2 * PAIRS)
    y0 = ((pid // tiles) % strips) * ROWS
    b = pid // (tiles * strips)
    n64 = tl.arange(0, 64)
    n32 = tl.arange(0, 32)
    w1 = tl.load(unfolded + W1 + n32[:, None] * 64 + n64[None, :])
    w2 = unfolded + W2 + n64[:, None] * 32 + n32[None, :]
    above, middle, below = tl.load(w2), tl.load(w2 + 2048), tl.load(w2 + 4096)
    start = tl.load(bias + n32 % 16)[None, :] + tl.zeros((PAIRS, 32), tl.float32)
    offsets, moving = _window_offsets(x0, plane_width, PAIRS)
    m = tl.arange(0, PAIRS)[:, None]
    inside = x0 + 2 * m + n32[None, :] // 16 < width
    target = hidden + ((b * hidden_rows + y0 + 1).to(tl.int64) * hidden_width + x0 + 1) * 16 + m * 32 + n32[None, :]
    row = b * plane_rows
    h_above = _hidden_row(planes, offsets, moving, y0 - 1, first, row, plane_width, height, flags_outside, w1)
    h_middle = _hidden_row(planes, offsets, moving, y0, first, row, plane_width, height, flags_outside, w1)
    for step in range(ROWS):
        y = y0 + step
        h_below = _hidden_row(planes, offsets, moving, y + 1, first, row, plane_width, height, flags_outside, w1)
        out = tl.dot(h_above, above, start)
        out = tl.dot(h_middle, middle, out)
        out = tl.dot(h_below, below, out)
        tl.store(target, tl.maximum(out, 0.0).to(tl.float16), mask=inside & (y < height))
        target += hidden_width * 16
        h_above = h_middle
        h_middle = h_below


@triton.jit
def forward_output(
    hidden, unfolded, bias, output, clean, slopes, sums, slope_scale, height, width, tiles, strips, plane_rows,
    plane_width, first, hidden_rows, hidden_width,
    W3: tl.constexpr, PAIRS: tl.constexpr, ROWS: tl.constexpr, LOSS: tl.constexpr, OUTPUT: tl.constexpr,
):  # fmt: skip
    """Compute the third layer; write the output, or its difference from the clean image, and the sums of it and its square."""
    pid = tl.program_id(0)
    x0 = (pid % tiles) * (2 * PAIRS)
    y0 = ((pid // tiles) % strips) * ROWS
    b = pid // (tiles * strips)
    n64 = tl.arange(0, 64)
    n16 = tl.arange(0, 16)
    w3 = unfolded + W3 + n64[:, None] * 16 + n16[None, :]
    above, middle, below = tl.load(w3), tl.load(w3 + 1024), tl.load(w3 + 2048)
    b3 = tl.load(bias)
    m = tl.arange(0, PAIRS)[:, None]
    source = hidden + ((b * hidden_rows + y0).to(tl.int64) * hidden_width + x0) * 16 + m * 32 + n64[None, :]
    x = x0 + 2 * m + tl.arange(0, 2)[None, :]
    quad = tl.load(source)
    next_one = tl.dot(quad, above)
    quad = tl.load(source + hidden_width * 16)
    this_one = tl.dot(quad, middle, next_one)
    next_one = tl.dot(quad, above)
    source += 2 * hidden_width * 16
    total = tl.zeros((PAIRS, 2), tl.float32)
    squares = tl.zeros((PAIRS, 2), tl.float32)
    for step in range(ROWS):
        y = y0 + step
        inside = (x < width) & (y < height)
        quad = tl.load(source)
        source += hidden_width * 16
        out = tl.dot(quad, below, this_one)
        this_one = tl.dot(quad, middle, next_one)
        next_one = tl.dot(quad, above)
        # Only columns 0 and 1 of the 16 have weights: the others add zeros.
        pixels = tl.sum(tl.reshape(out, (PAIRS, 8, 2)), axis=1) + b3
        place = (b * height + y).to(tl.int64) * width + x
        if OUTPUT:
            tl.store(output + place, pixels, mask=inside)
        if LOSS:
            difference = pixels - tl.load(clean + place, mask=inside, other=0.0).to(tl.float32)
            difference = tl.where(inside, difference, 0.0)
            total += difference
            squares += difference * difference
            slope_place = first + (b * plane_rows + y + 2) * plane_width + 2 + x
            tl.store(slopes + slope_place, (difference * slope_scale).to(tl.float16), mask=inside)
    if LOSS:
        tl.store(sums + 2 * pid, tl.sum(tl.sum(squares, axis=1), axis=0))
        tl.store(sums + 2 * pid + 1, tl.sum(tl.sum(total, axis=1), axis=0))


@triton.jit
def _slope_row(slopes, offsets, moving, source, row_start, weights):
    """Give the gradient before the second layer's ReLU at one row, and the quad and windows that it came from."""
    quad = tl.load(source)
    window = _windows(slopes, offsets, moving, row_start, 0)
    slope = tl.where(quad > 0, tl.dot(window, weights), 0.0).to(tl.float16)
    return slope, quad, window


@triton.jit
def backward(
    planes, slopes, hidden, unfolded, partials, height, tiles, strips, plane_rows, plane_width, first, flags_outside,
    hidden_rows, hidden_width,
    W1P: tl.constexpr, W2T: tl.constexpr, W3E: tl.constexpr, PAIRS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Write sums over the tile, which fold into the gradients of all weights except the last bias; grid as above."""
    pid = tl.program_id(0)
    x0 = (pid % tiles) * (2 * PAIRS)
    strip = (pid // tiles) % strips
    y0 = strip * ROWS
    b = pid // (tiles * strips)
    n64 = tl.arange(0, 64)
    n32 = tl.arange(0, 32)
    n16 = tl.arange(0, 16)
    w1p = tl.load(unfolded + W1P + n32[:, None] * 32 + n32[None, :])
    w3e = tl.load(unfolded + W3E + n32[:, None] * 64 + n64[None, :])
    w2t = unfolded + W2T + n64[:, None] * 32 + n32[None, :]
    above, middle, below = tl.load(w2t), tl.load(w2t + 2048), tl.load(w2t + 4096)
    offsets, moving = _window_offsets(x0, plane_width, PAIRS)
    m = tl.arange(0, PAIRS)[:, None]
    source = hidden + ((b * hidden_rows + y0).to(tl.int64) * hidden_width + x0) * 16 + m * 32 + n64[None, :]
    row_start = first + (b * plane_rows + y0) * plane_width
    ones = tl.full((PAIRS, 16), 1.0, tl.float16)
    d2_above = tl.zeros((64, 32), tl.float32)
    d2_middle = tl.zeros((64, 32), tl.float32)
    d2_below = tl.zeros((64, 32), tl.float32)
    d1 = tl.zeros((32, 32), tl.float32)
    d3 = tl.zeros((64, 32), tl.float32)
    db2 = tl.zeros((64, 16), tl.float32)
    s_above, quad, window = _slope_row(slopes, offsets, moving, source, row_start, w3e)
    source += hidden_width * 16
    row_start += plane_width
    s_middle, quad, window = _slope_row(slopes, offsets, moving, source, row_start, w3e)
    # A strip owns the third layer's sums of the rows one below its own; the very first row is the first strip's too.
    if strip == 0:
        d3 = tl.dot(tl.trans(quad), window, d3)
    for step in range(ROWS):
        outside = y0 + step >= height
        x_window = _windows(planes, offsets, moving, row_start, tl.where(outside, flags_outside, 0))
        source += hidden_width * 16
        row_start += plane_width
        s_below, quad, window = _slope_row(slopes, offsets, moving, source, row_start, w3e)
        d3 = tl.dot(tl.trans(quad), window, d3)
        h1 = tl.maximum(tl.dot(x_window, w1p), 0.0).to(tl.float16)
        d2_above = tl.dot(tl.trans(s_above), h1, d2_above)
        d2_middle = tl.dot(tl.trans(s_middle), h1, d2_middle)
        d2_below = tl.dot(tl.trans(s_below), h1, d2_below)
        db2 = tl.dot(tl.trans(s_middle), ones, db2)
        slope = tl.dot(s_above, above)
        slope = tl.dot(s_middle, middle, slope)
        slope = tl.dot(s_below, below, slope)
        slope1 = tl.where(h1 > 0, slope, 0.0).to(tl.float16)
        d1 = tl.dot(tl.trans(x_window), slope1, d1)
        s_above = s_middle
        s_middle = s_below
    base = partials + pid.to(tl.int64) * 10240
    square = n64[:, None] * 32 + n32[None, :]
    tl.store(base + square, d2_above)
    tl.store(base + 2048 + square, d2_middle)
    tl.store(base + 4096 + square, d2_below)
    tl.store(base + 6144 + square, d3)
    tl.store(base + 8192 + n32[:, None] * 32 + n32[None, :], d1)
    tl.store(base + 9216 + n64[:, None] * 16 + n16[None, :], db2)
