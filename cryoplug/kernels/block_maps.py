"""Feature maps with a border of zeros, of which windows can be read as they lie in memory."""

from __future__ import annotations

import math

import torch

VECTOR = 8
"""Values that are read at a time; channels are multiples of it."""
_MORE = 128
"""Values behind the last ones that may be read, though they count for nothing: no kernel reads more at a time."""

_MOST_VALUES = (1 << 31) - 1
"""Of an image: the kernels count in 32 bits."""


class Map:
    """Feature maps ``(n, y + 2, x + 2, channels)``, zero at first; what computes writes inside the border alone.

    Parameters
    ----------
    count, height, width, channels
        Its size without the border.
    like
        Of the type and on the device that it is to have.

    Raises
    ------
    torch.OutOfMemoryError
        There is no room, or an image has more values than the kernels can count.
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
        """All of them, and two rows that may be read, though they count for nothing."""

    def inner(self) -> torch.Tensor:
        """Give ``(n, y, x, channels)``, without the border."""
        shape = self.count, self.height + 2, self.width + 2, self.channels
        return self.values[: self.count * self.image].view(shape)[:, 1:-1, 1:-1]

    def windows(
        self, places: tuple[int, int], *, step: tuple[int, int], window: tuple[int, int], begin: tuple[int, int]
    ) -> torch.Tensor:
        """Give a copy of windows, ``(n, rows * columns, values)``.

        Parameters
        ----------
        places
            Rows and columns of windows.
        step
            From one to the next, in pixels.
        window
            Its rows, and how many values each has.
        begin
            First pixel of the first one, counted with the border.
        """
        strides = (self.image, step[0] * self.row, step[1] * self.channels, self.row, 1)
        start = begin[0] * self.row + begin[1] * self.channels
        seen = self.values.as_strided((self.count, *places, *window), strides, start)
        return seen.reshape(self.count, places[0] * places[1], -1)


def pixel_windows(images: torch.Tensor, *, block: tuple[int, int], more: int) -> torch.Tensor:
    """Give the windows of blocks of pixels, ``(n, rows, columns, values)``, with zeros outside of the images.

    Each is filled up with zeros to a multiple of `VECTOR`, and behind them lie more values, as behind those of a `Map`.

    Parameters
    ----------
    images
        ``(n, y, x)``.
    block
        Rows and columns of pixels.
    more
        By how many pixels a window is larger on each side.
    """
    padded = torch.nn.functional.pad(images, (more,) * 4)
    high, wide = (side + 2 * more for side in block)
    windows = padded.unfold(1, high, block[0]).unfold(2, wide, block[1])
    each = high * wide
    shape = *windows.shape[:3], -(-each // VECTOR) * VECTOR
    values = images.new_zeros(math.prod(shape) + _MORE)[:-_MORE].view(shape)
    values[..., :each].unflatten(3, (high, wide)).copy_(windows)
    return values
