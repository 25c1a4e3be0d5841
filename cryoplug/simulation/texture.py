"""Textures without any shape: Gaussian random fields of a random spectrum, as frost on ice and the relief of carbon have.

Power that rises towards low frequencies is no sign of particles: many things in ice make it. A network learns this from fields
in which there is nothing else, and from fields in which there are particles, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from cryoplug.simulation.planes import FrequencyPlane

SLOPES, LONGEST_ANGSTROM = (0.0, 4.0), (100.0, 3000.0)
"""Usual ranges of `Spectrum.slope`, uniform, and of `Spectrum.longest_angstrom`, log-uniform."""


@dataclass(frozen=True)
class Spectrum:
    """Power by frequency of a texture."""

    slope: float = 2.0
    """The power falls as the frequency to the power of minus `slope`; 0: it is flat."""
    longest_angstrom: float = 500.0
    """At longer periods the power no longer rises."""
    blur_angstrom: float = 0.0
    """Rms of a Gaussian that blurs the texture."""
    bump_angstrom: float = 100.0
    """Period at which the power is raised."""
    bump_height: float = 0.0
    """By how much it is raised there, as a part of what it would be."""
    bump_width: float = 0.4
    """Width of the raised part, in natural logarithms of the frequency."""

    def density(self, plane: FrequencyPlane) -> torch.Tensor:
        """Give the power in the layout of the plane, without a scale."""
        frequency = plane.length.clamp_min(1e-6)
        power = (frequency**2 + self.longest_angstrom**-2) ** (-self.slope / 2)
        if self.blur_angstrom:
            power = power * torch.exp(-4 * math.pi**2 * self.blur_angstrom**2 * plane.squared)
        if self.bump_height:
            away = (frequency * self.bump_angstrom).log() / self.bump_width
            power = power * (1 + self.bump_height * torch.exp(-(away**2) / 2))
        return power


def random_spectrum(
    rng: np.random.Generator,
    *,
    slopes: tuple[float, float] = SLOPES,
    longest_angstrom: tuple[float, float] = LONGEST_ANGSTROM,
) -> Spectrum:
    """Draw a spectrum: from flat to steep, with or without a blur and a bump."""
    slope, longest = rng.uniform(*slopes), _log(rng, *longest_angstrom)
    blur = _log(rng, 2, 30) if rng.random() < 0.5 else 0.0
    height = _log(rng, 1, 30) if rng.random() < 0.4 else 0.0
    return Spectrum(slope, longest, blur, _log(rng, 25, 400), height, rng.uniform(0.2, 0.6))


def texture(spectrum: Spectrum, plane: FrequencyPlane, generator: torch.Generator) -> torch.Tensor:
    """Draw a texture ``(y, x)`` of mean 0 and rms 1; opposite borders join."""
    # Only its shape counts, and float32 cannot hold the square of the steepest ones.
    density = spectrum.density(plane)
    drawn = plane.back(plane.random_terms(density / density.max(), generator))
    return drawn / drawn.std().clamp_min(1e-30)


def _log(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
