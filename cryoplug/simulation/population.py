"""Fields of every kind that a microscope may show: all random choices and their ranges, as a function of seed and number.

A network for any micrograph must learn from wider ranges than it will meet. So contrast and dose range over two orders of
magnitude. The noise has any colour, the ice is even or uneven, particles have any size and crowding; some fields are empty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cryoplug.simulation.camera import Camera
from cryoplug.simulation.field import Field, FloatArray, Placed
from cryoplug.simulation.ice import Ice
from cryoplug.simulation.optics import Optics
from cryoplug.simulation.specimen import ParticleModel

Range = tuple[float, float]

MOST_PARTICLES = 3000
"""Most particles of one kind in a field."""
MOST_BLOBS = 3_000_000
"""Most blobs of all particles of one kind in a field."""


@dataclass(frozen=True)
class Population:
    """Ranges and chances. Values are uniform in the logarithm, unless the field says uniform."""

    pixel_size_angstrom: Range = (1.8, 6.6)
    """Pixel size that the network sees."""
    usual_pixel_size_angstrom: Range = (2.2, 3.2)
    """Pixel size of half of the fields."""
    uncropped: float = 0.3
    """Chance that the camera has these pixels itself; else its pixels are finer, by up to `finer`."""
    finer: float = 4.0
    """Largest ratio of the image's pixel size to the camera's."""
    dose_e_per_angstrom2: Range = (0.4, 30.0)
    """Dose from a single frame up; half of the fields without the usual dose have less than 3.5."""
    usual_dose_e_per_angstrom2: Range = (10.0, 80.0)
    """Usual dose of a whole exposure."""
    usual_dose: float = 0.4
    """Chance of the usual dose."""
    contrast: Range = (0.35, 1.4)
    """Factor on the particles' potential, for radiation damage, solvent and inelastic background."""
    defocus_um: Range = (0.3, 5.0)
    """Underfocus, uniform; three fields of four are within `usual_defocus_um`."""
    usual_defocus_um: Range = (0.7, 2.7)
    """Usual underfocus, uniform."""
    astigmatism_angstrom: Range = (10.0, 1000.0)
    """Difference of the two defoci."""
    voltages_kv: tuple[float, ...] = (300.0, 300.0, 300.0, 200.0, 200.0, 120.0)
    """Acceleration voltages, equally likely."""
    aberrations_mm: tuple[float, ...] = (2.7, 2.7, 2.7, 2.0, 1.4, 0.01)
    """Spherical aberrations Cs, equally likely; the last one is a corrected lens."""
    amplitude_contrast: Range = (0.04, 0.2)
    """Amplitude contrast, uniform."""
    phase_plate: float = 0.1
    """Chance of a phase shift of 20 to 130 degrees, at low defocus."""
    b_factor_angstrom2: Range = (20.0, 300.0)
    """B-factor of the signal's envelope. Dose weighting that leaves the noise as it was is such an envelope, too."""
    blurred: float = 0.2
    """Chance of a stronger blur, as from frames that were never aligned, or from charging."""
    faint_dose_e_per_angstrom2: float = 8.0
    """Half of the fields with less than this dose, such as single frames, are blurred."""
    blur_angstrom: Range = (2.0, 10.0)
    """Rms of this blur in each direction."""
    ice_thickness_angstrom: Range = (150.0, 1500.0)
    """Mean thickness of the ice."""
    ice_slope: Range = (0.005, 0.5)
    """Slope of the ice, and its bend, as parts of the mean thickness."""
    ice_texture: Range = (0.003, 0.1)
    """Rms of the uneven thickness, as a part of the mean."""
    ice_texture_length_angstrom: Range = (200.0, 1500.0)
    """Smallest length in the uneven thickness."""
    ice_grain_rad: Range = (0.004, 0.04)
    """Rms phase of the grain of the ice."""
    ice_grain_length_angstrom: Range = (4.0, 9.0)
    """Length of the grain, uniform."""
    empty: float = 0.11
    """Chance of a field without particles."""
    scrambled: float = 0.1
    """Chance, unless the dose is faint, of a texture with the spectrum of particles: such a spectrum is no sign of them."""
    scrambled_dose_e_per_angstrom2: float = 8.0
    """No field with less than this dose is scrambled, because nobody could tell."""
    scrambled_alone: float = 0.5
    """Chance that such a field has no particles besides."""
    scrambled_below: Range = (0.1, 0.6)
    """Contrast of a texture below particles, as a part of what it would be alone, uniform."""
    coverage: Range = (0.02, 1.3)
    """Part of the field that the particles' discs would cover side by side."""
    dense: float = 0.5
    """Chance that the coverage comes from `dense_coverage` instead, because good micrographs are full."""
    dense_coverage: Range = (0.2, 1.3)
    """Coverage of dense fields, uniform."""
    inverted: float = 0.0
    """Chance of bright particles; 0, because denoise warns of inverted micrographs instead."""
    mtf_at_nyquist: Range = (0.1, 0.63)
    """MTF of the camera at Nyquist, uniform."""
    ripple: float = 0.15
    """Standard deviation of each smooth deviation of the noise's logarithmic power from its law."""
    skew: Range = (-0.4, 1.6)
    """Skewness of the noise, uniform: dark particles are skewed, too, and must not be taken for noise."""
    drift_angstrom: Range = (0.2, 6.0)
    """Rms of the drift, in half of the fields."""
    highpass: float = 0.2
    """Chance that everything larger than 500 to 2500 angstrom was subtracted as background."""

    def draw(
        self, library: Sequence[ParticleModel], *, size_px: int, seed: int, number: int
    ) -> tuple[Field, list[Placed]]:
        """Draw a field and its particles on the host; the same arguments give the same result.

        Parameters
        ----------
        library
            Particles to draw from; a filament lies along z in its own frame.
        size_px
            Side of the square field.
        seed, number
            Seed, and number of the field; each number gives another field.
        """
        rng = np.random.default_rng([seed, 3, number])
        usual = rng.random() < 0.5
        pixel = _log(rng, self.usual_pixel_size_angstrom if usual else self.pixel_size_angstrom)
        ice = self._ice(rng)
        is_usual = rng.random() < self.usual_dose
        dose = _log(rng, self.usual_dose_e_per_angstrom2 if is_usual else self.dose_e_per_angstrom2)
        drawn = Field(
            (size_px, size_px),
            pixel,
            dose_e_per_angstrom2=dose,
            optics=self._optics(rng, dose),
            ice=ice,
            camera=self._camera(rng, pixel),
            drift_angstrom=self._drift(rng),
            highpass_angstrom=_log(rng, (500, 2500)) if rng.random() < self.highpass else None,
        )
        particles = self._particles(rng, library, drawn)
        if dose < self.scrambled_dose_e_per_angstrom2 or rng.random() >= self.scrambled:
            return drawn, particles
        alone = rng.random() < self.scrambled_alone
        part = 1.0 if alone else rng.uniform(*self.scrambled_below)
        others = self._particles(rng, library, drawn)
        textures = [replace(each, contrast=part * each.contrast, scrambled=True) for each in others]
        return drawn, textures if alone else [*particles, *textures]

    def _optics(self, rng: np.random.Generator, dose: float) -> Optics:
        with_plate = rng.random() < self.phase_plate
        defocus = rng.uniform(*(self.usual_defocus_um if rng.random() < 0.75 else self.defocus_um))
        return Optics(
            defocus_um=rng.uniform(0.2, 1.5) if with_plate else defocus,
            voltage_kv=float(rng.choice(self.voltages_kv)),
            spherical_aberration_mm=float(rng.choice(self.aberrations_mm)),
            amplitude_contrast=rng.uniform(*self.amplitude_contrast),
            b_factor_angstrom2=_log(rng, self.b_factor_angstrom2) + self._blur(rng, dose),
            astigmatism_angstrom=_log(rng, self.astigmatism_angstrom),
            astigmatism_angle_deg=rng.uniform(0, 180),
            phase_shift_deg=rng.uniform(20, 130) if with_plate else 0.0,
        )

    def _blur(self, rng: np.random.Generator, dose: float) -> float:
        """Draw a blur, as a term of the B-factor: a Gaussian of rms s has ``B = 8 pi^2 s^2``."""
        chance = 0.5 if dose < self.faint_dose_e_per_angstrom2 else self.blurred
        return 8 * math.pi**2 * _log(rng, self.blur_angstrom) ** 2 if rng.random() < chance else 0.0

    def _ice(self, rng: np.random.Generator) -> Ice:
        return Ice(
            thickness_angstrom=_log(rng, self.ice_thickness_angstrom),
            slope=_log(rng, self.ice_slope),
            slope_angle_rad=rng.uniform(0, 2 * math.pi),
            bend=_log(rng, self.ice_slope) if rng.random() < 0.3 else 0.0,
            texture=_log(rng, self.ice_texture),
            texture_length_angstrom=_log(rng, self.ice_texture_length_angstrom),
            grain_rad=_log(rng, self.ice_grain_rad),
            grain_length_angstrom=rng.uniform(*self.ice_grain_length_angstrom),
        )

    def _camera(self, rng: np.random.Generator, pixel_size_angstrom: float) -> Camera:
        finer = 1.0 if rng.random() < self.uncropped else rng.uniform(1, self.finer)
        kind = rng.random()
        camera = Camera(
            pixel_size_angstrom=pixel_size_angstrom / finer,
            mtf_at_nyquist=rng.uniform(*self.mtf_at_nyquist),
            noise_blur=rng.uniform(0.3, 1) if kind < 0.25 else 0.0,
            coincidence=rng.uniform(0, 0.25) if kind > 0.5 else 0.0,
            interpolated=rng.uniform(0.3, 1) if rng.random() < 0.2 else 0.0,
            skew=rng.uniform(*self.skew),
            ripple=tuple(rng.normal(0, self.ripple, 3)) if rng.random() < 0.6 else (),
            gain_error=_log(rng, (0.001, 0.01)) if rng.random() < 0.3 else 0.0,
            hot_pixels=_log(rng, (1e-6, 3e-5)) if rng.random() < 0.15 else 0.0,
        )
        # A camera with bad pixels has both kinds. Nothing more is drawn, so that a seed keeps its field.
        return replace(camera, dead_pixels=camera.hot_pixels)

    def _drift(self, rng: np.random.Generator) -> tuple[float, float]:
        if rng.random() < 0.5:
            return 0.0, 0.0
        length, angle = _log(rng, self.drift_angstrom), rng.uniform(0, math.pi)
        return length * math.sin(angle), length * math.cos(angle)

    def _particles(self, rng: np.random.Generator, library: Sequence[ParticleModel], drawn: Field) -> list[Placed]:
        if rng.random() < self.empty:
            return []
        kinds = 1 if rng.random() < 0.75 else int(rng.integers(2, 4))
        contrast = _log(rng, self.contrast) * (-1 if rng.random() < self.inverted else 1)
        is_dense = rng.random() < self.dense
        coverage = (rng.uniform(*self.dense_coverage) if is_dense else _log(rng, self.coverage)) / kinds
        heights = _heights(rng, drawn.ice.thickness_angstrom)
        placed = []
        for choice in rng.choice(len(library), kinds, replace=False):
            model = library[int(choice)]
            side = drawn.shape[0] * drawn.pixel_size_angstrom
            radius = float(np.sqrt(2 * np.mean(model.points_angstrom[:, 1:] ** 2) * 1.25)) + model.blob_width_angstrom
            count = rng.poisson(coverage * side**2 / (math.pi * radius**2))
            count = int(min(max(count, 1), MOST_PARTICLES, max(1, MOST_BLOBS // len(model.points_angstrom))))
            centres = _centres(rng, count, drawn.shape, 2 * radius / drawn.pixel_size_angstrom)
            rotations = _rotations(rng, model, len(centres))
            placed.append(Placed(model, centres, rotations, heights(len(centres)), contrast))
        return placed


def _log(rng: np.random.Generator, limits: Range) -> float:
    return float(np.exp(rng.uniform(np.log(limits[0]), np.log(limits[1]))))


def _heights(rng: np.random.Generator, thickness_angstrom: float) -> Callable[[int], FloatArray]:
    """Choose where particles lie in the ice: anywhere, at one surface, or at both."""
    half, place = min(thickness_angstrom, 800.0) / 2, rng.random()

    def draw(count: int) -> FloatArray:
        if place < 0.5:
            return rng.uniform(-half, half, count)
        sides = np.ones(count) if place < 0.75 else rng.choice((-1.0, 1.0), count)
        return sides * half + rng.normal(0, 20, count)

    return draw


def _centres(rng: np.random.Generator, count: int, shape: tuple[int, int], diameter_px: float) -> FloatArray:
    """Scatter particles: anywhere, around a lattice (few touch; if it is full, there are fewer), or in clumps."""
    kind = rng.random()
    if kind < 0.4:
        return rng.uniform((0, 0), shape, (count, 2))
    if kind < 0.8:
        step = max(diameter_px * 1.05, math.sqrt(shape[0] * shape[1] / max(count, 1)) * 0.75)
        rows, columns = (max(1, int(side / step)) for side in shape)
        cells = rng.permutation(rows * columns)[:count]
        corners = np.stack((cells // columns, cells % columns), axis=1) + 0.5
        slack = max(0.3, 1 - diameter_px / step)
        return (corners + rng.uniform(-0.5, 0.5, corners.shape) * slack) * (shape[0] / rows, shape[1] / columns)
    clumps = rng.uniform((0, 0), shape, (max(1, count // int(rng.integers(3, 30))), 2))
    return clumps[rng.integers(len(clumps), size=count)] + rng.normal(0, diameter_px * rng.uniform(1, 3), (count, 2))


def _rotations(rng: np.random.Generator, model: ParticleModel, count: int) -> FloatArray:
    """Draw orientations: any, or all nearly alike except for the in-plane angle; filaments and membranes lie nearly flat."""
    kind = model.kind
    long, wide = kind in ("filament", "rod"), kind == "bilayer"
    quaternions = rng.standard_normal((count, 4))
    turned = rotation_matrices(quaternions)
    if not long and not wide and rng.random() > 0.15:
        return turned
    about_beam = rng.uniform(0, 2 * math.pi, count)
    spread = np.column_stack((np.ones(count), rng.normal(0, 0.06, (count, 3))))
    if long:
        # The long axis of a filament, z in its own frame, becomes x: a quarter turn about y.
        base = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
        roll = np.column_stack((np.cos(about_beam), np.zeros((count, 2)), np.sin(about_beam)))
    else:
        # The normal of a patch of membrane is z, the beam's direction; either side may be up.
        up = np.diag((1.0, 1.0, 1.0) if rng.random() < 0.5 else (-1.0, 1.0, -1.0))
        base = up if wide else rotation_matrices(rng.standard_normal((1, 4)))[0]
        roll = np.column_stack((np.ones(count), np.zeros((count, 3))))
    about_beam = rng.uniform(0, math.pi, count)
    in_plane = np.column_stack((np.cos(about_beam), np.sin(about_beam), np.zeros((count, 2))))
    return rotation_matrices(in_plane) @ rotation_matrices(spread) @ base @ rotation_matrices(roll)


def rotation_matrices(quaternions: FloatArray) -> FloatArray:
    """Convert quaternions ``(n, 4)`` of any length to rotations ``(n, 3, 3)`` of (z, y, x); the second component is z's."""
    w, z, y, x = (quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).T
    return np.stack(
        (
            np.stack((1 - 2 * (y * y + x * x), 2 * (z * y + w * x), 2 * (z * x - w * y)), axis=-1),
            np.stack((2 * (z * y - w * x), 1 - 2 * (z * z + x * x), 2 * (y * x + w * z)), axis=-1),
            np.stack((2 * (z * x + w * y), 2 * (y * x - w * z), 1 - 2 * (z * z + y * y)), axis=-1),
        ),
        axis=-2,
    )
