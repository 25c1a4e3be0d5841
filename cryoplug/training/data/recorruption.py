"""Mixtures of a single exposure with drawn noise: inputs a little noisier than it, at the price of noisier targets.

A micrograph m has noise n of a known spectrum. Draw noise z of that spectrum. Then the noises of ``m + a z`` and
``m - z / a`` are uncorrelated for every a (Pang et al., Recorrupted-to-Recorrupted, CVPR 2021). These are the mixtures of
`cryoplug.training.data.mixing`, with a difference of halves that is drawn instead of measured. The spectrum must be right:
where z is weaker than n, noise is learnt as signal; where it is stronger, signal is removed.

Uncorrelated does not mean independent. Counts are skewed, and their noise is stronger where more electrons fall. With the
signal s, the third-order cumulants of input, input and target are ``cum(n, n, n) - a cum(z, z, z)`` and
``cum(s, n, n) - cum(s, z, z)``. Both vanish if z is 1 / a times as skewed as n, and follows the local mean as n does. Such
noise is made by filtering skewed white noise ``g + c (g^2 - 1)`` with Gaussian g. With -g, the noise has the same skewness
and is nearly the opposite. So each draw gives two mixtures, and the noise of their targets nearly cancels in the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from cryoplug.metrics.micrograph_noise import MicrographNoise
from cryoplug.metrics.noise_power import POINTS, STEP
from cryoplug.metrics.noise_shape import fine_side
from cryoplug.training.distributed import ALONE, Rows

_STREAM, _VALIDATION_STREAM = 0x5146, 0x5147
"""Numbers of the random streams of training and of validation; all other random numbers have others."""
_MARGIN_PX = 16
"""Pixels by which noise is drawn larger on each side: it is periodic, and a network must not see one border in the other."""
_MEAN_PX = 17
"""Side in pixels of the squares over which the local mean is taken."""
_MOST_SKEWNESS = 2.4
_CURVE = np.linspace(0.0, 0.7, 141)


class Recorruption:
    """Makes two mixtures of each crop of a single exposure.

    Parameters
    ----------
    share
        a: above 0, at most 1. The variance of the target's drawn noise is ``1 / a^2`` times the exposure's.
    noises
        Noise of each micrograph.
    of_image
        For each stored image, the number of its noise in `noises`.
    seed
        Together with the number of a step, it decides the noise.
    device
        Device of the batches.
    """

    def __init__(
        self, share: float, noises: Sequence[MicrographNoise], of_image: np.ndarray, *, seed: int, device: torch.device
    ) -> None:
        self._share, self._seed, self._device = share, seed, device
        # Inputs get about the deviation that a z-scored micrograph has.
        self._scale = 1.0 / math.sqrt(1.0 + share**2 * float(np.mean([noise.variance for noise in noises])))
        self._of_image = of_image
        self._power = torch.tensor([noise.power for noise in noises], dtype=torch.float32, device=device)
        bend = np.array([_bend(noise.shape.skewness / share) for noise in noises])
        weights = np.stack([1.0 / np.sqrt(1.0 + 2.0 * bend**2), bend / np.sqrt(1.0 + 2.0 * bend**2)])
        self._weights = torch.tensor(weights, dtype=torch.float32, device=device)
        self._slopes = torch.tensor([noise.shape.slope for noise in noises], dtype=torch.float32, device=device)
        self._oversampling = max(noise.shape.oversampling for noise in noises)
        # On the device and kept, so that a recorded step reads what was put there before it is replayed.
        self._drawn: dict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}

    @property
    def loss_scale(self) -> float:
        """A loss times this is in the units of the input's noise."""
        return self._share**2

    def prepare(
        self,
        number: int | None,
        *,
        shape: Sequence[int],
        images: Sequence[int] = (),
        part: int = 0,
        rows: Rows | None = None,
    ) -> None:
        """Draw the noise of a batch.

        Parameters
        ----------
        number
            Number of the step; None draws always the same noise, as for validation.
        shape
            ``(b, 1, y, x)`` of the batch.
        images
            Number of the stored image of each crop; missing ones count as the first.
        part
            Number of the batch in validation.
        rows
            Rows of this process in a batch that several share; None for all. Noise is drawn for the whole batch.
        """
        rows = rows or ALONE.rows(shape[0])
        count, height, width = shape[0], shape[-2], shape[-1]
        chosen = np.zeros(count, np.int64)
        chosen[: len(images)] = self._of_image[list(images)]
        which = torch.from_numpy(chosen).to(self._device)
        words = [self._seed, _VALIDATION_STREAM, part] if number is None else [self._seed, _STREAM, number]
        generator = torch.Generator(self._device)
        generator.manual_seed(int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1))
        grid = tuple(2 * (-(-side // 2) + _MARGIN_PX) for side in (height, width))
        fine = tuple(fine_side(side, self._oversampling) for side in grid)
        white = torch.randn((rows.whole, *fine), generator=generator, device=self._device)[rows.own]
        gain = self._gain(which, grid) * math.sqrt(math.prod(grid) / math.prod(fine))
        odd, even = (
            _crop_terms(torch.fft.rfft2(field), grid).mul_(gain) for field in (white, white.square().sub_(1.0))
        )
        inner = (slice(None), None, slice(_MARGIN_PX, _MARGIN_PX + height), slice(_MARGIN_PX, _MARGIN_PX + width))
        fields = [
            torch.fft.irfft2(terms, s=grid)[inner] * weight[which][:, None, None, None]
            for terms, weight in zip((odd, even), self._weights, strict=True)
        ]
        for kept, fresh in zip(
            self._kept(tuple(shape)), (*fields, self._slopes[which][:, None, None, None]), strict=True
        ):
            kept.copy_(fresh)

    def mix(self, noisy: torch.Tensor, clean: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Make inputs and targets from normalised crops ``(b, 1, y, x)``, after `prepare` for them.

        Parameters
        ----------
        noisy
            The crops.
        clean
            The same crops again: a store of single exposures has one side.

        Returns
        -------
        tuple
            Inputs and targets ``(2 b, 1, y, x)``; the two mixtures of a crop follow one another.
        """
        odd, even, slope = self._drawn[tuple(noisy.shape)]
        local = (1.0 + slope * _local_mean(noisy)).clamp_(0.25, 4.0).sqrt_()
        odd, even = odd * local, even * local
        noises = torch.stack((even + odd, even - odd), dim=1)
        crops = noisy.unsqueeze(1)
        inputs, targets = (
            torch.add(crops, noises, alpha=part).mul_(self._scale) for part in (self._share, -1 / self._share)
        )
        return inputs.flatten(0, 1), targets.flatten(0, 1)

    def _kept(self, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if shape not in self._drawn:
            sizes = (shape, shape, (shape[0], 1, 1, 1))
            odd, even, slope = (torch.zeros(size, device=self._device) for size in sizes)
            self._drawn[shape] = odd, even, slope
        return self._drawn[shape]

    def _gain(self, which: torch.Tensor, grid: tuple[int, ...]) -> torch.Tensor:
        y, x = torch.fft.fftfreq(grid[0], device=self._device), torch.fft.rfftfreq(grid[1], device=self._device)
        place = (torch.hypot(y[:, None], x[None]) / STEP).clamp_(max=POINTS - 1.001)
        below = place.long()
        above = place - below
        power = self._power[which]
        return (power[:, below] * (1.0 - above) + power[:, below + 1] * above).sqrt_()


def _bend(skewness: float) -> float:
    """Give c for a skewness: that of ``(g + c (g^2 - 1)) / sqrt(1 + 2 c^2)`` is ``(6 c + 8 c^3) / (1 + 2 c^2)^1.5``."""
    values = (6 * _CURVE + 8 * _CURVE**3) / (1 + 2 * _CURVE**2) ** 1.5
    return math.copysign(float(np.interp(min(abs(skewness), _MOST_SKEWNESS), values, _CURVE)), skewness)


def _crop_terms(terms: torch.Tensor, grid: tuple[int, ...]) -> torch.Tensor:
    """Keep the terms of `torch.fft.rfft2` that belong to a coarser or equal grid of even sides."""
    rows, columns = grid[0] // 2, grid[1] // 2 + 1
    return torch.cat((terms[:, :rows, :columns], terms[:, -rows:, :columns]), dim=1)


def _local_mean(crops: torch.Tensor) -> torch.Tensor:
    reach = _MEAN_PX // 2
    rows = functional.avg_pool2d(crops, (_MEAN_PX, 1), stride=1, padding=(reach, 0), count_include_pad=False)
    return functional.avg_pool2d(rows, (1, _MEAN_PX), stride=1, padding=(0, reach), count_include_pad=False)
