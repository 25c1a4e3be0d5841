"""One field of view with a known truth, on any device: specimen, then lens, then camera.

Phases are weak: each layer of particles has the transfer function of its own depth, and contrasts add up. Thickness and
absorption multiply. Opposite borders join. One generator makes all random choices on the device, so a field is reproducible
on the same kind of device. Choices on the host (particles, lens, camera) are the same for all devices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from cryoplug.simulation.camera import Camera, recorded
from cryoplug.simulation.ice import Ice, grain_terms, ice_thickness_map
from cryoplug.simulation.optics import Optics, contrast_transfer_plane, interaction_constant
from cryoplug.simulation.planes import FrequencyPlane
from cryoplug.simulation.specimen import ParticleModel

POINTS_AT_ONCE = 4_000_000
"""Blobs to project at a time; their places take 200 MB."""

FloatArray = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Field:
    """All settings of a field; only the random numbers of the device are not in it."""

    shape: tuple[int, int]
    """Shape of the image, ``(y, x)``, in pixels."""
    pixel_size_angstrom: float
    """Pixel size of the image in angstrom."""
    dose_e_per_angstrom2: float = 40.0
    """Electrons recorded per square angstrom, averaged over the field."""
    optics: Optics = field(default_factory=lambda: Optics(defocus_um=1.5))
    """The lens; its defocus is that of the middle of the ice."""
    ice: Ice = field(default_factory=Ice)
    """The ice around the particles."""
    camera: Camera = field(default_factory=Camera)
    """The camera."""
    drift_angstrom: tuple[float, float] = (0.0, 0.0)
    """Rms of the uncorrected motion along y and x; it blurs the signal."""
    highpass_angstrom: float | None = None
    """Everything larger is subtracted as background, from the image and its truths; None subtracts nothing."""
    layer_angstrom: float = 150.0
    """Particles in a layer of this thickness share a transfer function: at most 0.2 radian off at 5 angstrom and 300 kV."""


@dataclass(frozen=True)
class Placed:
    """Particles of one kind in a field."""

    model: ParticleModel
    """The kind of particle."""
    centres_px: FloatArray
    """``(n, 2)``, y and x; the centre of pixel 0 is 0. Places beyond a border continue at the opposite one."""
    rotations: FloatArray
    """``(n, 3, 3)``, applied to (z, y, x); the beam runs along z."""
    depths_angstrom: FloatArray
    """``(n,)``, depths below the middle of the ice, as the beam runs."""
    contrast: float = 1.0
    """Factor on their potential."""
    scrambled: bool = False
    """Whether to make their phases random. Then they are no particles but a texture with the spectrum of particles."""


@dataclass(frozen=True)
class Dirt:
    """Carbon, gold, crystals and the like, as maps ``(y, x)`` on the device."""

    phase_rad: torch.Tensor
    """Phase shift of the wave."""
    absorption: torch.Tensor
    """Optical depth: the part exp(-depth) of the electrons passes; 0 without dirt."""
    opaque: torch.Tensor
    """1 where no particle can be seen, 0 elsewhere."""


@dataclass(frozen=True)
class Exposure:
    """A field without noise, in counts per pixel of the whole exposure."""

    field: Field
    """Settings of the field."""
    plane: FrequencyPlane
    """Its Fourier plane."""
    counts: torch.Tensor
    """Expected counts ``(y, x)`` before any subtraction of background; they decide the noise."""
    image: torch.Tensor
    """The truth with ice: expected counts, minus the background if the field says so."""
    particles: torch.Tensor
    """The truth without ice: the change of counts by the particles, around 0."""

    def record(self, generator: torch.Generator, *, part: float = 1.0, counted: bool = True) -> torch.Tensor:
        """Record an exposure with a part of the dose; noise of different calls is independent; see `recorded`."""
        image = recorded(self.counts * part, self.field.camera, self.plane, generator, counted=counted)
        return image if self.field.highpass_angstrom is None else self.plane.filtered(image, _highpass(self))


def expose(
    settings: Field,
    placed: Sequence[Placed],
    generator: torch.Generator,
    *,
    dirt: Dirt | None = None,
) -> Exposure:
    """Make the noise-free field.

    Parameters
    ----------
    settings
        Settings of the field.
    placed
        The particles.
    generator
        Random numbers for the ice; the field is made on its device.
    dirt
        Carbon, gold, crystals and the like, if any.
    """
    plane = FrequencyPlane.of(settings.shape, settings.pixel_size_angstrom, generator.device)
    optics = settings.optics
    transfer = contrast_transfer_plane(plane, optics)
    particles = plane.back(_particle_terms(settings, [each for each in placed if not each.scrambled], plane))
    textures = [each for each in placed if each.scrambled]
    phases = grain_terms(settings.ice, plane, generator)
    absorbed = ice_thickness_map(settings.ice, plane, generator) / settings.ice.mean_free_path_angstrom
    if dirt is not None:
        phases = phases + plane.forward(dirt.phase_rad)
        absorbed = absorbed + dirt.absorption
        particles = particles * (1 - dirt.opaque)
    around = 2 * phases * transfer
    if textures:
        around = around + _scrambled(_particle_terms(settings, textures, plane), plane, generator)
    contrast = particles + plane.back(around)
    intensity = torch.exp(-absorbed) * (1 + contrast).clamp_min(0)
    mean = settings.dose_e_per_angstrom2 * settings.pixel_size_angstrom**2
    through = _signal_transfer(settings, plane)
    counts = plane.filtered(intensity * (mean / intensity.mean()), through).clamp_min(0)
    particles = plane.filtered(particles * mean, through)
    exposure = Exposure(settings, plane, counts, counts, particles)
    if settings.highpass_angstrom is None:
        return exposure
    keep = _highpass(exposure)
    return Exposure(settings, plane, counts, plane.filtered(counts, keep), plane.filtered(particles, keep))


def projected_potential(placed: Placed, plane: FrequencyPlane) -> torch.Tensor:
    """Give the projected potential of particles ``(y, x)``, volt * angstrom."""
    charge = _charge(placed, np.arange(len(placed.centres_px)), plane)
    return plane.filtered(charge, _blob(placed.model.blob_width_angstrom, plane))


def _particle_terms(settings: Field, placed: Sequence[Placed], plane: FrequencyPlane) -> torch.Tensor:
    """Give the transform of the contrast of all particles."""
    total = torch.zeros(plane.squared.shape, dtype=torch.complex64, device=plane.squared.device)
    sigma = 2 * interaction_constant(settings.optics.voltage_kv)
    layers = [_layers(each.depths_angstrom, settings.layer_angstrom) for each in placed]
    for layer in sorted({int(number) for numbers in layers for number in numbers}):
        # Blobs of one width are spread together: a transform costs more than their drawing.
        charges: dict[float, torch.Tensor] = {}
        for each, numbers in zip(placed, layers, strict=True):
            if (chosen := np.flatnonzero(numbers == layer)).size:
                width, charge = each.model.blob_width_angstrom, _charge(each, chosen, plane)
                charges[width] = charges[width].add_(charge) if width in charges else charge
        terms = torch.zeros_like(total)
        for width, charge in charges.items():
            terms += plane.forward(charge) * _blob(width, plane)
        depth = layer * settings.layer_angstrom
        total += terms * (sigma * contrast_transfer_plane(plane, settings.optics, depth_angstrom=depth))
    return total


def _scrambled(terms: torch.Tensor, plane: FrequencyPlane, generator: torch.Generator) -> torch.Tensor:
    """Keep the power of each term, and draw its phase."""
    white = plane.forward(torch.randn(plane.shape, generator=generator, device=terms.device))
    return terms.abs() * white / white.abs().clamp_min(1e-12)


def _layers(depths_angstrom: FloatArray, thickness: float) -> npt.NDArray[np.int64]:
    return np.rint(np.asarray(depths_angstrom) / thickness).astype(np.int64)


def _charge(each: Placed, chosen: npt.NDArray[np.int64], plane: FrequencyPlane) -> torch.Tensor:
    """Give the projected potential of some particles, volt * angstrom; each blob is shared by the four pixels around it."""
    height, width = plane.shape
    model, pixel, device = each.model, plane.pixel_size_angstrom, plane.squared.device
    points = torch.as_tensor(model.points_angstrom, dtype=torch.float32, device=device)
    # Divided on the host, so that all devices get the same numbers.
    weights = np.broadcast_to(np.asarray(model.blob_volt_angstrom3, np.float32), len(points))
    potential = torch.as_tensor(weights * np.float32(each.contrast / pixel**2), device=device)
    rotations = torch.as_tensor(np.asarray(each.rotations[chosen, 1:] / pixel, np.float32), device=device)
    centres = torch.as_tensor(np.asarray(each.centres_px[chosen], np.float32), device=device)
    flat = torch.zeros(height * width, dtype=torch.float32, device=device)
    step = max(1, POINTS_AT_ONCE // len(points))
    for first in range(0, len(chosen), step):
        turned = rotations[first : first + step]
        y, x = (turned @ points.T + centres[first : first + step, :, None]).unbind(1)
        above, left = y.floor(), x.floor()
        down, right = y - above, x - left
        rows = above.long().remainder_(height), (above.long() + 1).remainder_(height)
        columns = left.long().remainder_(width), (left.long() + 1).remainder_(width)
        for row, share_y in zip(rows, (1 - down, down), strict=True):
            for column, share_x in zip(columns, (1 - right, right), strict=True):
                flat.index_add_(0, (row * width + column).flatten(), (potential * share_y * share_x).flatten())
    return flat.view(height, width)


def _blob(width_angstrom: float, plane: FrequencyPlane) -> torch.Tensor:
    """Give the transform of a blob, without the blur from sharing it among four pixels (a mean variance of 1/6 pixel^2)."""
    variance = max(width_angstrom**2 - plane.pixel_size_angstrom**2 / 6, 0.0)
    return torch.exp(-2 * math.pi**2 * variance * plane.squared)


def _signal_transfer(settings: Field, plane: FrequencyPlane) -> torch.Tensor:
    transfer = settings.camera.signal_transfer(plane)
    along_y, along_x = settings.drift_angstrom
    if along_y or along_x:
        transfer = transfer * torch.exp(-2 * math.pi**2 * (along_y * plane.y + along_x * plane.x) ** 2)
    return transfer


def _highpass(exposure: Exposure) -> torch.Tensor:
    """High-pass the image: half of the amplitude passes at the given length, and nothing of the mean."""
    length = exposure.field.highpass_angstrom
    assert length is not None
    return 1 - torch.exp(-math.log(2) * length**2 * exposure.plane.squared)
