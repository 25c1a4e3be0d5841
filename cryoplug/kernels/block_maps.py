"""Feature maps with a border of zeros, laid out so that windows can be read directly from memory."""

from __future__ import annotations

import math

import torch

VECTOR = 8
"""Values that a kernel reads at a time; numbers of channels are multiples of it."""
_MORE = 128
"""Values to allocate after the last one; kernels may read them, but they do not count. No kernel reads more at a time."""

_MOST_VALUES = (1 << 31) - 1
"""Most values of an image, because the kernels count in 32 bits."""


class Map:
    """Feature maps ``(n, y + 2, x + 2, channels)``, zero at first; layers write only inside the border.

    Parameters
    ----------
    count, height, width, channels
        Size without the border.
    like
        A tensor with the wanted type and device.

    Raises
    ------
    torch.OutOfMemoryError
        The device has no memory left, or an image has more values than the kernels can count.
    """

    def __init__(self, count: int, height: int, width: int, channels: int, like: torch.Tensor) -> None:
        self.count, self.height, self.width, self.channels = count, height, width, channels
        self.row = (width + 2) * channels
        """Values from one row to the next."""
        self.image = (height + 2) * self.row
        """Values from one image to the next."""
        if self.image + 2 * self.row + _MORE > _MOST_VALUES:
            raise torch.OutOfMemoryError(f"an image of {height}x{width} points and {channels} channels is too large")
        self.values = like.new_zeros(count * self.image + 2 * self.row + _MORE)
        """All values, and two more rows that kernels may read, but that do not count."""

    def inner(self) -> torch.Tensor:
        """Give ``(n, y, x, channels)``, without the border."""
        shape = self.count, self.height + 2, self.width + 2, self.channels
        return self.values[: self.count * self.image].view(shape)[:, 1:-1, 1:-1]

    def windows(
        self, places: tuple[int, int], *, step: tuple[int, int], window: tuple[int, int], begin: tuple[int, int]
    ) -> torch.Tensor:
        """Copy windows out of the maps: ``(n, rows * columns, values)``.

        Parameters
        ----------
        places
            Number of windows, in rows and columns.
        step
            Pixels from one window to the next, in rows and columns.
        window
            Rows of a window, and values in each row.
        begin
            First pixel of the first window, counted with the border.
        """
        strides = (self.image, step[0] * self.row, step[1] * self.channels, self.row, 1)
        start = begin[0] * self.row + begin[1] * self.channels
        seen = self.values.as_strided((self.count, *places, *window), strides, start)
        return seen.reshape(self.count, places[0] * places[1], -1)


def pixel_windows(images: torch.Tensor, *, block: tuple[int, int], more: int) -> torch.Tensor:
    """Give the windows of blocks of pixels, ``(n, rows, columns, values)``, with zeros outside of the images.

    Each row is filled with zeros to a multiple of `VECTOR`. More values follow after the last window, as in a `Map`.

    Parameters
    ----------
    images
        ``(n, y, x)``.
    block
        Rows and columns of pixels.
    more
        Pixels by which a window is larger than its block, on each side.
    """
    padded = torch.nn.functional.pad(images, (more,) * 4)
    high, wide = (side + 2 * more for side in block)
    windows = padded.unfold(1, high, block[0]).unfold(2, wide, block[1])
    each = high * wide
    shape = *windows.shape[:3], -(-each // VECTOR) * VECTOR
    values = images.new_zeros(math.prod(shape) + _MORE)[:-_MORE].view(shape)
    values[..., :each].unflatten(3, (high, wide)).copy_(windows)
    return values
