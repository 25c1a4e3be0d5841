"""Read an opened store for its page: the numbers of every micrograph, and small pictures of some."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from cryoplug.core.micrograph import ImageF32
from cryoplug.reports.grey_panels import small
from cryoplug.reports.store_page import PICTURE_PX, StoreEntry, choose_pictures
from cryoplug.store.grid import Crop
from cryoplug.store.pairs import PairStore

MOST_PIXELS = 1 << 28
"""Most pixels to read: a gigabyte of a large store, in some seconds."""


def look_into_store(store: PairStore) -> list[StoreEntry]:
    """Give every micrograph of a store; for bare bins every patch, up to some hundreds."""
    entries, places = _listed(store) if store.manifest is not None else _bare(store)
    pixels = store.patch_shape[0] * store.patch_shape[1]
    wanted = max(1, MOST_PIXELS // pixels)
    step = max(1, -(-len(entries) // wanted))
    for index in range(0, len(entries), step):
        part = _read(store, *places[index])
        entries[index] = dataclasses.replace(
            entries[index], mean_inside=float(part.mean()), sigma_inside=float(part.std())
        )
    for index in choose_pictures(entries):
        entries[index] = dataclasses.replace(entries[index], picture=small(_read(store, *places[index]), PICTURE_PX))
    return entries


def _listed(store: PairStore) -> tuple[list[StoreEntry], list[tuple[str, int]]]:
    """Give the micrographs of the manifest that have images, and for each the stored image in its middle."""
    assert store.manifest is not None
    images: dict[int, list[tuple[str, int]]] = {}
    for split in store.splits:
        for image, (micrograph, _, _) in enumerate(store.manifest.windows[split]):
            images.setdefault(micrograph, []).append((split, image))
    entries, places = [], []
    for number, entry in enumerate(store.manifest.micrographs):
        mine = images.get(number)
        if not mine:
            continue
        entries.append(
            StoreEntry(
                entry.name,
                entry.split,
                len(mine),
                mean=float(entry.normalization.get("offset", 0.0)),
                sigma=float(entry.normalization.get("scale", 1.0)),
                pixel_size_angstrom=entry.pixel_size_angstrom,
            )
        )
        places.append(mine[len(mine) // 2])
    return entries, places


def _bare(store: PairStore) -> tuple[list[StoreEntry], list[tuple[str, int]]]:
    places: list[tuple[str, int]] = []
    for split in store.splits:
        count = store.images(split)
        places += [(split, int(image)) for image in np.unique(np.linspace(0, count - 1, min(count, 400)).round())]
    entries = [StoreEntry(f"patch {image} of {split}", split, 1, mean=np.nan, sigma=np.nan) for split, image in places]
    return entries, places


def _read(store: PairStore, split: str, image: int) -> ImageF32:
    """Read a patch from the middle of a stored image."""
    shape = store.image_shape(image, split)
    side: Sequence[int] = [min(a, b) for a, b in zip(store.patch_shape, shape, strict=True)]
    out = np.empty(tuple(side), np.float32)
    store.read_crop(0, Crop(image, (shape[0] - side[0]) // 2, (shape[1] - side[1]) // 2), out, split=split)
    return out
