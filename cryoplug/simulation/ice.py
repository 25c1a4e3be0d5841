"""Vitreous ice: its uneven thickness, and the grain that makes Thon rings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from cryoplug.simulation.planes import FrequencyPlane, gaussian_density


@dataclass(frozen=True)
class Ice:
    """The ice of one field."""

    thickness_angstrom: float = 350.0
    """Mean thickness."""
    slope: float = 0.15
    """Slope: how much thicker or thinner the ice is at the borders, as a part of the mean."""
    slope_angle_rad: float = 0.0
    """Direction in which the thickness grows, from the x axis towards the y axis."""
    bend: float = 0.0
    """Meniscus of a hole: how much thicker the ice is in the corners than in the middle, as a part of the mean."""
    texture: float = 0.04
    """Rms of the uneven thickness, as a part of the mean."""
    texture_length_angstrom: float = 400.0
    """Smallest length in the uneven thickness."""
    grain_rad: float = 0.012
    """Rms phase of the grain; a fraction of that of still water, because water moves under the beam."""
    grain_length_angstrom: float = 7.0
    """Length of the grain: its spectrum is nearly flat, and falls to 1/e at 1/length."""
    mean_free_path_angstrom: float = 3000.0
    """Thickness through which 1/e of the electrons pass unscattered and unfiltered; about right at 300 kV."""


def grain_terms(ice: Ice, plane: FrequencyPlane, generator: torch.Generator) -> torch.Tensor:
    """Draw the Fourier transform of the phase of the grain, in radian."""
    return plane.random_terms(gaussian_density(ice.grain_rad, ice.grain_length_angstrom, plane.squared), generator)


def ice_thickness_map(ice: Ice, plane: FrequencyPlane, generator: torch.Generator) -> torch.Tensor:
    """Draw the thickness ``(y, x)`` in angstrom: slope, bend and a soft texture; nowhere below a tenth of the mean."""
    height, width = plane.shape
    device = plane.squared.device
    y = torch.linspace(-1, 1, height, device=device)[:, None]
    x = torch.linspace(-1, 1, width, device=device)[None, :]
    relative = 1 + ice.slope * (math.sin(ice.slope_angle_rad) * y + math.cos(ice.slope_angle_rad) * x) / math.sqrt(2)
    relative = relative + ice.bend * ((y**2 + x**2) / 2 - 1 / 3)
    # Falling as 1/f above a tenth of the length, as drops and terraces do; the rms is set by what was drawn.
    length = ice.texture_length_angstrom
    density = torch.exp(-2 * length**2 * plane.squared) / (plane.length + 0.1 / length) ** 2
    texture = plane.back(plane.random_terms(density, generator))
    relative = relative + texture * (ice.texture / texture.std().clamp_min(1e-30))
    return ice.thickness_angstrom * relative.clamp_min(0.1)
