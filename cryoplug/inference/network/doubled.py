"""A 3x3 convolution of a doubled image, computed on the image itself: 4 taps instead of 9."""

from __future__ import annotations

import torch

from cryoplug.kernels.packed import PackedConvolution


class Doubled:
    """A 3x3 convolution, without bias, of an image in which each point is repeated 2x2 times.

    Take the corner where four coarse points meet. The four fine points around it see only these four coarse points, because all
    nine taps fall on them. So the weights that fall on the same coarse point are added up, and four weights are left.

    Parameters
    ----------
    weight
        ``(out, c, 3, 3)`` of the convolution.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        self._outputs: int = weight.shape[0]
        self._layer = PackedConvolution(_added_up(weight.detach().float()), None, padding=(0, 1))

    def rows(self, coarse: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Give fine rows.

        Parameters
        ----------
        coarse
            Coarse rows ``(1, c, y, x)`` in ``torch.channels_last``.
        start, stop
            The first fine row and one past the last. Row 0 is the second of the two fine rows of the first coarse row.

        Returns
        -------
        torch.Tensor
            ``(1, out, stop - start, 2 * x)``.
        """
        first, last = start // 2, -(-stop // 2)
        met = self._layer(coarse[:, :, first : last + 1], relu=False)
        width = coarse.shape[3]
        # The library's own order of memory is y, x, then the channels: fine row, fine column, output.
        corners = met.permute(0, 2, 3, 1).view(1, last - first, width + 1, 2, 2, self._outputs)
        fine = torch.empty((1, last - first, 2, width, 2, self._outputs))
        fine[:, :, :, :, 0] = corners[:, :, :-1, :, 1].transpose(2, 3)
        fine[:, :, :, :, 1] = corners[:, :, 1:, :, 0].transpose(2, 3)
        rows = fine.view(1, 2 * (last - first), 2 * width, self._outputs).permute(0, 3, 1, 2)
        return rows[:, :, start - 2 * first : stop - 2 * first]


def _added_up(weight: torch.Tensor) -> torch.Tensor:
    """Give weights ``(4 * out, c, 2, 2)`` for the upper left, upper right, lower left and lower right fine point."""
    made = []
    for y in range(2):
        for x in range(2):
            corner = torch.zeros(*weight.shape[:2], 2, 2)
            for ky in range(3):
                for kx in range(3):
                    corner[:, :, (y + ky) // 2, (x + kx) // 2] += weight[:, :, ky, kx]
            made.append(corner)
    return torch.cat(made)
