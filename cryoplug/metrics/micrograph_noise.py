"""The noise of one stored micrograph: everything that training needs to draw more of it, and its record in the manifest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cryoplug.errors import FormatError
from cryoplug.metrics.noise_power import POINTS, STEP, NoiseLaw
from cryoplug.metrics.noise_shape import MOST_SKEWNESS, MOST_SLOPE, OVERSAMPLING, NoiseShape

SOURCES = ("counts", "spectrum", "ice")
"""Sources as in `NoiseLaw`; ``ice``: a law corrected or confirmed by places without particles (`metrics.noise_in_ice`)."""
_DIGITS = 6
_NUMBERS = {
    "skewness": (-MOST_SKEWNESS, MOST_SKEWNESS),
    "slope": (-MOST_SLOPE, MOST_SLOPE),
    "oversampling": (1.0, OVERSAMPLING),
}


@dataclass(frozen=True)
class MicrographNoise:
    """Noise in the units of the stored, normalised pixels."""

    power: tuple[float, ...]
    """Power at 0, `STEP`, 2 `STEP`, ... cycles per pixel, as the variance of such white noise; `POINTS` values."""
    shape: NoiseShape
    """Skewness, and growth with the local mean."""
    source: str
    """How it was measured: one of `SOURCES`."""
    uncertainty_db: float | None
    """Uncertainty of the power at the frequencies of particles; None if unknown."""
    problem: str = ""
    """Why it cannot be trusted; empty if it can."""

    @classmethod
    def of(cls, law: NoiseLaw, *, part: float, scale: float, shape: NoiseShape | None = None) -> MicrographNoise:
        """Bring a law to the network's grid and units.

        Parameters
        ----------
        law
            Law on the micrograph's own grid, in its own units.
        part
            Side of the network's grid over that of the micrograph's own, in pixels: 1, or less after a Fourier crop.
        scale
            Number by which the pixels were divided.
        shape
            Third-order properties; None for noise that is not skewed and equal everywhere.
        """
        frequency = np.arange(POINTS, dtype=np.float64) * STEP * part
        power = law.at(frequency) * (part / scale) ** 2
        uncertainty = law.uncertainty_db if math.isfinite(law.uncertainty_db) else None
        digits = tuple(float(f"{value:.{_DIGITS}g}") for value in power)
        return cls(digits, shape or NoiseShape(0.0, 0.0), law.source, uncertainty, law.problem)

    @property
    def trusted(self) -> bool:
        """Whether no problem was found."""
        return not self.problem

    @property
    def variance(self) -> float:
        """Variance of the noise in a pixel: the mean of the power over the whole of Fourier space."""
        side = np.fft.fftfreq(64)
        frequency = np.hypot(side[:, None], side[None])
        return float(np.interp(frequency, np.arange(POINTS) * STEP, self.power).mean())

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON types; `from_dict` reads them back."""
        numbers = {name: float(f"{getattr(self.shape, name):.{_DIGITS}g}") for name in _NUMBERS}
        return {
            "source": self.source,
            "trusted": self.trusted,
            "uncertainty_db": None if self.uncertainty_db is None else round(self.uncertainty_db, 3),
            "problem": self.problem,
            **numbers,
            "step": STEP,
            "power": list(self.power),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> MicrographNoise:
        """Read what `to_dict` wrote.

        Raises
        ------
        FormatError
            A field is missing or out of range.
        """
        power, source = record.get("power"), record.get("source")
        fine = isinstance(power, list) and len(power) == POINTS and record.get("step") == STEP
        if not (fine and isinstance(power, list) and all(_is_number(value) and 0 < value < 1e12 for value in power)):
            raise FormatError(
                f"noise: power is not a list of {POINTS} numbers above 0, {STEP:g} cycles per pixel apart; convert again"
            )
        if source not in SOURCES:
            raise FormatError(f"noise: source {str(source)[:40]!r}; allowed: {', '.join(SOURCES)}; convert again")
        for name, (low, high) in _NUMBERS.items():
            if not (_is_number(record.get(name)) and low <= record[name] <= high):
                raise FormatError(
                    f"noise: {name} is {str(record.get(name))[:40]}; allowed: {low:g} to {high:g}; convert again"
                )
        uncertainty, problem = record.get("uncertainty_db"), record.get("problem")
        if not (uncertainty is None or _is_number(uncertainty)) or not isinstance(problem, str):
            raise FormatError("noise: uncertainty_db is not a number, or problem is not a text; convert again")
        shape = NoiseShape(*(float(record[name]) for name in _NUMBERS))
        return cls(
            tuple(map(float, power)), shape, source, None if uncertainty is None else float(uncertainty), problem
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
