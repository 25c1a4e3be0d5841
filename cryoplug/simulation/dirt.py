"""Dirt in the ice: carbon and gold edges, crystals, spots of contamination, cracks, frost.

Each piece has a phase shift, an optical depth, and a mask of places where no particle can be seen. A generator on the host
decides places and sizes, so they are the same on every device; the grain is drawn on the device. Dirt does not continue at the
opposite border; `joined` lets it fade there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cryoplug.simulation.field import Dirt
from cryoplug.simulation.optics import interaction_constant
from cryoplug.simulation.patch import Patch
from cryoplug.simulation.texture import LONGEST_ANGSTROM, SLOPES, Spectrum, random_spectrum

Range = tuple[float, float]

CARBON_VOLT, ICE_VOLT = 9.0, 4.5
"""Mean inner potentials of amorphous carbon and of ice, in volt."""
CARBON_MEAN_FREE_PATH_ANGSTROM = 2500.0
"""Thickness of carbon through which 1/e of the electrons pass unscattered and unfiltered."""
CARBON_ATOMS_PER_ANGSTROM3, CARBON_ATOM_VOLT_ANGSTROM3 = 0.1, 120.0
"""Carbon atoms per volume at 2 g/cm^3, and the integral of an atom's potential (47.9 times the scattering factor at 0, 2.5)."""
STEEPEST_PHASE_RAD = 1.2
"""Largest step in phase at one edge; beyond it, phases are not weak, and the fringes would be wrong."""


@dataclass(frozen=True)
class DirtPopulation:
    """Chances and sizes of each kind of dirt in a field; ranges are log-uniform."""

    clean: float = 0.58
    """Chance of a field without any dirt."""
    carbon: float = 0.35
    """Chance, in a dirty field, of the edge of a carbon film; one in ten such films covers the whole field."""
    gold: float = 0.12
    """Chance of the edge of a gold foil."""
    crystals: float = 0.45
    """Chance of crystals of ice or ethane, one to six."""
    spots: float = 0.35
    """Chance of small spots, one to forty."""
    crack: float = 0.12
    """Chance of a crack."""
    frost: float = 0.3
    """Chance of frost, which makes the ice uneven at any length."""
    speckled: float = 0.0
    """Chance that a film with an edge also absorbs unevenly, grain by grain, as sputtered and soiled films do."""
    carbon_thickness_angstrom: Range = (50.0, 600.0)
    """Thickness of a film with an edge; a film that covers the whole field has 20 to 60 angstrom."""
    carbon_relief: Range = (0.02, 0.3)
    """Rms of the uneven thickness of a film with an edge, as a part of the mean."""
    speckle: Range = (0.005, 0.2)
    """Rms of what these grains do to the counts, as a part of them."""
    hole_radius_angstrom: Range = (3000.0, 12_000.0)
    """Radius of the hole behind an edge; a third of the edges are straight."""
    crystal_angstrom: Range = (100.0, 3000.0)
    """Diameter of a crystal."""
    spot_angstrom: Range = (20.0, 150.0)
    """Diameter of a spot."""
    frost_rms: Range = (0.01, 0.4)
    """Rms of what frost does to the counts, as a part of them."""
    frost_slope: Range = SLOPES
    """How steeply the power of frost falls: frequency to the power of minus this, uniform."""
    frost_longest_angstrom: Range = LONGEST_ANGSTROM
    """At longer periods its power no longer rises."""


def random_dirt(
    shape: tuple[int, int],
    pixel_size_angstrom: float,
    rng: np.random.Generator,
    generator: torch.Generator,
    *,
    population: DirtPopulation | None = None,
    voltage_kv: float = 300.0,
) -> Dirt | None:
    """Draw the dirt of one field.

    Parameters
    ----------
    shape
        Pixels, ``(y, x)``.
    pixel_size_angstrom
        Sampling.
    rng
        Random generator for kinds and places.
    generator
        Random generator for the grain; the maps are on its device.
    population
        Chances and sizes; None for the defaults.
    voltage_kv
        Acceleration voltage; a lower one gives more phase.

    Returns
    -------
    Dirt or None
        None for a clean field.
    """
    chances = population or DirtPopulation()
    if rng.random() < chances.clean:
        return None
    field = Patch(shape, pixel_size_angstrom, generator, interaction_constant(voltage_kv))
    pieces: list[Dirt] = []
    if rng.random() < chances.carbon:
        radius = _hole(rng, chances)
        if rng.random() < 0.1:
            pieces.append(carbon_film(field, rng, _log(rng, (20, 60))))
        else:
            thickness = _log(rng, chances.carbon_thickness_angstrom)
            relief = _log(rng, chances.carbon_relief)
            # Where no film is speckled nothing is drawn, so that a seed keeps its micrograph.
            speckle = _log(rng, chances.speckle) if chances.speckled and rng.random() < chances.speckled else 0.0
            pieces.append(
                carbon_edge(
                    field,
                    rng,
                    thickness_angstrom=thickness,
                    hole_radius_angstrom=radius,
                    relief=relief,
                    speckle=speckle,
                )
            )
    elif rng.random() < chances.gold:
        pieces.append(gold_edge(field, rng, hole_radius_angstrom=_hole(rng, chances)))
    if rng.random() < chances.crystals:
        sizes = [_log(rng, chances.crystal_angstrom) for _ in range(int(rng.integers(1, 7)))]
        pieces += [crystal(field, rng, diameter_angstrom=size) for size in sizes]
    if rng.random() < chances.spots:
        sizes = [_log(rng, chances.spot_angstrom) for _ in range(int(rng.integers(1, 41)))]
        pieces.append(spots(field, rng, diameters_angstrom=sizes))
    if rng.random() < chances.crack:
        pieces.append(crack(field, rng))
    if rng.random() < chances.frost:
        rms = _log(rng, chances.frost_rms)
        spectrum = random_spectrum(rng, slopes=chances.frost_slope, longest_angstrom=chances.frost_longest_angstrom)
        pieces.append(frost(field, rng, rms=rms, spectrum=spectrum))
    return together(pieces) if pieces else None


def together(pieces: Sequence[Dirt]) -> Dirt:
    """Join several pieces of dirt: phases and depths add up."""
    phase, depth, opaque = pieces[0].phase_rad, pieces[0].absorption, pieces[0].opaque
    for piece in pieces[1:]:
        phase, depth = phase + piece.phase_rad, depth + piece.absorption
        opaque = torch.maximum(opaque, piece.opaque)
    return Dirt(phase, depth, opaque)


def joined(dirt: Dirt, width_px: int) -> Dirt:
    """Let the dirt join at opposite borders: there it fades, within some pixels, to the mean of both."""
    phase, depth = (_joined(part, width_px) for part in (dirt.phase_rad, dirt.absorption))
    return Dirt(phase, depth, dirt.opaque)


def _joined(part: torch.Tensor, width_px: int) -> torch.Tensor:
    for axis in (0, 1):
        length = part.shape[axis]
        place = torch.arange(length, device=part.device)
        inward = torch.minimum(place, length - 1 - place) / width_px
        share = (1 + torch.cos(math.pi * inward.clamp(max=1))) / 2
        share = share[:, None] if axis == 0 else share[None]
        border = (part.select(axis, 0) + part.select(axis, -1)).unsqueeze(axis) / 2
        part = part + share * (border - part)
    return part


def carbon_film(field: Patch, rng: np.random.Generator, thickness_angstrom: float) -> Dirt:
    """Make a thin film of carbon over the whole field: particles lie on it and stay visible."""
    depth = thickness_angstrom / CARBON_MEAN_FREE_PATH_ANGSTROM
    grain = field.white(_carbon_grain(field, thickness_angstrom, rng))
    return Dirt(grain, torch.full_like(grain, depth), field.zeros())


def carbon_edge(
    field: Patch,
    rng: np.random.Generator,
    *,
    thickness_angstrom: float,
    hole_radius_angstrom: float,
    relief: float = 0.08,
    speckle: float = 0.0,
) -> Dirt:
    """Make the edge of a carbon film with its grain.

    Parameters
    ----------
    field
        The field.
    rng
        Random generator for the place of the edge, its steepness, and whether there are particles on the carbon.
    thickness_angstrom
        Thickness of the film.
    hole_radius_angstrom
        Radius of the hole, which is free of carbon; infinite for a straight edge.
    relief
        Rms of its uneven thickness, as a part of the mean.
    speckle
        Rms of what grains of sputtered metal or of soil do to the counts, as a part of them. They absorb, so the transfer
        of contrast does not damp them at low frequencies, as it damps the grain of carbon itself.
    """
    within = _ramp(_beyond_hole(field, rng, hole_radius_angstrom), _log(rng, (20, 250)))
    uneven = field.texture(random_spectrum(rng)).mul_(relief).add_(1).clamp_min_(0.1)
    phase = min(field.radian_per_volt_angstrom * (CARBON_VOLT - ICE_VOLT) * thickness_angstrom, STEEPEST_PHASE_RAD)
    grain = field.white(_carbon_grain(field, thickness_angstrom, rng))
    depth = uneven.mul_(within).mul_(thickness_angstrom / CARBON_MEAN_FREE_PATH_ANGSTROM)
    opaque = (within > 0.5).float() if rng.random() < 0.6 or thickness_angstrom > 300 else field.zeros()
    if speckle:
        spectrum = Spectrum(rng.uniform(0, 1.5), _log(rng, (100, 1000)), _log(rng, (2, 8)))
        speckles = field.texture(spectrum).mul_(speckle).clamp_(-0.8, 0.8)
        depth -= speckles.log1p_().mul_(within)
    return Dirt(grain.mul_(within.sqrt()).add_(within, alpha=phase), depth, opaque)


def gold_edge(field: Patch, rng: np.random.Generator, *, hole_radius_angstrom: float) -> Dirt:
    """Make the edge of a gold foil: nearly black, with crystallites of different scattering; see `carbon_edge`."""
    within = _ramp(_beyond_hole(field, rng, hole_radius_angstrom, rough_angstrom=(5, 25)), _log(rng, (10, 60)))
    depth = float(rng.uniform(1.0, 3.5))
    crystallites = field.soft((_log(rng, (80, 400)), 3.0))
    absorption = crystallites.tanh_().mul_(0.25 * depth).add_(depth).mul_(within)
    phase = field.white(float(rng.uniform(0.05, 0.3))).add_(STEEPEST_PHASE_RAD).mul_(within)
    return Dirt(phase, absorption, (within > 0.05).float())


def crystal(field: Patch, rng: np.random.Generator, *, diameter_angstrom: float) -> Dirt:
    """Make a crystal of ice or ethane: round or faceted, darker than the ice, with bright and dark bands.

    Parameters
    ----------
    field
        The field; the centre of the crystal may lie a little outside.
    rng
        Random generator for place, shape and contrast.
    diameter_angstrom
        Diameter of the crystal.
    """
    radius = diameter_angstrom / 2
    centre = _place(field, rng, margin=0.5 * radius)
    rows, columns = field.window(centre, 1.25 * radius)
    y, x = field.axes(centre)
    y, x = y[rows], x[:, columns]
    distance = _faceted(y, x, radius, rng) if rng.random() < 0.6 else _round(y, x, radius, rng)
    # A crystal is a dome, or a slab with steep sides.
    dome = rng.random() < 0.5
    height = (1 - distance**2).clamp_min(0).sqrt() if dome else _ramp((1 - distance) * radius, _log(rng, (10, 60)))
    thickness = diameter_angstrom * float(rng.uniform(0.3, 1.0))
    depth = min(thickness / 2500.0, 1.5) * float(rng.uniform(0.5, 1.5))
    phase = min(field.radian_per_volt_angstrom * ICE_VOLT * thickness, STEEPEST_PHASE_RAD)
    bands = torch.zeros_like(height)
    for _ in range(int(rng.integers(0, 4))):
        angle, period = (
            rng.uniform(0, 2 * math.pi),
            _log(rng, (max(30.0, 0.1 * diameter_angstrom), diameter_angstrom + 60)),
        )
        along = y * math.sin(angle) + x * math.cos(angle) + 0.15 * (y**2 + x**2) / radius
        bands += float(rng.uniform(0.1, 0.5)) * torch.cos(along * (2 * math.pi / period) + float(rng.uniform(0, 6.28)))
    piece = Dirt(field.zeros(), field.zeros(), field.zeros())
    piece.phase_rad[rows, columns] = phase * height
    piece.absorption[rows, columns] = depth * height * (1 + bands)
    piece.opaque[rows, columns] = (height > 0.05).float()
    return piece


def spots(field: Patch, rng: np.random.Generator, *, diameters_angstrom: Sequence[float]) -> Dirt:
    """Make small dark spots: contamination, or gold beads, which are darker."""
    piece = Dirt(field.zeros(), field.zeros(), field.zeros())
    gold = rng.random() < 0.3
    for diameter in diameters_angstrom:
        radius = diameter / 2
        centre = _place(field, rng, margin=0.0)
        rows, columns = field.window(centre, 1.6 * radius + 2 * field.pixel_size_angstrom)
        y, x = field.axes(centre)
        shape = _distance(y[rows] * float(rng.uniform(0.8, 1.25)), x[:, columns]) / radius
        height = (1 - shape**2).clamp_min(0).sqrt() if gold else torch.exp(-2 * shape**2)
        depth = min(diameter / 60.0, 2.5) if gold else float(rng.uniform(0.02, 0.3))
        phase = min(0.02 * diameter, STEEPEST_PHASE_RAD) if gold else float(rng.uniform(0.1, 0.6))
        piece.phase_rad[rows, columns] += phase * height
        piece.absorption[rows, columns] += depth * height
        piece.opaque[rows, columns] = torch.maximum(piece.opaque[rows, columns], (height > 0.2).float())
    return piece


def crack(field: Patch, rng: np.random.Generator) -> Dirt:
    """Make a crack: a bent bright line, 15 to 300 angstrom wide, without ice and without particles."""
    width, loss = _log(rng, (15, 300)), float(rng.uniform(100, 500))
    signed = _beyond_hole(field, rng, _log(rng, (1500, 20_000)), rough_angstrom=(20, 150))
    half = field.soft((_log(rng, (200, 900)), 0.2 * width)).add_(0.5 * width)
    missing = _ramp(half.sub_(signed.abs_()), _log(rng, (8, 40)))
    phase = -min(field.radian_per_volt_angstrom * ICE_VOLT * loss, STEEPEST_PHASE_RAD)
    return Dirt(phase * missing, missing * (-loss / 3000.0), (missing > 0.3).float())


def frost(field: Patch, rng: np.random.Generator, *, rms: float, spectrum: Spectrum) -> Dirt:
    """Make frost: crystals too many and too small to tell apart, which make the ice uneven, at lengths that are drawn.

    Particles stay visible in it.

    Parameters
    ----------
    field
        The field.
    rng
        Random generator for whether frost absorbs or shifts the phase.
    rms
        Rms of the change of the counts, as a part of them; of the phase, in radian, if it shifts the phase.
    spectrum
        Its power by frequency.
    """
    uneven = field.texture(spectrum).mul_(rms)
    if rng.random() < 0.3:
        return Dirt(uneven.clamp_(-STEEPEST_PHASE_RAD, STEEPEST_PHASE_RAD), field.zeros(), field.zeros())
    # Brighter as often and as much as darker: noise is no more often dark than bright, and particles are.
    return Dirt(field.zeros(), uneven.clamp_(-0.8, 0.8).log1p_().neg_(), field.zeros())


def _carbon_grain(field: Patch, thickness_angstrom: float, rng: np.random.Generator) -> float:
    """Give the power spectral density of the phase of atoms at random places; short-range order reduces it."""
    atom = field.radian_per_volt_angstrom * CARBON_ATOM_VOLT_ANGSTROM3
    return CARBON_ATOMS_PER_ANGSTROM3 * thickness_angstrom * atom**2 * _log(rng, (0.1, 0.7))


def _beyond_hole(
    field: Patch, rng: np.random.Generator, radius_angstrom: float, *, rough_angstrom: Range = (5.0, 60.0)
) -> torch.Tensor:
    """Give the distance from an uneven edge in angstrom, positive outside the hole; the edge crosses the field."""
    height, width = field.extent_angstrom
    at = rng.uniform(0.1, 0.9) * height, rng.uniform(0.1, 0.9) * width
    # The hole lies on the side of the middle more often than not, as where people take pictures.
    towards = math.atan2(height / 2 - at[0], width / 2 - at[1]) + float(rng.normal(0, 0.7))
    sine, cosine = math.sin(towards), math.cos(towards)
    if math.isinf(radius_angstrom):
        y, x = field.axes(at)
        distance = -(y * sine + x * cosine)
    else:
        y, x = field.axes((at[0] + radius_angstrom * sine, at[1] + radius_angstrom * cosine))
        distance = _distance(y, x) - radius_angstrom
    lengths = _log(rng, (400, 1500)), _log(rng, (60, 250))
    rough = [(length, _log(rng, rough_angstrom) * (length / 600) ** 0.5) for length in lengths]
    return distance.add_(field.soft(*rough))


def _distance(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Give the length of (y, x), five times as fast as `torch.hypot` on a CPU."""
    return (y**2 + x**2).sqrt_()


def _ramp(distance: torch.Tensor, width_angstrom: float) -> torch.Tensor:
    """Rise smoothly from 0 to 1 across a width around distance 0."""
    part = (distance / width_angstrom).add_(0.5).clamp_(0, 1)
    return part.square().mul_(part.mul_(-2).add_(3))


def _faceted(y: torch.Tensor, x: torch.Tensor, radius: float, rng: np.random.Generator) -> torch.Tensor:
    """Give the distance from the middle, as a part of the distance to the border of a convex polygon."""
    sides = int(rng.integers(3, 7)) * 2 if rng.random() < 0.6 else int(rng.integers(4, 9))
    turns = rng.uniform(0, 2 * math.pi) + (np.arange(sides) + rng.uniform(-0.15, 0.15, sides)) * 2 * math.pi / sides
    distance = torch.zeros((y.shape[0], x.shape[1]), device=y.device)
    for turn, reach in zip(turns, rng.uniform(0.65, 1.0, sides), strict=True):
        distance = torch.maximum(distance, (y * math.sin(turn) + x * math.cos(turn)) / (radius * float(reach)))
    return distance


def _round(y: torch.Tensor, x: torch.Tensor, radius: float, rng: np.random.Generator) -> torch.Tensor:
    """Give the distance from the middle, as a part of the distance to the border of a slightly uneven disc."""
    angle = torch.atan2(y, x)
    border = torch.ones_like(angle)
    for order in (2, 3, 5):
        border += float(rng.uniform(0, 0.08)) * torch.cos(order * angle + float(rng.uniform(0, 6.28)))
    return _distance(y, x) / (radius * border)


def _place(field: Patch, rng: np.random.Generator, *, margin: float) -> tuple[float, float]:
    height, width = field.extent_angstrom
    return float(rng.uniform(-margin, height + margin)), float(rng.uniform(-margin, width + margin))


def _hole(rng: np.random.Generator, chances: DirtPopulation) -> float:
    return math.inf if rng.random() < 1 / 3 else _log(rng, chances.hole_radius_angstrom)


def _log(rng: np.random.Generator, limits: Range) -> float:
    return float(np.exp(rng.uniform(np.log(limits[0]), np.log(limits[1]))))
