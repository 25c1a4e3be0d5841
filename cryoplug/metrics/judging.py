"""Judge one image: by its truth, by the halves of its exposure, and by the denoiser's output for pure noise."""

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
from cryoplug.metrics.transformed import Transformed

Image = np.ndarray
LEAST_SIDE_PX = 32
"""Least side of an image in pixels; rings and fits say nothing about smaller images."""


@dataclass(eq=False)
class Images:
    """The available images of one micrograph or patch; all ``(y, x)``, of one shape and one grey scale."""

    noisy: Image | None = None
    """The whole exposure."""
    clean: Image | None = None
    """Its truth."""
    even: Image | None = None
    """The even half."""
    odd: Image | None = None
    """The odd half; there if `even` is."""
    denoised: Image | None = None
    """`noisy`, denoised."""
    denoised_even: Image | None = None
    """`even`, denoised."""
    denoised_odd: Image | None = None
    """`odd`, denoised; it may be missing."""

    @property
    def source(self) -> Image | None:
        """The raw image for the picture of a result: the exposure, or a half."""
        if self.denoised is not None:
            return self.noisy
        return self.even if self.denoised_even is not None else self.odd

    @property
    def made(self) -> Image | None:
        """`source`, denoised."""
        if self.denoised is not None:
            return self.denoised
        return self.denoised_even if self.denoised_even is not None else self.denoised_odd


@dataclass(frozen=True, eq=False)
class Judgement:
    """All figures for `Images`."""

    halves: HalvesReport | None = None
    """Figures by halves; None without halves."""
    truth: TruthReport | None = None
    """Figures by the truth; None without a truth."""
    agreement: Agreement | None = None
    """With both truth and halves: the estimated and the true error."""
    hallucination: dict[str, Hallucination] | None = None
    """Pure noise through the denoiser and the best Gaussian; None without a denoiser."""
    denoised_noise: Image | None = None
    """The output of the denoiser for pure noise."""


def judge(
    images: Images,
    *,
    direction: str = "auto",
    denoise: Callable[[np.ndarray], np.ndarray] | None = None,
    threads: int = 1,
) -> Judgement:
    """Measure all that these images allow.

    Parameters
    ----------
    images
        Raw and denoised.
    direction
        Which half is denoised and judged by the other one: ``auto``, ``even``, ``odd`` or ``both``.
    denoise
        The denoiser, to try it on pure noise; None if another program made the images.
    threads
        Threads that share the methods; each needs a few more copies of the image.
    """
    halves, truth, agreement = None, None, None
    by_truth = images.noisy is not None and images.clean is not None
    pair = _transformed(images.even, images.odd)
    if pair is not None and images.denoised_even is not None:
        raw, made = (pair[0].image, pair[1].image), (images.denoised_even, images.denoised_odd)
        wanted = choose_directions(*raw, wanted=direction, has_odd=made[1] is not None)
        halves = score_halves(pair, made, wanted, threads=threads)
        if images.clean is not None:
            agreement = check_agreement(raw, made, images.clean, halves)
    if by_truth:
        pair = _transformed(images.noisy, images.clean)
        if images.denoised is not None:
            assert pair is not None
            truth = score_against_truth(*pair, images.denoised, threads=threads)
    if denoise is None:
        return Judgement(halves, truth, agreement)
    assert pair is not None and images.made is not None
    gaussian = truth.gaussian if truth else halves.gaussians["even"] if halves and not by_truth else None
    seen, noise = score_noise(*pair, images.made, denoise, other_is_truth=by_truth, gaussian=gaussian)
    return Judgement(halves, truth, agreement, seen, noise)


def _transformed(one: Image | None, other: Image | None) -> tuple[Transformed, Transformed] | None:
    return None if one is None or other is None else (Transformed(one), Transformed(other))
