"""The spectrum of the noise in a single micrograph: a law fitted at frequencies without signal, and continued to lower ones.

At high spatial frequencies a micrograph is noise alone; at low ones, where the particles are, signal and noise overlap. But
a camera's noise is correlated only over short distances: by the blur of its pixels, the interpolation of moved frames, or a
Fourier crop. So its spectrum is smooth, an even function of the frequency f, and flat at 0. A law with few terms is fitted
where there is next to no signal, and predicts the rest of the spectrum. There are two kinds of laws.
``log(power) = sum of c_k f^(2 k)`` has few terms for a blur like a Gaussian. ``power = sum of c_r J0(2 pi f r)`` has few
terms for noise that is correlated over distances r of a pixel or two. The difference between the two shows how far to trust
them. Counted electrons need no fit: their noise is white, with a variance equal to their mean. No such law can predict a long
tail of the camera's blur; docs/decisions/0027 has figures.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cryoplug.metrics.rings import Curve

LAW_FREQUENCY: Curve = np.linspace(0, 0.5, 129)
"""Frequencies of a law's values, in cycles per pixel."""
STEP = 1.0 / 128
"""Cycles per pixel from one value of a `NoiseLaw` on a grid to the next."""
POINTS = 92
"""Values from frequency 0 into the corners, 0.7109 cycles per pixel."""
TRUSTED_DB = 0.5
"""Largest uncertainty, at the particles' frequencies, of a trusted law. Twice as much costs a network about 0.3 dB."""
JUDGED_FROM, JUDGED_TO = 0.01, 0.08
"""Frequencies where particles are, and where a law is judged, in cycles per pixel of the network's grid."""
SIGNAL_TO_ANGSTROM = 8.7
"""Resolution in angstrom up to which signal is expected: 0.3 cycles per pixel at 2.6 angstrom."""
REACHES = (0.0, 1.0, math.sqrt(2), 2.0, math.sqrt(5), math.sqrt(8))
"""Distances in pixels over which noise may be correlated, shortest first."""
_FIT_FROM = (0.2, 0.25, 0.3, 0.35, 0.4)
_FIT_TO = 0.48
_RIVAL_DB = 0.05
_TERM_DB = 0.03
"""Least gain in certainty, in decibel, for which another term is added."""
_MODEL_DB = 0.03
"""A law must fit to within this many decibels and three standard errors; smooth signal of 0.7 % of the noise passes."""
_TOUCHING_DB = 0.7
_FEW_TERMS = 20_000
"""With fewer terms, less than some 300 x 300 pixels, chance alone makes the spectrum look filtered."""
_TOO_SMALL = "it is too small: its pixels are too few to tell noise from signal"
_OUTLIER_SIGMAS = 10.0
_COUNTED_DB = 0.2
"""Tolerance in decibel between counted electrons' noise and Poisson's law; coincidence loss and a gain of 1.05 fit in."""


@dataclass(frozen=True, eq=False)
class BlockSpectrum:
    """Mean power spectrum of the blocks of a micrograph, ring by ring."""

    frequency: Curve
    """Frequencies in cycles per pixel, from 0 to 0.5."""
    power: Curve
    """Power, as the variance that white noise of this power would have."""
    terms: Curve
    """Independent Fourier terms in each value; its relative standard error is one over their square root."""


@dataclass(frozen=True, eq=False)
class NoiseLaw:
    """The noise of one micrograph, on its own grid."""

    power: Curve
    """Power at `LAW_FREQUENCY`, as the variance that white noise of this power would have; above 0."""
    source: str
    """``counts``: pixels are counted electrons; ``spectrum``: fitted beyond the signal."""
    uncertainty_db: float
    """Uncertainty of the power where it is needed: how far laws with other terms, ranges and kinds differ."""
    problem: str = ""
    """Why the law cannot be trusted; empty if it can."""

    def at(self, frequency: Curve) -> Curve:
        """Give the power; beyond 0.5 cycles per pixel, that at 0.5."""
        return np.interp(frequency, LAW_FREQUENCY, self.power)


def block_spectrum(blocks: Iterable[np.ndarray], *, shape: tuple[int, int]) -> BlockSpectrum:
    """Average the power of blocks; each is taken minus its mean, and faded out towards its borders.

    Blocks with gold, carbon, a gap of the detector or a hot pixel do not count: those whose power beyond 0.35 cycles per pixel
    is more than 1.5 times the median, or less than two thirds of it.

    Parameters
    ----------
    blocks
        Square, of one even side, finite.
    shape
        ``(y, x)`` of the micrograph that they were cut from; they may overlap.
    """
    found = np.stack([_rings(block) for block in blocks])
    count, side = found.shape[0], 2 * (found.shape[1] - 1)
    frequency = np.arange(found.shape[1]) / side
    level = found[:, frequency >= 0.35].mean(axis=1)
    middle = float(np.median(level))
    kept = (level > middle / 1.5) & (level < 1.5 * middle) if middle > 0 else np.ones(count, bool)
    # Fading leaves a quarter of the independent terms of a block; blocks that overlap by half add up as if they lay apart.
    pixels = min(shape[0] * shape[1], count * side * side / 4)
    # A ring of all of Fourier space has 2 pi f of its terms per unit of f; half of them are independent.
    terms = np.pi * np.maximum(frequency, 0.5 / side) / side * pixels * kept.mean()
    return BlockSpectrum(frequency, found[kept].mean(axis=0), terms)


def fit_noise_law(
    spectrum: BlockSpectrum,
    *,
    pixel_size_angstrom: float | None,
    judged: tuple[float, float] = (JUDGED_FROM, JUDGED_TO),
) -> NoiseLaw:
    """Fit a law beyond the signal.

    Usually several laws fit. The chosen one changes least, where it is needed, if it gets one more term or is fitted to a
    smaller part of the spectrum.

    Parameters
    ----------
    spectrum
        Spectrum of the micrograph on its own grid.
    pixel_size_angstrom
        Pixel size of that grid; signal is expected up to 1/8.7 per angstrom. None expects it up to 0.3 cycles per pixel.
    judged
        Range, in cycles per pixel of that grid, in which the law is needed.
    """
    first = 0.3 if pixel_size_angstrom is None else pixel_size_angstrom / SIGNAL_TO_ANGSTROM
    starts = [start for start in _FIT_FROM if start >= first - 1e-9]
    low = np.linspace(*judged, 8)
    found = [item for kind in (_EVEN_POWERS, _SHORT_REACH) if (item := _best(spectrum, kind, starts, low)) is not None]
    if not found:
        problem = "no smooth law fits its spectrum beyond the signal: it was filtered, padded or scaled up"
        if _is_too_small(spectrum):
            problem = _TOO_SMALL
        if not starts:
            problem = (
                f"pixels of {pixel_size_angstrom:.3g} angstrom show signal up to their highest frequency, and nowhere the noise "
                "alone; start from finer pixels (--angpix crops afterwards)"
            )
        level = float(spectrum.power[spectrum.frequency >= _FIT_FROM[-1]].mean())
        return NoiseLaw(np.full_like(LAW_FREQUENCY, level), "spectrum", math.inf, problem)
    best = min(found, key=lambda item: item.uncertainty + _natural(_TERM_DB) * len(item.law))
    apart = max(float(np.abs(np.log(item.low / best.low)).max()) for item in found)
    uncertainty = _decibel(max(best.uncertainty, apart) if len(found) == 2 else math.inf)
    power = best.kind(LAW_FREQUENCY, best.law)
    problem = _problem(spectrum, power, uncertainty, judged, first)
    return NoiseLaw(power, "spectrum", uncertainty, _TOO_SMALL if problem and _is_too_small(spectrum) else problem)


def counted_law(spectrum: BlockSpectrum, *, mean: float, whole_numbers: bool) -> NoiseLaw | None:
    """Give the noise of counted electrons: white, with a variance equal to their mean.

    Parameters
    ----------
    spectrum
        Spectrum of the pixels as they are in the file.
    mean
        Mean of those pixels.
    whole_numbers
        Whether all examined pixels are whole numbers from 0 up.

    Returns
    -------
    NoiseLaw or None
        None if the pixels are not counts: not whole numbers, or noise of another strength or colour.
    """
    high = (spectrum.frequency >= 0.35) & (spectrum.frequency <= _FIT_TO)
    if not whole_numbers or mean <= 0:
        return None
    excess: Curve = 10 * np.log10(spectrum.power[high] / mean)
    smooth = np.convolve(excess, np.ones(8) / 8, mode="valid") if excess.size >= 8 else excess
    if not np.abs(smooth).max() < _COUNTED_DB:
        return None
    level = mean * math.exp(_natural(float(excess.mean())))
    return NoiseLaw(np.full_like(LAW_FREQUENCY, level), "counts", float(np.abs(excess.mean())))


def block_side(shape: tuple[int, int]) -> int:
    """Choose the side of blocks in pixels: 512, or less for small micrographs; 0 if even 128 is too large."""
    return next((side for side, least in ((512, 2048), (256, 512), (128, 128)) if min(shape) >= least), 0)


def without_outliers(block: np.ndarray) -> npt.NDArray[np.float64]:
    """Limit outliers to `_OUTLIER_SIGMAS`, because a single hot pixel can have as much power as all the noise."""
    pixels = np.asarray(block, np.float64)
    low, middle, high = np.quantile(pixels, (0.25, 0.5, 0.75))
    limit = _OUTLIER_SIGMAS * ((high - low) / 1.349 or float(pixels.std()))
    return np.clip(pixels, middle - limit, middle + limit)


def _rings(block: np.ndarray) -> Curve:
    side = block.shape[0]
    window = np.hanning(side + 1)[:side]
    taper = window[:, None] * window[None]
    pixels = without_outliers(block)
    faded = (pixels - (pixels * taper).sum() / taper.sum()) * taper
    terms = np.fft.rfft2(faded)
    power = (terms.real**2 + terms.imag**2) / (taper**2).sum()
    ring = np.rint(np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]) * side).astype(int)
    twice = np.full(power.shape, 2.0)
    twice[:, [0, -1]] = 1
    sums, counts = (np.bincount(ring.ravel(), (twice * part).ravel())[: side // 2 + 1] for part in (power, 1.0))
    return sums / counts


@dataclass(frozen=True)
class _Kind:
    """A kind of law; it is linear in its coefficients."""

    columns: Callable[[Curve, int], np.ndarray]
    logarithmic: bool
    most: int

    def __call__(self, frequency: Curve, law: Curve) -> Curve:
        values = self.columns(np.asarray(frequency), len(law)) @ law
        return np.exp(np.minimum(values, 700.0)) if self.logarithmic else values


def _even_powers(frequency: Curve, count: int) -> np.ndarray:
    return frequency[:, None] ** (2 * np.arange(count))


def _waves(frequency: Curve, count: int) -> np.ndarray:
    """Give ``J0(2 pi f r)`` (the mean of a wave over all directions) for the first `count` of `REACHES`, one in each column."""
    angles = (np.arange(32) + 0.5) / 64 * np.pi
    phases = frequency[:, None, None] * np.array(REACHES[:count])[:, None] * np.sin(angles)
    return np.cos(2 * np.pi * phases).mean(axis=-1)


_EVEN_POWERS = _Kind(_even_powers, True, 4)
_SHORT_REACH = _Kind(_waves, False, len(REACHES) - 1)


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A law with a certain number of terms, fitted from a certain frequency on."""

    kind: _Kind
    law: Curve
    low: Curve
    """Power of the law at the frequencies where it is needed."""
    uncertainty: float
    """Uncertainty of the logarithm of `low`."""


def _best(spectrum: BlockSpectrum, kind: _Kind, starts: list[float], low: Curve) -> _Candidate | None:
    """Choose the law that fits, and changes least with one more term or a smaller part of the spectrum."""
    fitting = []
    for place in range(len(starts)):
        for count in range(1, kind.most + 1):
            law, covariance, fits = _fit(spectrum, kind, starts[place], count)
            power = kind(low, law)
            if not (fits and (kind(LAW_FREQUENCY, law) > 0).all()):
                continue
            others = [_fit(spectrum, kind, starts[place], count + 1)[0]]
            others += [_fit(spectrum, kind, start, count)[0] for start in starts[place + 1 : place + 2]]
            with np.errstate(over="ignore"):  # a law that is off by so much is refused
                spread = max(float(np.abs(kind(low, other) / power - 1).max()) for other in others)
            columns = kind.columns(low, count) / (1.0 if kind.logarithmic else power[:, None])
            chance = float(np.sqrt(np.einsum("ij,jk,ik->i", columns, covariance, columns)).max())
            fitting.append(_Candidate(kind, law, power, math.hypot(spread, chance) + _natural(_TERM_DB) * count))
    if not fitting:
        return None
    best = min(fitting, key=lambda item: item.uncertainty)
    # What nearly as good ones say counts, too: the smallest of many differences is small by chance.
    rivals = [item for item in fitting if item.uncertainty <= best.uncertainty + _natural(_RIVAL_DB)]
    spread = max(float(np.abs(np.log(item.low / best.low)).max()) for item in rivals)
    return dataclasses.replace(best, uncertainty=max(best.uncertainty - _natural(_TERM_DB) * len(best.law), spread))


def _fit(spectrum: BlockSpectrum, kind: _Kind, start: float, count: int) -> tuple[Curve, np.ndarray, bool]:
    """Fit by least squares of the relative residual; give coefficients, their covariance, and whether the fit is good."""
    used = (spectrum.frequency >= start) & (spectrum.frequency <= _FIT_TO)
    power, terms = np.maximum(spectrum.power[used], 1e-30 * float(spectrum.power.max())), spectrum.terms[used]
    values = np.log(power) if kind.logarithmic else power
    weight = terms if kind.logarithmic else terms / power**2
    columns = kind.columns(spectrum.frequency[used], count)
    covariance = np.linalg.pinv((columns * weight[:, None]).T @ columns)
    law = covariance @ ((columns * weight[:, None]).T @ values)
    residual = power / np.maximum(kind(spectrum.frequency[used], law), 1e-300) - 1
    fits = all(
        abs(float((part * share).sum() / share.sum())) <= _natural(_MODEL_DB) + 3.0 / math.sqrt(float(share.sum()))
        for part, share in zip(np.array_split(residual, 6), np.array_split(terms, 6), strict=True)
    )
    return law, covariance, fits


def _problem(
    spectrum: BlockSpectrum, power: Curve, uncertainty_db: float, judged: tuple[float, float], first: float
) -> str:
    # From 8.7 to 6.5 angstrom there is a little signal at most: the spectrum must come down to the law.
    touching = (spectrum.frequency >= first) & (spectrum.frequency <= min(1.34 * first, _FIT_TO))
    over = spectrum.power[touching] / np.interp(spectrum.frequency[touching], LAW_FREQUENCY, power)
    if (above := 10 * math.log10(max(float(over.mean()), 1e-30))) > _TOUCHING_DB:
        return f"its spectrum is {above:.2g} dB above the noise where hardly any signal can be: it was weighted or filtered"
    inside = (spectrum.frequency >= judged[0]) & (spectrum.frequency <= judged[1])
    if inside.any():
        noise = np.interp(spectrum.frequency[inside], LAW_FREQUENCY, power)
        excess = np.log(noise / np.maximum(spectrum.power[inside], 1e-300))
        error = 1 / np.sqrt(spectrum.terms[inside])
        if (below := float((excess - 3 * error).max())) > _natural(TRUSTED_DB):
            return f"its spectrum lies up to {_decibel(below):.2g} dB below what its noise must have: it was filtered"
    return unsure(uncertainty_db) if uncertainty_db > TRUSTED_DB else ""


def _is_too_small(spectrum: BlockSpectrum) -> bool:
    return float(spectrum.terms.sum()) < _FEW_TERMS


def unsure(uncertainty_db: float) -> str:
    """Give the problem of a law that is only too uncertain."""
    known = (
        f"known to {uncertainty_db:.2g} dB (allowed: {TRUSTED_DB:g})" if math.isfinite(uncertainty_db) else "not known"
    )
    return f"its noise at low frequencies is {known}: the spectrum beyond the signal does not show how it continues"


def _decibel(natural: float) -> float:
    return natural * 10 / math.log(10)


def _natural(decibel: float) -> float:
    return decibel * math.log(10) / 10
