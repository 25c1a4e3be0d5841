"""The GPU kernels of training: the gradient through a ReLU, and pixels repeated 2x2 times."""

from __future__ import annotations

from cryoplug.kernels.quick_triton import tl, triton


@triton.jit
def relu_slope(
    slope, output, before, bias, pixels, each, CHANNELS: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr
):
    """Give the gradient before a ReLU, and its sums over pixels, ``(part, channel)``. Grid: (parts of `each` pixels).

    `slope` and `output` are ``(pixel, channel)``. Torch adds up the parts, always in the same order.
    """
    channel = tl.arange(0, PADDED)
    begin = tl.program_id(0) * each
    end = tl.minimum(begin + each, pixels)
    total = tl.zeros((PADDED,), tl.float32)
    for start in range(begin, end, ROWS):
        pixel = start + tl.arange(0, ROWS)
        inside = (pixel < end)[:, None] & (channel < CHANNELS)[None, :]
        place = pixel.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
        passed = tl.load(output + place, mask=inside, other=0.0) > 0
        value = tl.where(passed, tl.load(slope + place, mask=inside, other=0.0), 0.0)
        tl.store(before + place, value, mask=inside)
        total += tl.sum(value.to(tl.float32), 0)
    tl.store(bias + tl.program_id(0) * CHANNELS + channel, total, mask=channel < CHANNELS)


@triton.jit
def repeat_pixels(
    source, target, width, pixels, factor, CHANNELS: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr
):
    """Repeat each pixel 2x2 times, multiplied by a factor. Grid: (blocks of pixels of the source).

    Both are ``(image, y, x, channel)``; `width` and `pixels` are those of the source.
    """
    pixel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, PADDED)
    inside = (pixel < pixels)[:, None] & (channel < CHANNELS)[None, :]
    place = pixel.to(tl.int64)
    value = tl.load(source + place[:, None] * CHANNELS + channel[None, :], mask=inside, other=0.0)
    value = (value.to(tl.float32) * factor).to(value.dtype)
    first = target + (4 * (place // width) * width + 2 * (place % width))[:, None] * CHANNELS + channel[None, :]
    tl.store(first, value, mask=inside)
    tl.store(first + CHANNELS, value, mask=inside)
    tl.store(first + 2 * width * CHANNELS, value, mask=inside)
    tl.store(first + 2 * width * CHANNELS + CHANNELS, value, mask=inside)
