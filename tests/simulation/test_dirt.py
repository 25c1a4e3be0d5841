from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from cryoplug.simulation import dirt
from cryoplug.simulation.field import Field, Placed, expose
from cryoplug.simulation.ice import Ice
from cryoplug.simulation.optics import interaction_constant
from cryoplug.simulation.patch import Patch
from cryoplug.simulation.specimen import particle_models
from cryoplug.simulation.texture import random_spectrum

SIGMA = interaction_constant(300.0)


def patch(size: int = 256, pixel: float = 4.0, seed: int = 0) -> Patch:
    return Patch((size, size), pixel, torch.Generator().manual_seed(seed), SIGMA)


PIECES = {
    "carbon": lambda field, rng: dirt.carbon_edge(field, rng, thickness_angstrom=200, hole_radius_angstrom=4000),
    "straight carbon": lambda field, rng: dirt.carbon_edge(
        field, rng, thickness_angstrom=200, hole_radius_angstrom=math.inf
    ),
    "gold": lambda field, rng: dirt.gold_edge(field, rng, hole_radius_angstrom=4000),
    "crystal": lambda field, rng: dirt.crystal(field, rng, diameter_angstrom=500),
    "spots": lambda field, rng: dirt.spots(field, rng, diameters_angstrom=[150, 140, 130]),
    "crack": lambda field, rng: dirt.crack(field, rng),
}


def frost(field, rng):
    return dirt.frost(field, rng, rms=0.1, spectrum=random_spectrum(rng))


@pytest.mark.parametrize("make", [*PIECES.values(), frost], ids=[*PIECES, "frost"])
def test_a_piece_is_the_same_for_the_same_seeds_and_finite(make):
    one, other = (make(patch(), np.random.default_rng(3)) for _ in range(2))
    for first, second in zip(dataclasses.astuple(one), dataclasses.astuple(other), strict=True):
        assert first.shape == (256, 256)
        assert torch.equal(first, second)
        assert torch.isfinite(first).all()
    assert set(one.opaque.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("kind", PIECES)
def test_a_piece_does_not_change_with_the_sampling(kind):
    """The same dirt at half the pixel size, averaged over 2 x 2 pixels, is the same but at its edges."""
    coarse = PIECES[kind](patch(128, 8.0), np.random.default_rng(5)).absorption
    fine = PIECES[kind](patch(256, 4.0), np.random.default_rng(5)).absorption
    binned = fine.reshape(128, 2, 128, 2).mean(dim=(1, 3))
    assert float(binned.abs().max()) > 0
    correlation = torch.corrcoef(torch.stack((coarse.flatten(), binned.flatten())))[0, 1]
    assert float(correlation) > 0.9
    assert float(coarse.mean()) == pytest.approx(float(binned.mean()), rel=0.25, abs=1e-4)


def test_carbon_takes_the_beam_by_its_thickness_and_leaves_the_hole_alone():
    for seed in range(5):
        piece = dirt.carbon_edge(
            patch(seed=seed), np.random.default_rng(seed), thickness_angstrom=500, hole_radius_angstrom=5000
        )
        depth = 500 / dirt.CARBON_MEAN_FREE_PATH_ANGSTROM
        assert float(piece.absorption.max()) == pytest.approx(depth, rel=0.4)
        assert float(piece.absorption.min()) == 0
        hole = piece.absorption == 0
        assert 0.02 < float(hole.float().mean()) < 0.98
        assert not piece.phase_rad[hole].any() and not piece.opaque[hole].any()


def test_the_grain_of_carbon_has_one_power_spectrum_at_any_sampling():
    powers = []
    for size, pixel in ((256, 2.0), (128, 4.0)):
        film = dirt.carbon_film(patch(size, pixel), np.random.default_rng(1), 60.0)
        powers.append(float(film.phase_rad.var()) * pixel**2)
    assert powers[0] == pytest.approx(powers[1], rel=0.05)
    at_random = dirt.CARBON_ATOMS_PER_ANGSTROM3 * 60 * (SIGMA * dirt.CARBON_ATOM_VOLT_ANGSTROM3) ** 2
    assert 0.08 * at_random < powers[0] < 0.8 * at_random


def test_gold_is_nearly_black_and_hides_particles():
    piece = dirt.gold_edge(patch(), np.random.default_rng(0), hole_radius_angstrom=5000)
    ball = particle_models(np.random.default_rng(0))[0]
    y, x = (int(values[len(values) // 2]) for values in torch.nonzero(piece.absorption > 0.9, as_tuple=True))
    placed = Placed(ball, np.array([[y, x]], np.float64), np.eye(3)[None], np.zeros(1))
    quiet = Ice(slope=0, texture=0, grain_rad=0)
    made = expose(Field((256, 256), 4.0, ice=quiet), [placed], torch.Generator().manual_seed(0), dirt=piece)
    open_, gold = piece.absorption == 0, piece.absorption > 0.9
    assert float(made.image[gold].mean()) < 0.5 * float(made.image[open_].mean())
    bare = expose(Field((256, 256), 4.0, ice=quiet), [placed], torch.Generator().manual_seed(0))
    assert float(made.particles[y, x].abs()) < 0.2 * float(bare.particles[y, x].abs())


def test_a_crystal_is_darker_than_its_surroundings_and_of_its_size():
    areas = []
    for seed in range(30):
        piece = dirt.crystal(patch(seed=seed), np.random.default_rng(seed), diameter_angstrom=400)
        assert float(piece.absorption.sum()) > 0
        areas.append(float(piece.opaque.sum()) * 16)
    whole = np.pi * 200**2
    assert 0.4 * whole < np.max(areas) < 1.4 * whole


def test_a_crack_is_bright_and_thin():
    piece = dirt.crack(patch(), np.random.default_rng(2))
    assert float(piece.absorption.min()) < -0.01 and float(piece.absorption.max()) <= 0
    assert 0 < float((piece.absorption < 0).float().mean()) < 0.5


def test_frost_is_bright_as_often_as_dark_and_hides_no_particle():
    found = 0
    for seed in range(20):
        piece = frost(patch(seed=seed), np.random.default_rng(seed))
        assert not piece.opaque.any()
        if piece.phase_rad.any():
            assert not piece.absorption.any()
            assert float(piece.phase_rad.std()) == pytest.approx(0.1, rel=0.01)
            continue
        counts = torch.exp(-piece.absorption) - 1
        assert float(counts.std()) == pytest.approx(0.1, rel=0.01)
        assert abs(float(counts.mean())) < 1e-5
        found += 1
    assert 10 <= found < 20


def test_carbon_is_as_uneven_as_asked():
    even, uneven = (
        dirt.carbon_edge(
            patch(), np.random.default_rng(1), thickness_angstrom=500, hole_radius_angstrom=5000, relief=relief
        )
        for relief in (0.0, 0.1)
    )
    film = even.absorption > 0
    assert float((uneven.absorption[film] / even.absorption[film] - 1).std()) == pytest.approx(0.1, rel=0.3)


def test_speckles_change_the_counts_as_much_as_asked_and_only_on_the_film():
    even, grainy = (
        dirt.carbon_edge(
            patch(),
            np.random.default_rng(1),
            thickness_angstrom=200,
            hole_radius_angstrom=5000,
            relief=0.0,
            speckle=speckle,
        )
        for speckle in (0.0, 0.1)
    )
    whole = even.absorption > 0.999 * even.absorption.max()
    change = torch.exp(even.absorption - grainy.absorption) - 1
    assert float(change[whole].std()) == pytest.approx(0.1, rel=0.1)
    assert abs(float(change[whole].mean())) < 0.01
    assert not grainy.absorption[even.absorption == 0].any()
    assert torch.equal(even.phase_rad, grainy.phase_rad) and torch.equal(even.opaque, grainy.opaque)


def test_pieces_add_up():
    field = patch()
    first, second = PIECES["spots"](field, np.random.default_rng(0)), PIECES["crystal"](field, np.random.default_rng(1))
    both = dirt.together([first, second])
    torch.testing.assert_close(both.phase_rad, first.phase_rad + second.phase_rad)
    torch.testing.assert_close(both.absorption, first.absorption + second.absorption)
    torch.testing.assert_close(both.opaque, torch.maximum(first.opaque, second.opaque))


@pytest.mark.parametrize("clean", [0.0, 0.5, 1.0])
def test_as_many_fields_are_clean_as_the_population_says(clean):
    population = dirt.DirtPopulation(clean=clean)
    drawn = [
        dirt.random_dirt(
            (64, 64), 8.0, np.random.default_rng(seed), torch.Generator().manual_seed(seed), population=population
        )
        for seed in range(120)
    ]
    # A dirty field may by chance draw none of the kinds.
    share = np.mean([piece is None for piece in drawn])
    none = np.prod([1 - getattr(population, kind) for kind in ("carbon", "crystals", "spots", "crack", "frost")])
    none *= 1 - population.gold
    assert share == pytest.approx(clean + (1 - clean) * none, abs=0.13)


def test_odd_shapes_and_tiny_fields_are_made():
    for shape in ((33, 71), (1, 5), (17, 400)):
        population = dirt.DirtPopulation(0, 1, 0, 1, 1, 1, 1)
        piece = dirt.random_dirt(shape, 2.0, np.random.default_rng(0), torch.Generator(), population=population)
        assert piece is not None and piece.phase_rad.shape == shape


def test_frost_has_the_spectrum_that_its_population_asks_for():
    kinds = dict.fromkeys(("clean", "carbon", "gold", "crystals", "spots", "crack"), 0.0)
    shares = []
    for slope in (0.5, 4.0):
        population = dirt.DirtPopulation(
            **kinds, frost=1.0, frost_slope=(slope, slope), frost_longest_angstrom=(800.0, 800.0)
        )
        low = []
        for seed in range(12):
            random = torch.Generator().manual_seed(seed)
            piece = dirt.random_dirt((256, 256), 4.0, np.random.default_rng(seed), random, population=population)
            power = torch.fft.rfft2(piece.phase_rad + piece.absorption - piece.absorption.mean()).abs() ** 2
            low.append(float(power[:6, :6].sum() / power.sum()))
        shares.append(np.median(low))
    assert shares[1] > 5 * shares[0]
