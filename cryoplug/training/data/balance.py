"""How two halves relate: the ratios of their signals and of their noise after normalization.

Halves of equal dose are alike. But if one is a single frame and the other the mean of forty, their mixtures need weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cryoplug.metrics.rings import Rings, spectrum
from cryoplug.store.pairs import PairStore

MEASURED_PAIRS = 24
"""Pairs to measure: enough for half a percent with crops of 256, and quick with patches of 1024."""
_NOISE_FROM = 0.4
"""Frequency in cycles per pixel beyond which there is noise and next to no signal."""
_SIGNIFICANT = 5.0
"""Standard errors by which the common signal of unlike halves must exceed chance."""


@dataclass(frozen=True)
class Balance:
    """The numbers that `cryoplug.training.data.mixing` needs, all in the units of the odd half's pixels."""

    signal_ratio: float = 1.0
    """Amplitude of the signal in the even half over that in the odd half; above 0."""
    noise_ratio: float = 1.0
    """Variance of the even half's noise over that of the odd half's, after scaling both to equal signal; above 0."""
    mean_variance: float = 0.5
    """Variance of the weighted mean of the halves: signal and noise."""
    noise_variance: float = 0.5
    """Variance of the noise in that mean."""


def measure_balance(store: PairStore, indices: np.ndarray, *, alike: bool) -> Balance | None:
    """Measure some of the pairs, always the same ones.

    Let P be the spectrum of the signal, and let the noise N of both halves have the same colour. The powers of the z-scored
    halves are then ``E = a^2 P + v N`` and ``O = b^2 P + w N``, and their common power is ``C = a b P``. Near Nyquist, where P
    is nearly zero, E and O give ``r = v / w``. Then ``(E - r O) / C = x - r / x`` with ``x = a / b`` is fitted over all rings.

    Parameters
    ----------
    store
        Pairs of halves.
    indices
        The pairs for training.
    alike
        Whether the halves are known to have equal doses; then only variances are measured.

    Returns
    -------
    Balance or None
        None if the halves are not alike and share too little signal for a measurement.
    """
    chosen = indices[np.unique(np.linspace(0, len(indices) - 1, MEASURED_PAIRS).round().astype(int))]
    even, odd = (np.empty((1, *store.patch_shape), np.float32) for _ in range(2))
    rings = Rings.of(store.patch_shape)
    powers = np.zeros((3, len(rings.count)))
    for index in chosen:
        store.read([int(index)], even, odd)
        one, two = (spectrum(half[0], taper=True) for half in (even, odd))
        powers += [rings.cross(one, one), rings.cross(two, two), rings.cross(one, two)]
    e, o, c = powers / len(chosen)
    x, rho = 1.0, 1.0
    if not alike:
        if c.sum() <= _SIGNIFICANT * np.sqrt((e * o / rings.count).sum() / len(chosen)):
            return None
        x, rho = _ratios(e, o, c, rings)
    return _with_variances(e, o, c, x, rho)


def _ratios(
    e: npt.NDArray[np.float64], o: npt.NDArray[np.float64], c: npt.NDArray[np.float64], rings: Rings
) -> tuple[float, float]:
    outer = (rings.frequency >= _NOISE_FROM) & (rings.frequency <= 0.5)
    r = float(e[outer].sum() / o[outer].sum())
    inner = rings.frequency < _NOISE_FROM
    # Rings count by their common power: those with signal decide.
    weight = np.where(inner, np.maximum(c, 0.0), 0.0)
    q = float((weight * (e - r * o)).sum() / (weight * c).sum())
    x = (q + np.sqrt(q * q + 4 * r)) / 2
    return float(x), float(r / x**2)


def _with_variances(
    e: npt.NDArray[np.float64], o: npt.NDArray[np.float64], c: npt.NDArray[np.float64], x: float, rho: float
) -> Balance:
    # Of (even / x + rho odd) / (1 + rho), and of (even / x - odd) sqrt(rho) / (1 + rho).
    mean = (e / x**2 + 2 * rho * c / x + rho**2 * o) / (1 + rho) ** 2
    difference = (e / x**2 - 2 * c / x + o) * rho / (1 + rho) ** 2
    return Balance(x, rho, float(mean.sum()), float(difference.sum()))
