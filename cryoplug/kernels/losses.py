"""The losses of training: the mean over all pixels of a function of the difference d = network(noisy) - clean.

``mse`` is d^2, ``l1`` is |d|, ``charbonnier`` is sqrt(d^2 + 1e-6): l1 without its kink. If the pair is two noisy halves, mse
learns the mean of the possible targets, and l1 their median. If the noise is symmetric, both are the signal.
"""

from __future__ import annotations

import torch
from torch.nn import functional

CHARBONNIER_EPS = 1e-3
"""Width of the rounded kink of ``charbonnier``, in units of the normalised pixels."""


def mean_loss_of(output: torch.Tensor, clean: torch.Tensor, kind: str) -> torch.Tensor:
    """Return the loss as a tensor that carries gradients."""
    if kind == "mse":
        return functional.mse_loss(output, clean)
    if kind == "l1":
        return functional.l1_loss(output, clean)
    return ((output - clean).square() + CHARBONNIER_EPS**2).sqrt().mean()


def loss_sum(difference: torch.Tensor, kind: str) -> float:
    """Return the sum of the loss over a part of the pixels; `difference` is not changed."""
    flat = difference.reshape(-1)
    if kind == "mse":
        return float(torch.dot(flat, flat))
    if kind == "l1":
        return float(flat.abs().sum())
    return float((flat.square() + CHARBONNIER_EPS**2).sqrt_().sum())


def loss_slope(difference: torch.Tensor, kind: str, *, scale: float) -> torch.Tensor:
    """Return `scale` times the derivative of the loss by each difference; `difference` is overwritten."""
    if kind == "mse":
        return difference.mul_(2.0 * scale)
    if kind == "l1":
        return difference.sign_().mul_(scale)
    return difference.div_((difference.square() + CHARBONNIER_EPS**2).sqrt_()).mul_(scale)
