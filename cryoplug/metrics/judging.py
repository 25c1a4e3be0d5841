"""One image judged: by its truth, by the halves of its exposure, and by what a denoiser makes of pure noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cryoplug.metrics.evaluation import (
    Agreement,
    HalvesReport,
    TruthReport,
    check_agreement,
    choose_directions,
    score_against_truth,
    score_halves,
    score_noise,
)
from cryoplug.metrics.hallucination import Hallucination

Image = np.ndarray
LEAST_SIDE_PX = 32
"""Rings and fits say nothing about smaller images."""


@dataclass(eq=False)
class Images:
    """What there is of one micrograph, or of one patch; all ``(y, x)``, of one shape and one grey scale."""

    noisy: Image | None = None
    """The whole exposure."""
    clean: Image | None = None
    """Its truth."""
    even: Image | None = None
    """One half."""
    odd: Image | None = None
    """The other one; there when `even` is."""
    denoised: Image | None = None
    """What became of `noisy`."""
    denoised_even: Image | None = None
    """What became of `even`."""
    denoised_odd: Image | None = None
    """What became of `odd`; there need be none."""

    @property
    def source(self) -> Image | None:
        """What the picture of a result is made of: the exposure, or a half."""
        if self.denoised is not None:
            return self.noisy
        return self.even if self.denoised_even is not None else self.odd

    @property
    def made(self) -> Image | None:
        """What became of `source`."""
        if self.denoised is not None:
            return self.denoised
        return self.denoised_even if self.denoised_even is not None else self.denoised_odd


@dataclass(frozen=True, eq=False)
class Judgement:
    """What was found about `Images`."""

    halves: HalvesReport | None = None
    """By halves; None without them."""
    truth: TruthReport | None = None
    """By the truth; None without one."""
    agreement: Agreement | None = None
    """With truth and halves: both errors."""
    hallucination: dict[str, Hallucination] | None = None
    """Of the denoiser and of the best Gaussian; None where no denoiser is at hand."""
    denoised_noise: Image | None = None
    """What the denoiser made of pure noise."""


def judge(
    images: Images, *, direction: str = "auto", denoise: Callable[[np.ndarray], np.ndarray] | None = None
) -> Judgement:
    """Measure all that these images allow.

    Parameters
    ----------
    images
        Raw and denoised.
    direction
        Which half is denoised and judged by the other one: ``auto``, ``even``, ``odd`` or ``both``.
    denoise
        The denoiser, which is then given pure noise, too; None: what is judged was made elsewhere.
    """
    halves, truth, agreement = None, None, None
    if images.even is not None and images.odd is not None and images.denoised_even is not None:
        raw, made = (images.even, images.odd), (images.denoised_even, images.denoised_odd)
        wanted = choose_directions(*raw, wanted=direction, has_odd=made[1] is not None)
        halves = score_halves(raw, made, wanted)
        if images.clean is not None:
            agreement = check_agreement(raw, made, images.clean, halves)
    if images.noisy is not None and images.clean is not None and images.denoised is not None:
        truth = score_against_truth(images.noisy, images.clean, images.denoised)
    if denoise is None:
        return Judgement(halves, truth, agreement)
    by_truth = images.noisy is not None and images.clean is not None
    one, other = (images.noisy, images.clean) if by_truth else (images.even, images.odd)
    assert one is not None and other is not None and images.made is not None
    seen, noise = score_noise(one, other, images.made, denoise, other_is_truth=by_truth)
    return Judgement(halves, truth, agreement, seen, noise)
