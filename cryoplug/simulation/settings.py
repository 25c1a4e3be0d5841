"""All settings of simulated micrographs; the record checks them."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from cryoplug.errors import UsageError, not_allowed
from cryoplug.simulation.molecules import molecule_library
from cryoplug.simulation.optics import Optics
from cryoplug.simulation.specimen import ParticleModel, particle_models

SIMULATOR = 2
"""Number of the simulator, which every file of `simulate` carries. Raise it when the same settings give other pixels or
other lists: then files of an earlier simulator are never mixed with new ones. Files without a number are older."""
SPECIMENS = ("shapes", "random")
"""Kinds of invented particles: five simple shapes, or random molecules."""
DETECTORS = ("counting", "coincidence", "integrating", "interpolated", "cropped")
"""Kinds of cameras, and of processing of their frames."""


@dataclass(frozen=True)
class SimulationSettings:
    """Settings of simulated micrographs."""

    size_px: int = 2048
    """Side of the square micrograph, 64 to 8192."""
    pixel_size_angstrom: float = 2.6
    """Pixel size, 0.5 to 20 angstrom."""
    dose_e_per_angstrom2: float = 40.0
    """Electrons recorded per square angstrom over the whole exposure; above 0, at most 1000."""
    defocus_um: tuple[float, float] = (0.8, 2.5)
    """Lowest and highest underfocus, micrometres, 0 to 10; each micrograph draws its own."""
    ice_grain_rad: float = 0.012
    """Rms phase of the grain of the ice, 0 to 1; the default is a fraction of that of still water, because water moves under
    the beam."""
    particles: int | None = None
    """Particles on each micrograph, 0 to 20000; None takes as many as cover a quarter of it."""
    seed: int = 0
    """Random seed, 0 or more. It alone decides the invented particles; the rest depends on seed and index."""
    voltage_kv: float = 300.0
    """Acceleration voltage in kilovolts, 60 to 1000."""
    spherical_aberration_mm: float = 2.7
    """Spherical aberration Cs in millimetres, 0 to 10."""
    amplitude_contrast: float = 0.1
    """Amplitude contrast, 0 to 0.5."""
    molecules: tuple[ParticleModel, ...] = ()
    """Molecules from maps and structures; empty invents particles, see `specimen`."""
    specimen: str = "shapes"
    """Kind of invented particles: one of `SPECIMENS`."""
    kinds: int = 5
    """Number of random molecules, 1 to 1000; the particles of a micrograph are drawn from all of them."""
    astigmatism_angstrom: tuple[float, float] = (0.0, 0.0)
    """Lowest and highest difference of the two defoci, 0 to 20000; each micrograph draws its own, and its angle."""
    phase_shift_deg: tuple[float, float] = (0.0, 0.0)
    """Lowest and highest shift of a phase plate in degrees, 0 to 180; 0 and 0 for no plate."""
    ice_thickness_angstrom: float = 350.0
    """Mean thickness, 50 to 10000; particles lie anywhere between its surfaces."""
    detector: str = "counting"
    """Kind of camera: one of `DETECTORS`."""
    dirt: bool = False
    """Carbon and gold edges, crystals, spots and cracks; half of the micrographs stay clean."""

    def __post_init__(self) -> None:
        """Raise one error that names all fields out of range."""
        limits: tuple[tuple[str, float, float, float], ...] = (
            ("--size", self.size_px, 64, 8192),
            ("--pixel-size", self.pixel_size_angstrom, 0.5, 20),
            ("--dose", self.dose_e_per_angstrom2, 1e-3, 1000),
            ("--defocus", self.defocus_um[0], 0, 10),
            ("--defocus", self.defocus_um[1], 0, 10),
            ("--particles", self.particles or 0, 0, 20_000),
            ("--voltage", self.voltage_kv, 60, 1000),
            ("--cs", self.spherical_aberration_mm, 0, 10),
            ("--amplitude-contrast", self.amplitude_contrast, 0, 0.5),
            ("--ice-grain", self.ice_grain_rad, 0, 1),
            ("--kinds", self.kinds, 1, 1000),
            ("--astigmatism", self.astigmatism_angstrom[0], 0, 20_000),
            ("--astigmatism", self.astigmatism_angstrom[1], 0, 20_000),
            ("--phase-shift", self.phase_shift_deg[0], 0, 180),
            ("--phase-shift", self.phase_shift_deg[1], 0, 180),
            ("--ice-thickness", self.ice_thickness_angstrom, 50, 10_000),
        )
        wrong = [
            not_allowed(flag, value, f"{low:g} to {high:g}")
            for flag, value, low, high in limits
            if not low <= value <= high
        ]
        if not 0 <= self.seed < 2**63:
            wrong.append(not_allowed("--seed", self.seed, "0 or more"))
        for flag, (low, high) in (
            ("--defocus", self.defocus_um),
            ("--astigmatism", self.astigmatism_angstrom),
            ("--phase-shift", self.phase_shift_deg),
        ):
            if low > high:
                wrong.append(f"{flag} {low:g} {high:g}: give the lower value first")
        for flag, value, known in (
            ("--specimen", self.specimen, SPECIMENS),
            ("--detector", self.detector, DETECTORS),
        ):
            if value not in known:
                wrong.append(not_allowed(flag, value, ", ".join(known)))
        if wrong:
            raise UsageError("; ".join(wrong))

    @property
    def counts_per_pixel(self) -> float:
        """Mean counts of the whole exposure: dose times the area of a pixel."""
        return self.dose_e_per_angstrom2 * self.pixel_size_angstrom**2

    def models(self) -> tuple[ParticleModel, ...]:
        """Return the kinds of particles."""
        if self.molecules:
            return self.molecules
        if self.specimen == "random":
            return _library(self.seed, self.kinds)
        return particle_models(np.random.default_rng([self.seed, 0]))

    def optics_of(self, index: int) -> Optics:
        """Return the lens of one micrograph, without making it."""
        rng = np.random.default_rng([self.seed, 1, index])
        defocus = float(rng.uniform(*self.defocus_um))
        return Optics(
            defocus_um=defocus,
            voltage_kv=self.voltage_kv,
            spherical_aberration_mm=self.spherical_aberration_mm,
            amplitude_contrast=self.amplitude_contrast,
            astigmatism_angstrom=float(rng.uniform(*self.astigmatism_angstrom)),
            astigmatism_angle_deg=float(rng.uniform(0, 180)),
            phase_shift_deg=float(rng.uniform(*self.phase_shift_deg)),
        )

    def digest(self) -> str:
        """Return 12 hex digits that change if any setting changes."""
        fields = {
            item.name: _as_declared(getattr(self, item.name), str(item.type)) for item in dataclasses.fields(self)
        }
        fields["molecules"] = [_digest(model) for model in self.molecules]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]


def _as_declared(value: Any, declared: str) -> Any:
    """Turn 3 into 3.0 for a field of type float, as the command line does, because both are the same setting."""
    if declared == "float":
        return float(value)
    return [*map(float, value)] if declared == "tuple[float, float]" else value


@functools.lru_cache(maxsize=1)
def _library(seed: int, kinds: int) -> tuple[ParticleModel, ...]:
    """Make random molecules once for all micrographs."""
    return molecule_library(seed, kinds)


def _digest(model: ParticleModel) -> str:
    found = hashlib.sha256(f"{model.name} {model.blob_width_angstrom!r}".encode())
    for values in (model.points_angstrom, model.blob_volt_angstrom3):
        found.update(np.ascontiguousarray(values, "<f4").tobytes())
    return found.hexdigest()
