"""The particles that fields are drawn from: invented ones by their seeds, and real structures that were made into blobs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from cryoplug.simulation.molecules import random_molecule
from cryoplug.simulation.specimen import ParticleModel


def invented(count: int, *, seed: int) -> list[ParticleModel]:
    """Make particles; number n follows from seed and n alone."""
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(_invented, ((seed, number) for number in range(count)), chunksize=8))


def _invented(which: tuple[int, int]) -> ParticleModel:
    return random_molecule(np.random.default_rng(which))


def save(path: Path, models: Sequence[ParticleModel]) -> None:
    """Write particles to one ``.npz`` file, places rounded to 0.1 angstrom."""
    arrays: dict[str, np.ndarray] = {}
    for number, model in enumerate(models):
        weights = np.broadcast_to(np.asarray(model.blob_volt_angstrom3, np.float32), len(model.points_angstrom))
        arrays[f"{number}.points"] = np.rint(model.points_angstrom * 10).astype(np.int16)
        arrays[f"{number}.weights"] = weights.astype(np.float16)
        arrays[f"{number}.about"] = np.array([model.name, model.kind, str(model.blob_width_angstrom)])
    np.savez_compressed(path, **arrays)


def load(path: Path) -> list[ParticleModel]:
    """Read what `save` wrote."""
    models = []
    with np.load(path) as arrays:
        for number in range(len(arrays.files) // 3):
            name, kind, width = map(str, arrays[f"{number}.about"])
            points = arrays[f"{number}.points"].astype(np.float64) / 10
            weights = arrays[f"{number}.weights"].astype(np.float64)
            models.append(ParticleModel(name, points, weights, float(width), kind=kind))
    return models
