"""The layers of a `unet` over rows that arrive in parts: each layer gives the rows it can compute, and keeps those it needs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from cryoplug.inference.network.doubled import Doubled
from cryoplug.kernels.packed import PackedConvolution
from cryoplug.models.unet import Block

Pieces = Callable[[int, int, Callable[[int, int], None]], None]
"""Called with a number of rows, their width, and a function that makes the rows from one number to before another."""


class PackedBlock:
    """The weights of a block; if it joins a skip and a coarser level, the weights for each."""

    def __init__(self, block: Block, *, skip: int = 0) -> None:
        one, two = block.conv1, block.conv2
        assert one.bias is not None and two.bias is not None
        self.width: int = one.weight.shape[0]
        self.conv1 = PackedConvolution(one.weight[:, :skip] if skip else one.weight, one.bias, padding=(0, 1))
        self.conv2 = PackedConvolution(two.weight, two.bias, padding=(0, 1))
        self.doubled = Doubled(one.weight[:, skip:]) if skip else None


class RollingLayer:
    """A 3x3 convolution over rows that arrive in parts, with zeros above and below the image."""

    def __init__(self, layer: PackedConvolution, pieces: Pieces) -> None:
        self._layer, self._pieces = layer, pieces
        self._kept: torch.Tensor | None = None

    def push(
        self,
        rows: torch.Tensor,
        *,
        last: bool,
        relu: bool = True,
        around: bool = False,
        addend: Callable[[int, int], torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Give the rows that can be computed now: all up to the last but one.

        Parameters
        ----------
        rows
            The next rows ``(1, c, y, x)``; maybe none.
        last
            Whether they end the image.
        relu
            Whether a ReLU follows.
        around
            Whether to add the input of the convolution to its output.
        addend
            Gives another addend, for the rows from one number to before another.
        """
        seen = _with_zeros(self._kept, rows, last=last)
        self._kept = _last_rows(seen, 2)
        count, width = max(0, seen.shape[2] - 2), rows.shape[3]
        made = _empty_rows(self._layer.outputs, count, width)

        def make(start: int, stop: int) -> None:
            added = seen[:, :, start + 1 : stop + 1] if around else None if addend is None else addend(start, stop)
            made[:, :, start:stop] = self._layer(seen[:, :, start : stop + 2], added, relu=relu)

        if count:
            self._pieces(count, width, make)
        return made


class RollingBlock:
    """A block over rows that arrive in parts."""

    def __init__(self, packed: PackedBlock, pieces: Pieces) -> None:
        self._conv1, self._conv2 = RollingLayer(packed.conv1, pieces), RollingLayer(packed.conv2, pieces)

    def push(self, rows: torch.Tensor, *, last: bool) -> torch.Tensor:
        """Give the rows that can be computed now."""
        return self._conv2.push(self._conv1.push(rows, last=last), last=last, around=True)


class _RollingJoin:
    """A block over a skip and the doubled rows of a coarser level."""

    def __init__(self, packed: PackedBlock, pieces: Pieces) -> None:
        assert packed.doubled is not None
        self._conv1, self._conv2 = RollingLayer(packed.conv1, pieces), RollingLayer(packed.conv2, pieces)
        self._doubled = packed.doubled
        self._kept: torch.Tensor | None = None

    def push(self, fine: torch.Tensor, coarse: torch.Tensor, *, last: bool) -> torch.Tensor:
        """Give the rows that can be computed now; `fine` has two rows for each of `coarse`."""
        begins = 1 if self._kept is None else 0
        seen = _with_zeros(self._kept, coarse, last=last)
        self._kept = _last_rows(seen, 1)

        def addend(start: int, stop: int) -> torch.Tensor:
            # Row 0 is the lower one of the two that the first coarse row has. At first that coarse row is the zeros above the
            # image, so one fine row is passed over.
            return self._doubled.rows(seen, start + begins, stop + begins)

        return self._conv2.push(self._conv1.push(fine, last=last, addend=addend), last=last, around=True)


class RollingLevel:
    """A block down, all coarser levels, and the block up."""

    def __init__(self, down: PackedBlock, below: RollingLevel | RollingBlock, up: PackedBlock, pieces: Pieces) -> None:
        self._down, self._below, self._up = RollingBlock(down, pieces), below, _RollingJoin(up, pieces)
        self._pieces = pieces
        self._skip: torch.Tensor | None = None
        self._halved = 0

    def push(self, rows: torch.Tensor, *, last: bool) -> torch.Tensor:
        """Give the rows that can be computed now."""
        waiting = self._with_those_that_wait(self._down.push(rows, last=last))
        coarse = self._below.push(self._halve(waiting), last=last)
        count = 2 * coarse.shape[2]
        self._skip, self._halved = waiting[:, :, count:], self._halved - count
        return self._up.push(waiting[:, :, :count], coarse, last=last)

    def _with_those_that_wait(self, skip: torch.Tensor) -> torch.Tensor:
        before, self._skip = self._skip, None  # two of them at a time would be the most memory that all this takes
        return skip if before is None else torch.cat((before, skip), dim=2)

    def _halve(self, waiting: torch.Tensor) -> torch.Tensor:
        """Give the means of 2x2 points for waiting rows that were not halved yet; an odd row at the end waits."""
        new = waiting[:, :, self._halved : self._halved + (waiting.shape[2] - self._halved) // 2 * 2]
        self._halved += new.shape[2]
        made = _empty_rows(new.shape[1], new.shape[2] // 2, new.shape[3] // 2)

        def make(start: int, stop: int) -> None:
            made[:, :, start:stop] = functional.avg_pool2d(new[:, :, 2 * start : 2 * stop], 2)

        if made.shape[2]:
            self._pieces(made.shape[2], made.shape[3], make)
        return made


def _with_zeros(kept: torch.Tensor | None, rows: torch.Tensor, *, last: bool) -> torch.Tensor:
    """Put kept rows, or the zeros above the image, before the new rows; after the last rows, add the zeros below."""
    if kept is None and not rows.shape[2]:
        return rows
    before = torch.zeros_like(rows[:, :, :1]) if kept is None else kept
    return torch.cat((before, rows, torch.zeros_like(before[:, :, :1])) if last else (before, rows), dim=2)


def _last_rows(seen: torch.Tensor, count: int) -> torch.Tensor | None:
    """Give a copy of the last rows, so that the memory of the others is freed; None before the first rows."""
    return seen[:, :, -count:].clone(memory_format=torch.channels_last) if seen.shape[2] else None


def _empty_rows(channels: int, rows: int, width: int) -> torch.Tensor:
    return torch.empty((1, channels, rows, width), memory_format=torch.channels_last)
