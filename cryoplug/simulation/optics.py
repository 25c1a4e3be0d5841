"""The microscope: from projected potential to the intensity above the detector, as a weak phase object.

Sign convention: underfocus is positive, and the contrast transfer function at frequency 0 is minus the amplitude
contrast, so that density (positive phase) is dark on bright ground. No beam tilt, perfect coherence but for a B-factor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from cryoplug.simulation.planes import FrequencyPlane

_ELECTRON_REST_VOLT = 510_998.95
"""Rest energy of the electron divided by its charge, CODATA 2018."""
_PLANCK_TIMES_C_VOLT_ANGSTROM = 12_398.419_84
"""h * c / e, CODATA 2018."""


@dataclass(frozen=True)
class Optics:
    """The settings of the lens."""

    defocus_um: float
    """Mean defocus in micrometres; underfocus is positive."""
    voltage_kv: float = 300.0
    """Acceleration voltage in kilovolts."""
    spherical_aberration_mm: float = 2.7
    """Spherical aberration Cs in millimetres."""
    amplitude_contrast: float = 0.1
    """Fraction of the contrast that comes from lost electrons; 0 to below 1."""
    b_factor_angstrom2: float = 60.0
    """B-factor of the envelope ``exp(-B f^2 / 4)``, for all blur: motion, charging, energy spread."""
    astigmatism_angstrom: float = 0.0
    """Defocus along the first axis minus that along the second; 0 or more."""
    astigmatism_angle_deg: float = 0.0
    """Angle of the first axis, from the x axis towards the y axis, like ``rlnDefocusAngle``."""
    phase_shift_deg: float = 0.0
    """Phase shift of a phase plate, like ``rlnPhaseShift``; 0 without one."""

    @property
    def defocus_angstrom(self) -> tuple[float, float]:
        """Underfocus along the first and the second axis, like ``rlnDefocusU`` and ``rlnDefocusV``."""
        mean, half = self.defocus_um * 1e4, self.astigmatism_angstrom / 2
        return mean + half, mean - half


def electron_wavelength_angstrom(voltage_kv: float) -> float:
    """Return the relativistic de Broglie wavelength.

    ``lambda = h c / sqrt(eV (2 m c^2 + eV))``: Kirkland, Advanced Computing in Electron Microscopy (2010), chapter 2.
    0.0197 angstrom at 300 kV, 0.0251 at 200 kV.
    """
    volt = voltage_kv * 1e3
    return float(_PLANCK_TIMES_C_VOLT_ANGSTROM / np.sqrt(volt * (2 * _ELECTRON_REST_VOLT + volt)))


def interaction_constant(voltage_kv: float) -> float:
    """Return the phase, in radian, that one volt * angstrom of projected potential gives to the wave.

    ``sigma = 2 pi / (lambda V) * (m c^2 + eV) / (2 m c^2 + eV)``: Kirkland (2010), chapter 5.
    6.53e-4 at 300 kV.
    """
    volt = voltage_kv * 1e3
    relativity = (_ELECTRON_REST_VOLT + volt) / (2 * _ELECTRON_REST_VOLT + volt)
    return 2 * np.pi / (electron_wavelength_angstrom(voltage_kv) * volt) * relativity


def contrast_transfer_plane(plane: FrequencyPlane, optics: Optics, *, depth_angstrom: float = 0.0) -> torch.Tensor:
    """Return the contrast transfer function over a Fourier plane, with envelope and astigmatism.

    Parameters
    ----------
    plane
        The Fourier plane; the result is on its device.
    optics
        The lens.
    depth_angstrom
        Way of the beam from the plane of the given defocus to the object; its underfocus is larger by as much.

    Returns
    -------
    torch.Tensor
        In [-1, 1], laid out as the plane.
    """
    wavelength = electron_wavelength_angstrom(optics.voltage_kv)
    angle = np.deg2rad(2 * optics.astigmatism_angle_deg)
    # cos(2 (a - a0)) f^2 without an angle: (x^2 - y^2) cos 2 a0 + 2 x y sin 2 a0.
    along = (plane.x**2 - plane.y**2) * float(np.cos(angle)) + 2 * plane.x * plane.y * float(np.sin(angle))
    defocus = (optics.defocus_um * 1e4 + depth_angstrom) * plane.squared + optics.astigmatism_angstrom / 2 * along
    aberration = 0.5 * optics.spherical_aberration_mm * 1e7 * wavelength**2
    phase = np.pi * wavelength * (defocus - aberration * plane.squared**2)
    phase += float(np.arcsin(optics.amplitude_contrast) + np.deg2rad(optics.phase_shift_deg))
    return -phase.sin() * (plane.squared * (-optics.b_factor_angstrom2 / 4)).exp()
