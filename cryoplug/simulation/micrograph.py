"""One micrograph with a known truth: a field is made, cropped and recorded, as a pure function of (settings, index)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from cryoplug.simulation.camera import Camera, recorded
from cryoplug.simulation.dirt import DirtPopulation, joined, random_dirt
from cryoplug.simulation.field import Field, Placed, expose
from cryoplug.simulation.ice import Ice
from cryoplug.simulation.optics import Optics, electron_wavelength_angstrom
from cryoplug.simulation.placing import TrueParticle, hidden_part, place_particles
from cryoplug.simulation.planes import FrequencyPlane
from cryoplug.simulation.settings import SimulationSettings

ImageF32 = npt.NDArray[np.float32]

JOIN_PX = 16
"""Pixels in which dirt fades towards what lies at the opposite border, beyond the margin of the CTF. A step there, such as the
edge of gold, would ring over the whole micrograph, as fine stripes of a per cent."""
MOST_HIDDEN = 0.5
"""Part of a particle behind dirt from which on it is not listed: nobody can pick it."""


@dataclass(frozen=True)
class SimulatedMicrograph:
    """One exposure and its truth, all ``(y, x)`` float32 in counts per pixel."""

    even: ImageF32
    """First half of the exposure; whole numbers if the camera counts."""
    odd: ImageF32
    """Second half, with independent noise."""
    clean: ImageF32
    """Expected counts of the whole exposure: with CTF, ice, dirt and MTF, but without noise."""
    particles_only: ImageF32
    """Like `clean`, but only the particles, in even ice without grain."""
    optics: Optics
    """The lens; its defocus holds for the middle of the ice."""
    particles: tuple[TrueParticle, ...]
    """Each particle whose centre lies on the micrograph, without those that dirt hides."""

    @property
    def noisy(self) -> ImageF32:
        """The whole exposure, even + odd."""
        return self.even + self.odd

    @property
    def defocus_um(self) -> float:
        """Mean underfocus."""
        return self.optics.defocus_um


def simulate_micrograph(
    settings: SimulationSettings, index: int, *, device: torch.device | str = "cpu"
) -> SimulatedMicrograph:
    """Make one micrograph.

    Parameters
    ----------
    settings
        Settings of the micrographs.
    index
        Number of the micrograph, from 0; micrographs of one seed only share their invented particles.
    device
        Where to compute. Particles, lens and dirt are the same on every device; ice and noise differ.

    Returns
    -------
    SimulatedMicrograph
        The same bytes for the same settings, index, device, numpy and torch.
    """
    pixel, size = settings.pixel_size_angstrom, settings.size_px
    optics, particles = settings.optics_of(index), true_particles(settings, index)
    margin = _margin_px(optics, pixel) + (JOIN_PX if settings.dirt else 0)
    side = _fast_length(size + 2 * margin)
    seeds = np.random.SeedSequence([settings.seed, 5, index]).generate_state(1, np.uint64)
    generator = torch.Generator(device).manual_seed(int(seeds[0] >> np.uint64(1)))
    rng = np.random.default_rng([settings.seed, 4, index])
    field = Field(
        (side, side),
        pixel,
        dose_e_per_angstrom2=settings.dose_e_per_angstrom2,
        optics=optics,
        ice=_ice(settings, rng),
        camera=camera_of(settings),
    )
    dirt = None
    if settings.dirt:
        half = DirtPopulation(clean=0.5)
        dirt = random_dirt(field.shape, pixel, rng, generator, population=half, voltage_kv=optics.voltage_kv)
        dirt = None if dirt is None else joined(dirt, JOIN_PX)
    made = expose(field, _placed(particles, margin), generator, dirt=dirt)
    if dirt is not None:
        opaque = dirt.opaque[margin : margin + size, margin : margin + size].cpu().numpy()
        particles = tuple(each for each in particles if hidden_part(each, opaque, pixel) < MOST_HIDDEN)
    inside = slice(margin, margin + size)
    clean = made.image[inside, inside]
    # The dose is a statement about what is kept.
    clean = clean * (settings.counts_per_pixel / float(clean.mean(dtype=torch.float64)))
    bare = (made.particles[inside, inside] + settings.counts_per_pixel).clamp_min(0)
    del made, dirt
    plane = FrequencyPlane.of((size, size), pixel, generator.device)
    even, odd = (_pixels(recorded(clean / 2, field.camera, plane, generator)) for _ in range(2))
    return SimulatedMicrograph(even, odd, _pixels(clean), _pixels(bare), optics, particles)


def true_particles(settings: SimulationSettings, index: int) -> tuple[TrueParticle, ...]:
    """Return the particles of one micrograph, without making it; dirt may hide some of them."""
    models, pixel = settings.models(), settings.pixel_size_angstrom
    placed = place_particles(
        models,
        settings.particles,
        extent_angstrom=(settings.size_px * pixel, settings.size_px * pixel),
        thickness_angstrom=settings.ice_thickness_angstrom,
        rng=np.random.default_rng([settings.seed, 2, index]),
    )
    return tuple(
        TrueParticle(models[choice], choice + 1, y / pixel, x / pixel, depth, rotation)
        for choice, y, x, depth, rotation in placed
    )


def camera_of(settings: SimulationSettings) -> Camera:
    """Return the camera of the settings."""
    return {
        "counting": Camera(),
        "coincidence": Camera(coincidence=0.2),
        "integrating": Camera(mtf_at_nyquist=0.3, noise_blur=0.85),
        "interpolated": Camera(interpolated=1.0),
        "cropped": Camera(pixel_size_angstrom=settings.pixel_size_angstrom / 2),
    }[settings.detector]


def _pixels(image: torch.Tensor) -> ImageF32:
    return np.ascontiguousarray(image.cpu().numpy())


def _ice(settings: SimulationSettings, rng: np.random.Generator) -> Ice:
    return Ice(
        thickness_angstrom=settings.ice_thickness_angstrom,
        slope=float(rng.uniform(0.08, 0.2)),
        slope_angle_rad=float(rng.uniform(0, 2 * np.pi)),
        grain_rad=settings.ice_grain_rad,
    )


def _placed(particles: tuple[TrueParticle, ...], margin: int) -> list[Placed]:
    groups: dict[int, list[TrueParticle]] = {}
    for particle in particles:
        groups.setdefault(particle.number, []).append(particle)
    return [
        Placed(
            group[0].model,
            np.array([(each.y_px + margin, each.x_px + margin) for each in group]),
            np.array([each.rotation for each in group]),
            np.array([each.depth_angstrom for each in group]),
        )
        for group in groups.values()
    ]


def _margin_px(optics: Optics, pixel_size_angstrom: float) -> int:
    """Give the margin within which the CTF spreads the finest detail, so that borders do not join; at least 16 pixels."""
    reach = electron_wavelength_angstrom(optics.voltage_kv) * optics.defocus_angstrom[0] / (2 * pixel_size_angstrom)
    return max(16, int(np.ceil(reach / pixel_size_angstrom)))


def _fast_length(length: int) -> int:
    """Return the next even length without a prime factor above 5, where the Fourier transform is fast."""
    length += length % 2
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 2
