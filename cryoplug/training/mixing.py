"""Mixtures of the two halves of an exposure: inputs nearly as clean as the sum, targets that pay for it.

Let m be the mean of the halves, weighted for the least noise, and d their difference, scaled to the noise of m. The noise
of m and that of d are uncorrelated and alike. So the noise of ``m + a d`` and of ``m - d / a`` is uncorrelated for every
a, as Noise2Noise asks for; with halves of equal dose ``a = 1`` gives the halves themselves. The smaller a, the closer is
the input to the sum that the network is meant for, and the noisier the target. And d is noise alone, so it need not come
from the same place: taken from another one at each step it lets no noise be learnt by heart. The same idea with
artificial noise: Pang et al., Recorrupted-to-Recorrupted, CVPR 2021.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from cryoplug.training.balance import Balance

_STREAM = 0x3147
"""Keeps these random numbers apart from those of order, augmentation and split."""


class Mixer:
    """Replaces halves by mixtures, in place.

    Parameters
    ----------
    share
        a: above 0, at most 1. The target's noise has the variance ``1 / a^2`` in the units of the input's.
    balance
        Of the halves.
    seed
        With the number of a step it decides where d is taken from.
    device
        Where the batches are.
    """

    def __init__(self, share: float, balance: Balance, *, seed: int, device: torch.device) -> None:
        self._share = share
        self._signal_ratio, self._noise_ratio = balance.signal_ratio, balance.noise_ratio
        # Inputs get about the deviation that a z-scored micrograph has.
        self._scale = 1.0 / math.sqrt(balance.mean_variance + share**2 * balance.noise_variance)
        self._seed = seed
        # On the device, so that a recorded step reads what was put there before it is replayed.
        self._shift = torch.zeros(2, dtype=torch.int64, device=device)
        self._sign = torch.ones((), device=device)

    @property
    def loss_scale(self) -> float:
        """A loss times this is in the units of the input's noise."""
        return self._share**2

    def prepare(self, number: int | None) -> None:
        """Draw where d is taken from in step `number`; None: from its own place, as in validation."""
        y, x, sign = 0, 0, 1
        if number is not None:
            y, x, sign = np.random.default_rng([self._seed, _STREAM, number]).integers((2**31, 2**31, 2)).tolist()
        self._shift[0].fill_(y)
        self._shift[1].fill_(x)
        self._sign.fill_(1.0 if sign else -1.0)

    def mix(self, even: torch.Tensor, odd: torch.Tensor) -> None:
        """Make of ``(b, 1, y, x)`` halves, normalised each by itself, the input (in `even`) and the target (in `odd`)."""
        rho = self._noise_ratio
        scaled = even / self._signal_ratio
        mean = (scaled + rho * odd).mul_(self._scale / (1.0 + rho))
        difference = (scaled - odd).mul_(self._scale * math.sqrt(rho) / (1.0 + rho)).mul_(self._sign)
        for axis in (2, 3):
            size = difference.shape[axis]
            places = (torch.arange(size, device=difference.device) + self._shift[axis - 2]) % size
            difference = difference.index_select(axis, places)
        torch.add(mean, difference, alpha=self._share, out=even)
        torch.add(mean, difference, alpha=-1.0 / self._share, out=odd)
