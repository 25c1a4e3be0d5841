"""How good a denoiser is without a truth: measured with the two halves of an exposure, whose noise is independent.

``Re = s + ne`` and ``Ro = s + no`` are the raw halves (even and odd), ``De = f(Re)`` and ``Do = f(Ro)`` the denoised ones.
``no`` is independent of ``Re``, so ``cov(De, Ro) = cov(De, s)`` and ``cov(Re, Ro) = var(s)``. Therefore the distance of De to
the unknown s follows from covariances alone (the argument of Noise2Noise, Lehtinen et al. 2018). Means do not count. Both
halves must show the signal at the same scale. De and Do are never judged by their correlation with each other: it rewards any
blur, and is 1 for a network that ignores its input.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cryoplug.errors import ShapeError
from cryoplug.metrics.pixel import Image
from cryoplug.metrics.rings import Curve, Rings, Spectrum, spectrum
from cryoplug.metrics.sums import means_and_covariances

PSNR_RANGE_SIGMAS = 6.0
"""Range for the PSNR without truth, in standard deviations of the signal, because its maximum and minimum are unknown."""

Value = float | np.float64 | Curve


@dataclass(frozen=True, eq=False)
class HalvesMoments:
    """Variances and covariances, from which all figures follow: numbers for a micrograph, or arrays over Fourier rings.

    All are in the square of the halves' unit. `input` is the half that was denoised, `judge` the other half.
    """

    signal: Value
    """``S = cov(Re, Ro)``, the variance of the unknown truth."""
    input_variance: Value
    """``var(Re)``."""
    judge_variance: Value
    """``var(Ro)``."""
    denoised_variance: Value
    """``var(De)``."""
    input_denoised: Value
    """``cov(Re, De)``; it contains noise, and is only used for the variance of the residual."""
    across: Value
    """``cov(De, Ro)``, which equals the covariance of De with the truth."""
    between: Value
    """``cov(De, Do)``; NaN if Do is not available."""

    def scaled(self, factor: float) -> HalvesMoments:
        """Give the moments if De and Do are multiplied by a factor."""
        return dataclasses.replace(
            self,
            denoised_variance=factor**2 * self.denoised_variance,
            input_denoised=factor * self.input_denoised,
            across=factor * self.across,
            between=factor**2 * self.between,
        )

    def without_other(self) -> HalvesMoments:
        """Give the moments as they are if Do is not available."""
        return dataclasses.replace(self, between=np.nan * self.between)

    @property
    def noise_left(self) -> Value:
        """``N = var(De) - cov(De, Do)``: variance in De that comes from the noise of its input.

        N and B by themselves assume equally noisy halves; their sum does not.
        """
        return self.denoised_variance - self.between

    @property
    def bias(self) -> Value:
        """``B = cov(De, Do) + S - 2 cov(De, Ro)``: mean square of the signal that the denoiser removes or adds."""
        return self.between + self.signal - 2 * self.across

    @property
    def error(self) -> Value:
        """``B + N = var(De) + S - 2 cov(De, Ro)``: mean squared error of De to the unknown truth."""
        return self.denoised_variance + self.signal - 2 * self.across

    @property
    def snr(self) -> Value:
        """``S / (B + N)``, signal-to-noise of De as it is; a ratio, NaN if an estimate is not above 0."""
        return _ratio(self.signal, self.error)

    @property
    def truth_correlation(self) -> Value:
        """``cov(De, Ro) / sqrt(var(De) S)``, the correlation of De with the unknown truth; by chance it may exceed 1.

        In rings and for equally noisy halves it is ``FRC(De, Ro) / sqrt(FRC(Re, Ro))``; it also holds for other halves.
        """
        return _over_root(self.across, self.denoised_variance, self.signal)

    @property
    def snr_fitted(self) -> Value:
        """``1 / (1 - r^2)`` with `truth_correlation` r: S over the error of the best ``a * De + b``; a ratio."""
        return _ratio(1.0, 1 - np.square(self.truth_correlation))

    @property
    def correlation(self) -> Value:
        """``corr(De, Ro)``; it needs no estimate of S, and so is the most stable measure."""
        return _over_root(self.across, self.denoised_variance, self.judge_variance)

    @property
    def raw_correlation(self) -> Value:
        """``corr(Re, Ro)``; in rings the FRC of the halves."""
        return _over_root(self.signal, self.input_variance, self.judge_variance)

    @property
    def correlation_multiple(self) -> Value:
        """``corr(De, Ro) / corr(Re, Ro)``."""
        return _ratio(self.correlation, self.raw_correlation)

    @property
    def residual_correlation(self) -> Value:
        """``corr(Re - De, Ro)``; above 0 signal was removed (the best linear filter also removes some if noise dominates)."""
        variance = self.input_variance + self.denoised_variance - 2 * self.input_denoised
        # An identity leaves nothing but rounding.
        variance = np.where(variance > 1e-9 * np.abs(self.input_variance), variance, np.nan)
        return _over_root(self.signal - self.across, variance, self.judge_variance)

    @property
    def signal_removed(self) -> Value:
        """``1 - cov(De, Ro) / S``: part of the signal that was removed; below 0 the signal was amplified."""
        return 1 - _ratio(self.across, self.signal)

    @property
    def psnr(self) -> Value:
        """``(6 sqrt(S))^2 / (B + N)``, a ratio; see `PSNR_RANGE_SIGMAS`."""
        return PSNR_RANGE_SIGMAS**2 * self.snr


@dataclass(frozen=True, eq=False)
class HalfImages:
    """The images of one direction of a comparison; all ``(y, x)``, of equal shape."""

    raw: Image
    """Re, the half that is denoised."""
    judge: Image
    """Ro, the other half, untouched."""
    denoised: Image
    """De, the denoised half."""
    other_denoised: Image | None = None
    """Do, the other denoised half; None if it is not available, and then `noise_left` and `bias` are NaN."""

    def __post_init__(self) -> None:
        """Refuse different shapes."""
        images = (self.raw, self.judge, self.denoised, self.other_denoised)
        shapes = [image.shape for image in images if image is not None]
        if len(set(shapes)) != 1 or len(shapes[0]) != 2 or 0 in shapes[0]:
            raise ShapeError(f"halves of shapes {shapes} (raw, judge, denoised ...); they must be (y, x) and equal")


def halves_moments(images: HalfImages) -> HalvesMoments:
    """Measure a whole micrograph.

    Returns
    -------
    HalvesMoments
        Each field is a number.
    """
    available = [images.raw, images.judge, images.denoised]
    if images.other_denoised is not None:
        available.append(images.other_denoised)
    _, found = means_and_covariances(*available)
    return HalvesMoments(
        signal=found[0, 1],
        input_variance=found[0, 0],
        judge_variance=found[1, 1],
        denoised_variance=found[2, 2],
        input_denoised=found[0, 2],
        across=found[2, 1],
        between=found[2, 3] if images.other_denoised is not None else np.float64(np.nan),
    )


@dataclass(frozen=True, eq=False)
class RingPowers:
    """What the raw halves of one direction have in each ring."""

    rings: Rings
    """The rings."""
    signal: Curve
    """Covariance of the halves."""
    input_variance: Curve
    """Variance of the half that is denoised."""
    judge_variance: Curve
    """Variance of the other half."""

    @classmethod
    def of(cls, raw: Spectrum, judge: Spectrum, rings: Rings) -> RingPowers:
        """Sum over the rings."""
        return cls(rings, rings.cross(raw, judge), rings.cross(raw, raw), rings.cross(judge, judge))

    @property
    def turned(self) -> RingPowers:
        """The other direction."""
        return RingPowers(self.rings, self.signal, self.judge_variance, self.input_variance)

    def of_identity(self) -> HalvesMoments:
        """Give the moments of halves that nothing denoised: De = Re and Do = Ro."""
        own, signal = self.input_variance, self.signal
        return HalvesMoments(signal, own, self.judge_variance, own, own, signal, signal)


def ring_moments(images: HalfImages, rings: Rings, *, taper: bool = True) -> HalvesMoments:
    """Measure each Fourier ring; without the taper, the sums over the rings equal `halves_moments` exactly.

    Parameters
    ----------
    images
        The images of one direction.
    rings
        Rings for their shape.
    taper
        See `cryoplug.metrics.rings.spectrum`.

    Returns
    -------
    HalvesMoments
        Each field is an array with one value for each ring.
    """
    raw, judge = spectrum(images.raw, taper=taper), spectrum(images.judge, taper=taper)
    other = None if images.other_denoised is None else spectrum(images.other_denoised, taper=taper)
    return ring_moments_of(RingPowers.of(raw, judge, rings), raw, judge, spectrum(images.denoised, taper=taper), other)


def ring_moments_of(
    known: RingPowers, raw: Spectrum, judge: Spectrum, denoised: Spectrum, other: Spectrum | None
) -> HalvesMoments:
    """Measure each Fourier ring, as `ring_moments`, from spectra with one taper; `other` is that of Do, if it is available."""
    cross = known.rings.cross
    return HalvesMoments(
        signal=known.signal,
        input_variance=known.input_variance,
        judge_variance=known.judge_variance,
        denoised_variance=cross(denoised, denoised),
        input_denoised=cross(raw, denoised),
        across=cross(denoised, judge),
        between=np.full(len(known.signal), np.nan) if other is None else cross(denoised, other),
    )


def mean_moments(moments: Sequence[HalvesMoments]) -> HalvesMoments:
    """Average moments field by field: of both directions of one micrograph, or of micrographs of one shape."""
    names = [item.name for item in dataclasses.fields(HalvesMoments)]
    return HalvesMoments(**{name: np.mean([getattr(item, name) for item in moments], axis=0) for name in names})


def _ratio(above: Value, below: Value) -> Value:
    """Divide if both are above 0; if the upper one may have any sign, only the lower one must be."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.asarray(below) > 0, np.divide(above, below), np.nan)[()]


def _over_root(above: Value, one: Value, two: Value) -> Value:
    scale = np.sqrt(np.maximum(one, 0) * np.maximum(two, 0))
    return _ratio(above, scale)
