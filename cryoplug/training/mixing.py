"""Mixtures of the two halves of an exposure: inputs nearly as clean as the sum, targets that pay for it."""

from __future__ import annotations

import math

import torch


def mix_halves(noisy: torch.Tensor, clean: torch.Tensor, share: float) -> None:
    """Replace the halves e and o of exposures by mixtures of them, in place.

    With m = (e + o) / 2, d = (e - o) / 2 and k = sqrt(2 / (1 + a^2)) the network gets ``k (m + a d)`` and is compared
    with ``k (m - d / a)``. Halves with equally strong, independent noise have a mean and a difference whose noise is
    uncorrelated, so the noise of input and target is uncorrelated for every a, as Noise2Noise asks for; ``a = 1`` gives
    the halves themselves. The smaller a, the closer is the input to the sum that the network is meant for, and the
    noisier the target. k keeps the input's deviation near that of a half where noise prevails. The same idea with
    artificial noise: Pang et al., Recorrupted-to-Recorrupted, CVPR 2021.

    Parameters
    ----------
    noisy, clean
        Even and odd halves, equal shapes, mean 0 and deviation 1 each; overwritten.
    share
        a: above 0, at most 1. In the units of a half the target's noise has the variance ``1 / a^2``.
    """
    scale = math.sqrt(2.0 / (1.0 + share**2))
    mean, difference = (noisy + clean).mul_(0.5 * scale), (noisy - clean).mul_(0.5 * scale)
    torch.add(mean, difference, alpha=share, out=noisy)
    torch.add(mean, difference, alpha=-1.0 / share, out=clean)
