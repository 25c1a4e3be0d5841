"""One micrograph with a known truth: specimen, then lens, then camera, as a pure function of (settings, index)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cryoplug.errors import UsageError
from cryoplug.simulation.density_map import DensityMap, particle_from_map
from cryoplug.simulation.detector import Detector, count_halves, expected_counts
from cryoplug.simulation.optics import Optics, electron_wavelength_angstrom, interaction_constant, weak_phase_intensity
from cryoplug.simulation.specimen import (
    FloatArray,
    ParticleModel,
    add_particle,
    ice_granularity,
    ice_thickness,
    particle_models,
    place_particles,
    random_rotation,
    spread_blobs,
)

MEAN_FREE_PATH_ANGSTROM = 3000.0
"""Thickness of ice that lets 1/e of the electrons through unscattered and unfiltered; about right at 300 kV."""

ICE_THICKNESS_ANGSTROM = 350.0
"""Mean thickness, enough to hold the largest particle."""

ANGSTROM2_PER_PARTICLE = 110_000.0
"""Field that one particle gets when no number of particles is given: crowded, but not touching."""

ImageF32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SimulationSettings:
    """Everything that decides how a micrograph looks; checked when made."""

    size_px: int = 2048
    """Side of the square micrograph, 64 to 8192."""
    pixel_size_angstrom: float = 2.6
    """Sampling, 0.5 to 20 angstrom."""
    dose_e_per_angstrom2: float = 40.0
    """Electrons recorded per square angstrom over the whole exposure; above 0, at most 1000."""
    defocus_um: tuple[float, float] = (0.8, 2.5)
    """Lowest and highest underfocus, micrometres, 0 to 10; each micrograph draws its own."""
    ice_grain_rad: float = 0.012
    """Rms phase of the grain of the ice, 0 to 1; the default is a fraction of what still water would give, since water
    moves meanwhile."""
    particles: int | None = None
    """Particles on one micrograph, 0 to 20000; None: as many as fit loosely."""
    seed: int = 0
    """0 or more. The particles' shapes follow from it alone, the rest from it and the index."""
    voltage_kv: float = 300.0
    """Acceleration voltage, 60 to 1000."""
    spherical_aberration_mm: float = 2.7
    """Cs, 0 to 10."""
    amplitude_contrast: float = 0.1
    """0 to 0.5."""
    density: DensityMap | None = None
    """The molecule; None: the five invented shapes."""

    def __post_init__(self) -> None:
        """Name every field that is out of range at once."""
        limits: tuple[tuple[str, float, float, float], ...] = (
            ("size", self.size_px, 64, 8192),
            ("pixel size", self.pixel_size_angstrom, 0.5, 20),
            ("dose", self.dose_e_per_angstrom2, 1e-3, 1000),
            ("defocus, lower", self.defocus_um[0], 0, 10),
            ("defocus, upper", self.defocus_um[1], 0, 10),
            ("particles", self.particles or 0, 0, 20_000),
            ("seed", self.seed, 0, 2**63 - 1),
            ("voltage", self.voltage_kv, 60, 1000),
            ("spherical aberration", self.spherical_aberration_mm, 0, 10),
            ("amplitude contrast", self.amplitude_contrast, 0, 0.5),
            ("ice grain", self.ice_grain_rad, 0, 1),
        )
        wrong = [
            f"{name}: {value:g}; allowed {low:g} to {high:g}"
            for name, value, low, high in limits
            if not low <= value <= high
        ]
        if self.defocus_um[0] > self.defocus_um[1]:
            wrong.append(f"defocus: {self.defocus_um[0]:g} {self.defocus_um[1]:g}; give the lower value first")
        if wrong:
            raise UsageError("simulate: " + "\n".join(wrong))

    @property
    def particle_count(self) -> int:
        """The number of particles that is tried for."""
        if self.particles is not None:
            return self.particles
        return max(1, round((self.size_px * self.pixel_size_angstrom) ** 2 / ANGSTROM2_PER_PARTICLE))

    @property
    def counts_per_pixel(self) -> float:
        """Mean counts of the whole exposure: dose times the area of a pixel."""
        return self.dose_e_per_angstrom2 * self.pixel_size_angstrom**2

    def defocus_of(self, index: int) -> float:
        """Return the underfocus of one micrograph in micrometres, without making it."""
        return float(np.random.default_rng([self.seed, 1, index]).uniform(*self.defocus_um))

    def digest(self) -> str:
        """Return 12 hex digits that change when any setting does."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        density = fields.pop("density")
        if density is not None:
            fields["density"] = density.digest()
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class SimulatedMicrograph:
    """One exposure and its truth, all ``(y, x)`` float32 in counts per pixel."""

    even: ImageF32
    """First half of the exposure, whole numbers."""
    odd: ImageF32
    """Second half, with noise of its own."""
    clean: ImageF32
    """Expected counts of the whole exposure: CTF, ice and MTF are in it, noise is not."""
    particles_only: ImageF32
    """Like `clean`, of the particles in ice that is even and has no grain."""
    defocus_um: float
    """Underfocus of this micrograph."""
    particles: tuple[tuple[str, float, float], ...]
    """Shape and centre ``(y, x)`` in pixels of each particle."""

    @property
    def noisy(self) -> ImageF32:
        """The whole exposure, even + odd; whole numbers, exact in float32."""
        return self.even + self.odd


def simulate_micrograph(settings: SimulationSettings, index: int) -> SimulatedMicrograph:
    """Make one micrograph.

    Parameters
    ----------
    settings
        What to make.
    index
        Which one, from 0; micrographs of one seed share the particles' shapes and nothing else.

    Returns
    -------
    SimulatedMicrograph
        The same bytes for the same settings, index, numpy and kind of processor.
    """
    pixel = settings.pixel_size_angstrom
    rng = np.random.default_rng([settings.seed, 2, index])
    optics = Optics(
        defocus_um=settings.defocus_of(index),
        voltage_kv=settings.voltage_kv,
        spherical_aberration_mm=settings.spherical_aberration_mm,
        amplitude_contrast=settings.amplitude_contrast,
    )
    margin = _margin_px(optics, pixel)
    shape = (_fast_length(settings.size_px + 2 * margin),) * 2
    models = _models(settings)
    extent = settings.size_px * pixel
    placed = place_particles(models, settings.particle_count, extent_angstrom=(extent, extent), rng=rng)
    particles = tuple((models[choice].name, y / pixel, x / pixel) for choice, y, x in placed)

    charge = np.zeros(shape)
    for choice, y, x in placed:
        centre = (y / pixel + margin, x / pixel + margin)
        rotation = random_rotation(rng)
        add_particle(charge, models[choice], rotation=rotation, centre_px=centre, pixel_size_angstrom=pixel)
    width = models[0].blob_width_angstrom
    potential = spread_blobs(charge, pixel_size_angstrom=pixel, width_angstrom=width)
    phase = interaction_constant(settings.voltage_kv) * potential
    bare = weak_phase_intensity(phase, optics, pixel_size_angstrom=pixel)
    phase += settings.ice_grain_rad * ice_granularity(shape, pixel_size_angstrom=pixel, rng=rng)
    thickness = ice_thickness(shape, pixel_size_angstrom=pixel, mean_angstrom=ICE_THICKNESS_ANGSTROM, rng=rng)

    intensity = np.exp(-thickness / MEAN_FREE_PATH_ANGSTROM)
    intensity *= weak_phase_intensity(phase, optics, pixel_size_angstrom=pixel)
    clean = _expected(intensity, settings, margin)
    even, odd = count_halves(clean, rng)
    return SimulatedMicrograph(even, odd, clean, _expected(bare, settings, margin), optics.defocus_um, particles)


def _models(settings: SimulationSettings) -> tuple[ParticleModel, ...]:
    if settings.density is not None:
        return (particle_from_map(settings.density),)
    return particle_models(np.random.default_rng([settings.seed, 0]))


def _expected(intensity: FloatArray, settings: SimulationSettings, margin: int) -> ImageF32:
    """Crop the padded exposure, then set its mean: the dose is a statement about what is kept."""
    dose, pixel = settings.dose_e_per_angstrom2, settings.pixel_size_angstrom
    counts = expected_counts(intensity, Detector(), dose_e_per_angstrom2=dose, pixel_size_angstrom=pixel)
    inside = slice(margin, margin + settings.size_px)
    inner = counts[inside, inside]
    return (inner * (settings.counts_per_pixel / inner.mean())).astype(np.float32)


def _margin_px(optics: Optics, pixel_size_angstrom: float) -> int:
    """How far the CTF carries the finest detail, so that nothing wraps around; at least 16 pixels."""
    reach = electron_wavelength_angstrom(optics.voltage_kv) * optics.defocus_um * 1e4 / (2 * pixel_size_angstrom)
    return max(16, int(np.ceil(reach / pixel_size_angstrom)))


def _fast_length(length: int) -> int:
    """Return the next length without a prime factor above 5, where the Fourier transform is fast."""
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1
