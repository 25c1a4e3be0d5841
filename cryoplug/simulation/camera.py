"""The camera: its blur of the signal, the colour of its noise, and its faults.

The place where an electron is counted is uncertain by about a pixel; this blurs the expected image (the MTF). In a counting
camera each count stays in one pixel, so its noise is white, whatever the MTF. An integrating camera blurs the noise, too. All
curves are functions of cycles per pixel *of the camera*; an image that was Fourier-cropped to larger pixels shows only the
beginning of each curve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from cryoplug.simulation.planes import FrequencyPlane
from cryoplug.simulation.poisson import draw_poisson

LEAST_SKEW = 0.02
"""Smallest skewness that is drawn; below it the noise is Gaussian, because float32 cannot hold counts of such small bunches."""


@dataclass(frozen=True)
class Camera:
    """A camera, and what was done to its frames before they were summed."""

    pixel_size_angstrom: float | None = None
    """Pixel size of the camera; None for that of the image. If it is smaller, the image was Fourier-cropped."""
    mtf_at_nyquist: float = 0.45
    """Modulation transfer at half a cycle per pixel; above 0, at most 0.6366, the value of a perfect square pixel."""
    noise_blur: float = 0.0
    """Part of the noise power that passed through the MTF: 0 for counting electrons, 1 for integrating their charge."""
    coincidence: float = 0.0
    """Part of the noise power that is missing at low frequencies, because electrons that arrive together count once."""
    interpolated: float = 0.0
    """Part of the frames that were shifted by bilinear interpolation, which blurs signal and noise; 0 to 1."""
    ripple: tuple[float, ...] = ()
    """Smooth deviations of the noise power from these laws: ``sum of ripple[k] cos(2 pi (k + 1) s)`` is added to its
    logarithm, with s in cycles per pixel of the image."""
    skew: float = 1.0
    """Skewness of the noise relative to that of counted electrons. 1: counted electrons; more: their charges differ; 0:
    Gaussian; below 0 the tail points to few electrons."""
    gain_error: float = 0.0
    """Rms error of the gain reference, as a part of the counts."""
    hot_pixels: float = 0.0
    """Part of the pixels that are hot."""
    dead_pixels: float = 0.0
    """Part of the pixels that count nothing."""

    def cycles(self, frequency: torch.Tensor, plane: FrequencyPlane) -> torch.Tensor:
        """Turn 1/angstrom into cycles per pixel of the camera."""
        return frequency * (self.pixel_size_angstrom or plane.pixel_size_angstrom)

    def modulation_transfer(self, cycles: torch.Tensor) -> torch.Tensor:
        """Return the MTF: the sinc of a square pixel times a Gaussian; 1 at 0, `mtf_at_nyquist` at 0.5."""
        fall = math.log(2 / math.pi / self.mtf_at_nyquist) / 0.25
        return torch.sinc(cycles) * torch.exp(-fall * cycles**2)

    def signal_transfer(self, plane: FrequencyPlane) -> torch.Tensor:
        """Return the factor for the expected image in Fourier space."""
        transfer = self.modulation_transfer(self.cycles(plane.length, plane))
        if self.interpolated:
            for axis in (plane.y, plane.x):
                # The mean over all shifts t of (1 - t) + t exp(2 pi i s), brought back by t, is sinc(s)^2.
                shifted = torch.sinc(self.cycles(axis, plane)) ** 2
                transfer = transfer * (1 - self.interpolated + self.interpolated * shifted)
        return transfer

    def noise_power(self, plane: FrequencyPlane) -> torch.Tensor:
        """Return the power of the noise, relative to that of white noise with the same number of electrons."""
        cycles = self.cycles(plane.length, plane)
        power = 1 - self.noise_blur + self.noise_blur * self.modulation_transfer(cycles) ** 2
        if self.coincidence:
            power = power * (1 - self.coincidence * torch.exp(-((cycles / 0.15) ** 2)))
        if self.interpolated:
            for axis in (plane.y, plane.x):
                # The mean over all shifts t of |(1 - t) + t exp(2 pi i s)|^2.
                shifted = 1 - (1 - torch.cos(2 * math.pi * self.cycles(axis, plane))) / 3
                power = power * (1 - self.interpolated + self.interpolated * shifted)
        turn = 2 * math.pi * plane.pixel_size_angstrom * plane.length if self.ripple else plane.squared
        for order, height in enumerate(self.ripple, 1):
            power = power * torch.exp(height * torch.cos(order * turn))
        return power


def count_electrons(expected: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Count electrons: Poisson with this expectation, 0 or more, whole numbers in float32."""
    return draw_poisson(expected, generator)


def skewed_electrons(expected: torch.Tensor, skew: float, generator: torch.Generator) -> torch.Tensor:
    """Draw noise with the variance of counted electrons and `skew` times their skewness.

    Electrons that arrive in bunches of g have g times the variance and, scaled back, root g times the skewness.
    """
    bunch = skew**2
    events = draw_poisson(expected / bunch, generator)
    return expected + math.copysign(1, skew) * (bunch * events - expected) / abs(skew)


def recorded(
    expected: torch.Tensor, camera: Camera, plane: FrequencyPlane, generator: torch.Generator, *, counted: bool = True
) -> torch.Tensor:
    """Record one exposure.

    Parameters
    ----------
    expected
        Counts per pixel ``(y, x)``, signal transfer included, 0 or more.
    camera
        Colour of the noise and faults.
    plane
        The Fourier plane of the image.
    generator
        Random generator, on the device of `expected`.
    counted
        Whether to draw the camera's counts; else Gaussian noise of the same variance, which is faster.

    Returns
    -------
    torch.Tensor
        Whole counts if the camera's noise is white and it has no faults.
    """
    if counted and camera.skew == 1:
        image = count_electrons(expected, generator)
    elif counted and abs(camera.skew) > LEAST_SKEW:
        image = skewed_electrons(expected, camera.skew, generator)
    else:
        image = expected + expected.sqrt() * torch.randn(plane.shape, generator=generator, device=expected.device)
    if camera.noise_blur or camera.coincidence or camera.interpolated or camera.ripple:
        image = expected + plane.filtered(image - expected, camera.noise_power(plane).sqrt())
    if camera.gain_error:
        # Half of it in whole columns, as read-out channels make it.
        pattern = torch.randn(plane.shape, generator=generator, device=expected.device)
        columns = torch.randn((1, plane.shape[1]), generator=generator, device=expected.device)
        image = image + expected * (camera.gain_error * (0.97 * pattern + 0.24 * columns))
    if camera.hot_pixels:
        count = max(1, round(camera.hot_pixels * expected.numel()))
        where = torch.randint(expected.numel(), (count,), generator=generator, device=expected.device)
        height = torch.rand((count,), generator=generator, device=expected.device)
        # From ten times the noise up, over three decades.
        image.view(-1)[where] += 10 * expected.mean().clamp_min(1).sqrt() * 10 ** (3 * height)
    if camera.dead_pixels:
        count = max(1, round(camera.dead_pixels * expected.numel()))
        image.view(-1)[torch.randint(expected.numel(), (count,), generator=generator, device=expected.device)] = 0
    return image
