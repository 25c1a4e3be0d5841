"""Losses in which faint crops count as much as strong ones.

The squared error alone would be decided by the few crops of strongest contrast. The logarithm of each crop's squared error
weighs all alike, but it rewards a guess: where a crop may be empty or hold faint particles, being exactly right about the
empty ones is worth more than being half right about both, so the network learns to erase. Here a crop's error is divided by
what crops *that look alike to the network* have on average. That divisor is a function of what the network sees, not of the
truth, and such a weight leaves the expected image as the optimum: faint particles fade, and are not erased.

What has faded costs little, however badly it is drawn: half of a field shown and half of it erased has nearly the error of
the whole one shown faintly. So a second loss, `unlikeness`, asks for the correlation with the truth, whatever the strength.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

BLOCK_PX = 32
"""What varies more slowly than this is left out of how strong an output looks: slopes of the ice say little of the error."""
CLASSES_PER_DECADE = 4
LEAST, MOST = 1e-7, 1e2
"""Variance of an output within blocks; what lies beyond belongs to the first or the last class."""
BOUND = 300.0
"""Errors of so many times the usual one begin to count by their logarithm: dirt shall not decide."""
MOST_SURPRISE = 4.0
"""One crop counts as at most so many usual errors when the usual one is learnt."""
FAINTEST = 0.003
"""Standard deviation, in that of the noisy pixels, of what nobody can tell from nothing."""
MOST_ALIKE = 0.9999
"""Largest square of a correlation: 40 dB, beyond which nobody sees a difference."""
PACE = 0.02
"""Part by which one crop changes the usual error of its class."""


class EvenLoss:
    """The usual error of crops by the strength of the network's output, and the loss relative to it.

    Parameters
    ----------
    outputs
        Number of the network's outputs; each has its own classes.
    device
        Where the network learns.
    bound
        See `BOUND`.
    """

    def __init__(self, outputs: int, device: torch.device, *, bound: float = BOUND) -> None:
        self.bound = bound
        low, high = math.log10(LEAST), math.log10(MOST)
        strength = torch.logspace(low, high, round(CLASSES_PER_DECADE * (high - low)) + 1, device=device)
        # A first guess, soon replaced by what is met.
        self.usual = (0.3 * strength + 1e-4).log().repeat(outputs, 1)
        """Logarithm of the usual squared error, ``(output, class)``."""
        self._output = torch.arange(outputs, device=device)[None, :]

    def __call__(self, output: torch.Tensor, error: torch.Tensor) -> torch.Tensor:
        """Give the loss of a batch, and learn what is usual.

        Parameters
        ----------
        output, error
            What the network gives, and what is wrong with it; ``(b, c, y, x)``, sides divisible by `BLOCK_PX`.

        Returns
        -------
        torch.Tensor
            The sum over outputs of the mean over crops; 1 an output once the usual errors are known.
        """
        with torch.no_grad():
            means = torch.nn.functional.avg_pool2d(output, BLOCK_PX)
            strength = output.square().mean((2, 3)) - means.square().mean((2, 3))
            place = (strength.clamp(LEAST, MOST) / LEAST).log10() * CLASSES_PER_DECADE
            place = place.round().long()
            usual = self.usual[self._output, place].exp()
        relative = error.square().mean((2, 3)) / usual
        losses = self.bound * torch.log1p(relative / self.bound)
        with torch.no_grad():
            flat = self._output * self.usual.shape[1] + place
            self.usual.view(-1).index_add_(
                0, flat.flatten(), PACE * (losses.detach() - 1).clamp(max=MOST_SURPRISE).flatten()
            )
        return losses.mean(0).sum()


def unlikeness(
    output: torch.Tensor,
    truth: torch.Tensor,
    *,
    block_px: int,
    average: Callable[[torch.Tensor], torch.Tensor] = lambda count: count,
) -> torch.Tensor:
    """Give the mean over crops of log(1 - c^2), with c the correlation of output and truth.

    Minus that, in other units, is the signal-to-noise after the best ``a*x + b``, by which denoisers are judged. Crops in which
    there is nothing do not count. Outputs much fainter than `FAINTEST` do not count either, so that it never divides by 0.

    Parameters
    ----------
    output, truth
        One output of the network, and what it should be; ``(b, y, x)``, sides divisible by `block_px`.
    block_px
        What varies more slowly than this does not count: slopes of the ice would decide otherwise.
    average
        Gives the mean of a number over all processes that share a batch. Their losses then average to that of the whole
        batch, though more crops may be empty in one process than in another.
    """

    def spread(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        # Not avg_pool2d: it gives each block to one thread, which made a step of training five times as long.
        blocks = [
            image.unflatten(2, (-1, block_px)).unflatten(1, (-1, block_px)).mean((2, 4)) for image in (one, other)
        ]
        return (one * other).mean((1, 2)) - (blocks[0] * blocks[1]).mean((1, 2))

    there = spread(truth, truth)
    squared = spread(output, truth).clamp_min(0).square() / (
        (spread(output, output) + FAINTEST**2) * (there + FAINTEST**2)
    )
    counts = (there > FAINTEST**2).float()
    # Where no crop counts, the sum is 0.
    return (counts * torch.log1p(-squared.clamp(0, MOST_ALIKE))).sum() / average(counts.sum()).clamp_min(1e-6)
