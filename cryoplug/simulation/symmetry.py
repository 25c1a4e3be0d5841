"""Point groups of rotations, and how close the copies of a subunit can stand around the origin."""

from __future__ import annotations

import numpy as np

from cryoplug.simulation.domains import rotation_onto, turn_about_z
from cryoplug.simulation.specimen import FloatArray

_GOLDEN = (1 + np.sqrt(5)) / 2


def point_group(name: str) -> FloatArray:
    """Return the rotations of a point group.

    Parameters
    ----------
    name
        ``C`` or ``D`` with a number of 1 or more (the main axis is z, the first one; a two-fold of D lies along y),
        ``T``, ``O`` or ``I``.

    Returns
    -------
    ndarray
        ``(g, 3, 3)``, the identity first; g is n, 2n, 12, 24, 60.
    """
    if name[0] in "CD":
        order = int(name[1:])
        turns = [turn_about_z(2 * np.pi * step / order) for step in range(order)]
        flip = np.diag([-1.0, 1.0, -1.0])
        return np.array(turns if name[0] == "C" else turns + [turn @ flip for turn in turns])
    generators = {
        "T": (_turn((1, 1, 1), 3), _turn((0, 0, 1), 2)),
        "O": (_turn((1, 1, 1), 3), _turn((0, 0, 1), 4)),
        "I": (_turn((1, 1, 1), 3), _turn((0, 1, _GOLDEN), 5)),
    }[name]
    return _generated(generators)


def touching_distance(
    centres: FloatArray, radii: FloatArray, direction: FloatArray, rotations: FloatArray, *, overlap: float = 0.12
) -> float:
    """Return how far along `direction` a subunit must stand so that its copies just touch.

    Parameters
    ----------
    centres, radii
        The balls that form the subunit, ``(k, 3)`` and ``(k,)`` angstrom, around the origin.
    direction
        Unit vector along which the subunit is shifted.
    rotations
        The group, identity first.
    overlap
        How far balls may overlap, as a part of the sum of their radii.

    Returns
    -------
    float
        Angstrom, 0 or more.
    """
    others = rotations[1:]
    if not len(others):
        return 0.0
    least = (1 - overlap) * (radii[:, None] + radii[None, :])

    def free(distance: float) -> bool:
        here = centres + distance * direction
        there = np.einsum("gij,nj->gni", others, here)
        gaps = np.sqrt(((here[None, :, None, :] - there[:, None, :, :]) ** 2).sum(axis=-1)) - least
        return bool(gaps.min() >= 0)

    size = float((np.sqrt((centres**2).sum(axis=1)) + radii).max())
    low, high = 0.0, size
    while not free(high) and high < 64 * size:
        low, high = high, 2 * high
    while high - low > 1.0:
        middle = (low + high) / 2
        low, high = (low, middle) if free(middle) else (middle, high)
    return high


def holds_together(centres: FloatArray, radii: FloatArray, rotations: FloatArray, *, gap: float = 0.15) -> bool:
    """Say whether the copies of a subunit form one body.

    Parameters
    ----------
    centres, radii
        Balls of the subunit in its place, ``(k, 3)`` and ``(k,)`` angstrom.
    rotations
        The group, identity first.
    gap
        Balls count as touching if their gap is at most this part of their radii.
    """
    there = np.einsum("gij,nj->gni", rotations[1:], centres)
    apart = np.sqrt(((centres[None, :, None] - there[:, None]) ** 2).sum(axis=-1))
    touching = rotations[1:][(apart < (1 + gap) * (radii[:, None] + radii[None, :])).any(axis=(1, 2))]
    return len(_generated(tuple(touching))) == len(rotations)


def _turn(axis: tuple[float, float, float], order: int) -> FloatArray:
    unit = np.asarray(axis, np.float64) / np.sqrt(np.sum(np.square(axis)))
    frame = rotation_onto(unit)
    return frame @ turn_about_z(2 * np.pi / order) @ frame.T


def _generated(generators: tuple[FloatArray, ...]) -> FloatArray:
    """Give all products of the generators."""
    members = [np.eye(3)]
    for member in members:  # Grows while it is walked.
        for generator in generators:
            product = member @ generator
            if all(np.abs(product - known).max() > 1e-6 for known in members):
                members.append(product)
    return np.array(members)
