"""Mixtures of the two halves of an exposure: inputs nearly as clean as the sum, at the price of noisier targets.

Let m be the mean of the halves, weighted for the least noise, and d their difference, scaled to the noise of m. The noise of
m and that of d are uncorrelated and equally strong. So the noises of ``m + a d`` and ``m - d / a`` are uncorrelated for every
a, as Noise2Noise requires. For halves of equal dose, ``a = 1`` gives the halves themselves. The smaller a is, the closer the
input is to the sum, for which the network is meant, and the noisier the target.

Uncorrelated does not mean independent. Counts of electrons are skewed, so the square of the input predicts a little of the
target's noise, and a network learns this sooner than the signal. But d is noise alone, so a part of it may come from another
place: ``c d + s d'`` with ``c^2 + s^2 = 1`` has the same variance. Its third-order cumulant with input, input and target is
``1 - (2 - a^2) c^2`` times the skewness, so it is zero for ``c^2 = 1 / (2 - a^2)``, at all pixels. Also, the noise from
another place differs at each step, so it cannot be learnt by heart. The same idea with artificial Gaussian noise:
Pang et al., Recorrupted-to-Recorrupted, CVPR 2021; docs/decisions/0008-mixtures-of-halves.md has the cumulants.

Each pair of halves gives two mixtures, with d and with -d. The effects of the target's noise ``d / a`` on the gradient cancel
between the two, to first order. So a small a costs little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from cryoplug.training.data.balance import Balance
from cryoplug.training.distributed import Rows

_STREAM = 0x3147
"""Number of this random stream; order, augmentation and split have others."""


class Mixer:
    """Makes two mixtures of each pair of halves.

    Parameters
    ----------
    share
        a: above 0, at most 1. The target's noise has the variance ``1 / a^2`` in the units of the input's.
    balance
        How the two halves relate.
    seed
        Together with the number of a step, it decides the place of d'.
    device
        Device of the batches.
    """

    def __init__(self, share: float, balance: Balance, *, seed: int, device: torch.device) -> None:
        self._share = share
        self._signal_ratio, self._noise_ratio = balance.signal_ratio, balance.noise_ratio
        # Inputs get about the deviation that a z-scored micrograph has.
        self._scale = 1.0 / math.sqrt(balance.mean_variance + share**2 * balance.noise_variance)
        self._own = math.sqrt(1.0 / (2.0 - share**2))
        self._foreign = math.sqrt(1.0 - self._own**2)
        self._seed = seed
        # On the device, so that a recorded step reads what was put there before it is replayed.
        self._shift = torch.zeros(2, dtype=torch.int64, device=device)

    @property
    def loss_scale(self) -> float:
        """Factor that brings a loss to the units of the input's noise."""
        return self._share**2

    def prepare(
        self,
        number: int | None,
        *,
        shape: Sequence[int] = (),
        images: Sequence[int] = (),
        part: int = 0,
        rows: Rows | None = None,
    ) -> None:
        """Draw the place of d' for step `number`; None takes always the same place, as for validation.

        The other parameters are for `cryoplug.training.data.recorruption`.
        """
        words = [self._seed, _STREAM] if number is None else [self._seed, _STREAM, number]
        for axis, place in enumerate(np.random.default_rng(words).integers(2**31, size=2).tolist()):
            self._shift[axis].fill_(place)

    def mix(self, even: torch.Tensor, odd: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Make inputs and targets from halves ``(b, 1, y, x)``, each normalised by itself.

        Returns
        -------
        tuple
            Inputs and targets ``(2 b, 1, y, x)``; the two mixtures of a pair follow one another.
        """
        rho = self._noise_ratio
        scaled = even / self._signal_ratio
        mean = (scaled + rho * odd).mul_(self._scale / (1.0 + rho))
        difference = (scaled - odd).mul_(self._scale * math.sqrt(rho) / (1.0 + rho))
        if self._foreign:
            elsewhere = difference
            for axis in (2, 3):
                size = elsewhere.shape[axis]
                places = (torch.arange(size, device=elsewhere.device) + self._shift[axis - 2]) % size
                elsewhere = elsewhere.index_select(axis, places)
            difference = difference.mul_(self._own).add_(elsewhere, alpha=self._foreign)
        inputs, targets = (
            torch.stack((torch.add(mean, difference, alpha=part), torch.sub(mean, difference, alpha=part)), dim=1)
            for part in (self._share, -1.0 / self._share)
        )
        return inputs.flatten(0, 1), targets.flatten(0, 1)
