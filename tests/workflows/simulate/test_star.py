from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cryoplug.formats.star_frames import star_frames
from cryoplug.simulation.optics import Optics, contrast_transfer_plane
from cryoplug.simulation.placing import TrueParticle
from cryoplug.simulation.planes import FrequencyPlane
from cryoplug.simulation.specimen import ParticleModel, random_rotation
from cryoplug.workflows.simulate.star import coordinate_star, euler_angles


def turned(axis: int, degrees: float) -> np.ndarray:
    """Turn the axes of (x, y, z), not the vectors, as RELION writes its matrices."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrices = {1: [[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]], 2: [[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]}
    return np.array(matrices[axis])


def rebuilt(angles: tuple[float, float, float]) -> np.ndarray:
    rot, tilt, psi = angles
    return (turned(2, psi) @ turned(1, tilt) @ turned(2, rot))[::-1, ::-1]


@pytest.mark.parametrize("seed", range(20))
def test_the_angles_give_the_rotation_again(seed):
    rotation = random_rotation(np.random.default_rng(seed))
    angles = euler_angles(rotation)
    assert 0 <= angles[1] <= 180
    np.testing.assert_allclose(rebuilt(angles), rotation, atol=1e-9)


@pytest.mark.parametrize("tilt", [0.0, 180.0])
@pytest.mark.parametrize("psi", [0.0, 35.0, -120.0])
def test_also_along_the_axis(tilt, psi):
    rotation = rebuilt((0.0, tilt, psi))
    np.testing.assert_allclose(rebuilt(euler_angles(rotation)), rotation, atol=1e-9)


def test_a_listed_height_makes_the_underfocus_smaller_by_as_much():
    # The weaker lens of underfocus is in focus at what lies above the specimen, towards the source.
    ball = ParticleModel("ball", np.zeros((1, 3)), 500.0)
    deep = TrueParticle(ball, 1, 10.0, 10.0, depth_angstrom=1500.0, rotation=np.eye(3))
    (table,) = star_frames(coordinate_star([deep], "made by a test", Path("truth.star"))).values()
    height_um = float(table["cryoplugHeightAngstrom"][0]) / 1e4
    plane = FrequencyPlane.of((64, 64), 3.0, "cpu")
    seen = contrast_transfer_plane(plane, Optics(1.0), depth_angstrom=deep.depth_angstrom)
    torch.testing.assert_close(seen, contrast_transfer_plane(plane, Optics(1.0 - height_um)))
