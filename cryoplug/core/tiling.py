"""Cut an image into overlapping tiles so that every pixel is pasted exactly once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels, half open: rows ``y0 <= y < y1``, columns ``x0 <= x < x1``."""

    y0: int
    """First row."""
    y1: int
    """One past the last row."""
    x0: int
    """First column."""
    x1: int
    """One past the last column."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, ``(y, x)``."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of this rectangle in a ``(y, x)`` array."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def shifted(self, y: int, x: int) -> Window:
        """Give this rectangle in a frame whose origin lies `y` rows above and `x` columns left of this one's."""
        return Window(self.y0 + y, self.y1 + y, self.x0 + x, self.x1 + x)


@dataclass(frozen=True)
class Tile:
    """One step of a tiled computation: read a window, keep its middle, paste the middle."""

    read: Window
    """What to read, in the frame of the image: `paste` and its overlap, cut at the image's border."""
    crop: Window
    """What to keep, in the frame of the tile that was read."""
    paste: Window
    """Where the kept part goes, in the frame of the image; equal in shape to `crop`."""


def plan_tiles(shape: tuple[int, int], *, tile: int | tuple[int, int], overlap: int, multiple: int = 1) -> list[Tile]:
    """Cover an image with tiles.

    When ``overlap >= r``, a network of receptive radius r gives on the kept part what it gives on the whole image. At the
    image's border nothing is added, so the network's own zero padding falls where it does on the whole image. A network
    that pools also needs `multiple`: tiles that start elsewhere than on its pooling grid leave seams, however large the
    overlap.

    Parameters
    ----------
    shape
        Image size, ``(y, x)``, each at least 1.
    tile
        Size of the pasted part, one number or ``(y, x)``; rounded up to `multiple`. Tiles at the right and at the
        bottom are smaller.
    overlap
        Pixels read on each side beyond the pasted part; rounded up to `multiple`.
    multiple
        Every tile is read from a row and a column that are multiples of this: the pooling stride of the network.

    Returns
    -------
    list[Tile]
        Row-major; the pasted windows cover every pixel exactly once.

    Raises
    ------
    ValueError
        A size below 1 or a negative overlap.
    """
    height, width = (tile, tile) if isinstance(tile, int) else tile
    if min(shape) < 1 or min(height, width) < 1 or overlap < 0 or multiple < 1:
        raise ValueError(
            f"shape {shape}, tile {(height, width)}, overlap {overlap}, multiple {multiple}: "
            "sizes and the multiple must be at least 1, the overlap at least 0"
        )
    halo = _round_up(overlap, multiple)
    return [
        Tile(
            read=Window(ry0, ry1, rx0, rx1),
            crop=Window(y0 - ry0, y1 - ry0, x0 - rx0, x1 - rx0),
            paste=Window(y0, y1, x0, x1),
        )
        for y0, y1, ry0, ry1 in _spans(shape[0], step=_round_up(height, multiple), halo=halo)
        for x0, x1, rx0, rx1 in _spans(shape[1], step=_round_up(width, multiple), halo=halo)
    ]


def _spans(size: int, *, step: int, halo: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (paste start, paste end, read start, read end) along one axis."""
    for start in range(0, size, step):
        end = min(start + step, size)
        yield start, end, max(start - halo, 0), min(end + halo, size)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
