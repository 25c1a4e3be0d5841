"""The field in which dirt is made: its places in angstrom, and random maps of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import interpolate

from cryoplug.simulation.planes import FrequencyPlane
from cryoplug.simulation.texture import Spectrum, texture


@dataclass(frozen=True)
class Patch:
    """The field in which dirt is made."""

    shape: tuple[int, int]
    """Shape of the image, ``(y, x)``, in pixels."""
    pixel_size_angstrom: float
    """Pixel size of the image in angstrom."""
    generator: torch.Generator
    """Random generator for the grain; maps are on its device."""
    radian_per_volt_angstrom: float
    """Phase shift of the wave for one volt * angstrom."""

    @property
    def extent_angstrom(self) -> tuple[float, float]:
        """Height and width in angstrom."""
        return self.shape[0] * self.pixel_size_angstrom, self.shape[1] * self.pixel_size_angstrom

    def zeros(self) -> torch.Tensor:
        """Return an empty map."""
        return torch.zeros(self.shape, device=self.generator.device)

    def axes(self, origin_angstrom: tuple[float, float]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return y ``(y, 1)`` and x ``(1, x)`` in angstrom from an origin."""
        y, x = (
            torch.arange(length, device=self.generator.device, dtype=torch.float32) * self.pixel_size_angstrom - start
            for length, start in zip(self.shape, origin_angstrom, strict=True)
        )
        return y[:, None], x[None, :]

    def window(self, centre_angstrom: tuple[float, float], half_angstrom: float) -> tuple[slice, slice]:
        """Return the rows and columns of a square around a place, cut at the borders; empty if it lies outside."""
        slices = []
        for centre, length in zip(centre_angstrom, self.shape, strict=True):
            first = math.floor((centre - half_angstrom) / self.pixel_size_angstrom)
            last = math.ceil((centre + half_angstrom) / self.pixel_size_angstrom) + 1
            slices.append(slice(min(max(first, 0), length), min(max(last, 0), length)))
        return slices[0], slices[1]

    def white(self, density: float) -> torch.Tensor:
        """Draw white noise of a power spectral density in units^2 * angstrom^2."""
        noise = torch.randn(self.shape, generator=self.generator, device=self.generator.device)
        return noise * (math.sqrt(density) / self.pixel_size_angstrom)

    def texture(self, spectrum: Spectrum) -> torch.Tensor:
        """Draw a Gaussian random map of rms 1."""
        plane = FrequencyPlane.of(self.shape, self.pixel_size_angstrom, self.generator.device)
        return texture(spectrum, plane, self.generator)

    def soft(self, *components: tuple[float, float]) -> torch.Tensor:
        """Draw a smooth random map: a sum of components, each with a length in angstrom (longest first) and a height."""
        coarse: torch.Tensor | None = None
        for length, height in components:
            cells = [max(3, round(extent / length) + 2) for extent in self.extent_angstrom]
            noise = torch.randn((1, 1, *cells), generator=self.generator, device=self.generator.device) * height
            coarse = noise if coarse is None else noise + _stretched(coarse, cells)
        assert coarse is not None
        return _stretched(coarse, self.shape)[0, 0]


def _stretched(image: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    return interpolate(image, tuple(shape), mode="bilinear", align_corners=True)
