"""The Fourier plane of an image on a device, and random fields of a given power spectrum."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class FrequencyPlane:
    """Frequencies of a real image ``(y, x)``, laid out as `torch.fft.rfft2` gives its transform."""

    shape: tuple[int, int]
    """Shape of the image in pixels, ``(y, x)``."""
    pixel_size_angstrom: float
    """Pixel size of the image in angstrom."""
    y: torch.Tensor
    """Frequencies along y in 1/angstrom, ``(y, 1)``."""
    x: torch.Tensor
    """Frequencies along x in 1/angstrom, ``(1, x // 2 + 1)``."""
    squared: torch.Tensor
    """Square of the length of the frequency vector, 1/angstrom^2, ``(y, x // 2 + 1)``."""

    @classmethod
    def of(cls, shape: tuple[int, int], pixel_size_angstrom: float, device: torch.device | str) -> FrequencyPlane:
        """Make the plane on a device, in float32."""
        y = torch.fft.fftfreq(shape[0], pixel_size_angstrom, device=device, dtype=torch.float32)[:, None]
        x = torch.fft.rfftfreq(shape[1], pixel_size_angstrom, device=device, dtype=torch.float32)[None, :]
        return cls(shape, pixel_size_angstrom, y, x, y**2 + x**2)

    @property
    def length(self) -> torch.Tensor:
        """Length of the frequency vector, 1/angstrom."""
        return self.squared.sqrt()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Transform images ``(..., y, x)``."""
        return torch.fft.rfft2(image)

    def back(self, terms: torch.Tensor) -> torch.Tensor:
        """Transform back to images ``(..., y, x)``."""
        return torch.fft.irfft2(terms, s=self.shape)

    def filtered(self, image: torch.Tensor, transfer: torch.Tensor) -> torch.Tensor:
        """Multiply the transform of an image by a real transfer function; opposite borders join."""
        return self.back(self.forward(image) * transfer)

    def random_terms(self, density: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Draw the transform of a Gaussian random field of mean 0.

        Parameters
        ----------
        density
            Power spectral density in units^2 * angstrom^2, in the layout of the plane. Its integral over all frequencies is
            the variance, so the field does not depend on the sampling.
        generator
            Random generator, on the plane's device.
        """
        device = self.squared.device
        white = torch.randn(self.shape, generator=generator, device=device)
        terms = self.forward(white) * (density.sqrt() / self.pixel_size_angstrom)
        terms[0, 0] = 0
        return terms


def gaussian_density(rms: float, length_angstrom: float, squared: torch.Tensor) -> torch.Tensor:
    """Give the power spectral density of a field whose amplitude falls like ``exp(-(length f)^2)``.

    Parameters
    ----------
    rms
        Standard deviation of the field over all frequencies.
    length_angstrom
        Its amplitude is 1/e at a frequency of 1/length.
    squared
        Squared frequencies, 1/angstrom^2.
    """
    at_zero = rms**2 * 2 * length_angstrom**2 / math.pi
    return at_zero * torch.exp(-2 * length_angstrom**2 * squared)
