"""The contrast transfer function along one axis, written down once more: what `cryoplug.simulation.optics` is tested against."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cryoplug.simulation.optics import Optics, electron_wavelength_angstrom

FloatArray = npt.NDArray[np.float64]


def contrast_transfer(frequency: FloatArray, optics: Optics) -> FloatArray:
    """Return the contrast transfer function without its envelope.

    ``CTF(f) = -sin(pi lambda dz f^2 - pi/2 Cs lambda^3 f^4 + arcsin(A))``: Rohou and Grigorieff 2015
    (CTFFIND4), for the mean defocus. A phase plate adds its shift to the angle. ``CTF(0) = -A`` without one.

    Parameters
    ----------
    frequency
        1/angstrom, any shape.
    optics
        The lens.

    Returns
    -------
    ndarray
        In [-1, 1], the shape of `frequency`.
    """
    wavelength = electron_wavelength_angstrom(optics.voltage_kv)
    squared = np.asarray(frequency, np.float64) ** 2
    defocus, aberration = optics.defocus_um * 1e4, optics.spherical_aberration_mm * 1e7
    phase = np.pi * wavelength * squared * (defocus - 0.5 * aberration * wavelength**2 * squared)
    return -np.sin(phase + np.arcsin(optics.amplitude_contrast) + np.deg2rad(optics.phase_shift_deg))
