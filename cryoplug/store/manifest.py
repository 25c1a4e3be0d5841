"""The record of a store: what its patches are, where each came from, and how it was normalised.

It is written last, as `dataset.json` beside the bins or as the attribute `manifest` of an HDF5 file. So a store that has
its manifest is complete.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

VERSION, WHOLE_VERSION = 1, 2
"""Version of a manifest of patches, and of whole micrographs; older programs must not take the second for patches."""
SPLITS = ("train", "test")
DTYPES = ("float32", "float16")
PAIR_REGIMES = ("noise", "clean", "halves", "single")
MAX_SIDE_PX = 1 << 17
"""Longest side of a micrograph or patch, as in `cryoplug.formats.mrc_header`."""
MAX_PIXEL_SIZE = 1e7
"""Largest pixel size: a millimetre, in angstrom."""

Window = tuple[int, int, int]
"""(index into `Manifest.micrographs`, y, x) of the patch's first pixel."""


@dataclass(frozen=True)
class MicrographEntry:
    """One micrograph whose patches are in the store."""

    name: str
    """Path as the convert listed it, below its input folder."""
    split: str
    """``train`` or ``test``: all patches of a micrograph are on one side, because neighbours overlap."""
    shape: tuple[int, int]
    """(y, x) in pixels."""
    pixel_size_angstrom: float | None
    """Pixel size; None if neither the header nor the STAR file states it."""
    normalization: dict[str, Any]
    """Normalization of the noisy pixels, as `Normalization.to_dict` writes it."""
    clean_name: str | None = None
    """The file of the clean side; None if it is the same file."""
    clean_normalization: dict[str, Any] | None = None
    """Normalization of the clean pixels; None if it is the same."""
    index: int = 0
    """Position in the input list of the convert; it seeds the noise."""
    crc32: int | None = None
    """CRC-32 of all its stored patches in order (noisy, clean, noisy, ...); for a whole micrograph, of its rows in that order."""
    noise: dict[str, Any] | None = None
    """Noise of a single exposure, as `cryoplug.metrics.micrograph_noise.MicrographNoise` writes it; None for others."""

    def __post_init__(self) -> None:
        """Turn lists from JSON into tuples."""
        object.__setattr__(self, "shape", tuple(self.shape))


@dataclass(frozen=True)
class FailedInput:
    """One input that the convert could not use."""

    index: int
    """Position in the input list of the convert."""
    name: str
    """Path as the convert listed it."""
    message: str
    """Why it could not be used."""
    exit_code: int
    """Exit code of the error class."""


@dataclass(frozen=True)
class Manifest:
    """Everything about a store except its pixels. Built without micrographs it is the head of a new store."""

    patch_shape: tuple[int, int]
    """(y, x) of a patch in pixels; for whole micrographs, of the crops for training."""
    dtype: str
    """``float32`` or ``float16``, little-endian."""
    pairs: str
    """Where the two sides come from: ``noise``, ``clean`` or ``halves``. ``single``: one side, which is given as both."""
    normalize: str
    """Kind of normalization; each micrograph has its own numbers."""
    seed: int
    """Seed of the split and of the noise."""
    stride: int
    """Pixels between neighbouring patches, in y and in x."""
    counts: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    """Number of stored pairs in each split: pairs of patches, or of whole micrographs."""
    micrographs: tuple[MicrographEntry, ...] = ()
    """The micrographs, in the order in which they were written."""
    windows: Mapping[str, tuple[Window, ...]] = field(default_factory=lambda: dict.fromkeys(SPLITS, ()))
    """For each stored pair of each split: (micrograph index, y, x); y and x are 0 for whole micrographs."""
    software: str = ""
    """Versions of the software that wrote the store."""
    request: Mapping[str, Any] = field(default_factory=dict)
    """Options and a digest of the inputs; they show whether a second convert asks for the same store."""
    failures: tuple[FailedInput, ...] = ()
    """Inputs that are missing from the store, and why."""
    version: int = VERSION
    """Version of this record."""
    whole: bool = False
    """Whether the stored images are whole micrographs instead of patches."""
    inputs: tuple[str, ...] = ()
    """Names with which `denoise` finds these micrographs: files, folders, patterns and lists as the user gave them, relative
    to the working folder. Empty if halves, movies or too many files were named."""

    def __post_init__(self) -> None:
        """Turn lists into tuples."""
        object.__setattr__(self, "patch_shape", tuple(self.patch_shape))
        object.__setattr__(self, "micrographs", tuple(self.micrographs))
        object.__setattr__(self, "failures", tuple(self.failures))
        object.__setattr__(self, "inputs", tuple(self.inputs))
        windows = {split: tuple(map(tuple, self.windows.get(split, ()))) for split in SPLITS}
        object.__setattr__(self, "windows", windows)
        object.__setattr__(self, "version", WHOLE_VERSION if self.whole else VERSION)

    @property
    def pixel_size_angstrom(self) -> float | None:
        """The pixel size of all micrographs, equal to 1 %; None if unknown or mixed."""
        sizes = [entry.pixel_size_angstrom for entry in self.micrographs]
        known = [size for size in sizes if size is not None]
        if not known or len(known) < len(sizes) or max(known) > 1.01 * min(known):
            return None
        return known[0]

    @property
    def angpix(self) -> float | None:
        """The pixel size to which convert cropped; None if it did not crop."""
        found = self.request.get("angpix")
        if isinstance(found, (int, float)) and not isinstance(found, bool) and 0 < found < MAX_PIXEL_SIZE:
            return float(found)
        return None

    @property
    def exposures(self) -> np.ndarray:
        """For each micrograph, the number of its exposure or stack; all differ unless convert noted otherwise."""
        known = self.request.get("exposures")
        count = len(self.micrographs)
        if not isinstance(known, list) or not all(type(number) is int and 0 <= number < len(known) for number in known):
            return np.arange(count)
        if any(entry.index >= len(known) for entry in self.micrographs):
            return np.arange(count)
        return np.array([known[entry.index] for entry in self.micrographs], np.int64)

    @property
    def halves_alike(self) -> bool:
        """Whether the halves are equally noisy: their grey-value deviations agree to 15 % on all micrographs."""
        for entry in self.micrographs:
            even, odd = ((record or {}).get("scale") for record in (entry.normalization, entry.clean_normalization))
            if not (isinstance(even, float) and isinstance(odd, float) and 1 / 1.15 < even / (odd or 1e-30) < 1.15):
                return False
        return True

    @property
    def sides(self) -> int:
        """How many images of each place are stored: 2; for single exposures 1."""
        return 1 if self.pairs == "single" else 2

    def fingerprint(self) -> str:
        """Return the sha256 of everything that defines the training data; pixels count through their CRC-32.

        Software, request, names from the user and failed inputs do not count, so the same pairs have the same fingerprint.
        """
        record = self._record()
        for name in ("software", "request", "failures", "inputs"):
            record.pop(name, None)
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """Write the manifest as JSON: one line for each field and each micrograph, windows packed."""
        lines = []
        for name, value in self._record().items():
            if name in ("micrographs", "failures") and value:
                rows = ",\n  ".join(_dump(item) for item in value)
                lines.append(f'"{name}": [\n  {rows}\n ]')
            else:
                lines.append(f'"{name}": {_dump(value)}')
        return "{\n " + ",\n ".join(lines) + "\n}\n"

    def image_shapes(self, split: str) -> list[tuple[int, int]]:
        """Return (y, x) of each stored micrograph of a split, in order; empty if patches are stored."""
        return [self.micrographs[micrograph].shape for micrograph, _, _ in self.windows[split] if self.whole]

    def _record(self) -> dict[str, Any]:
        record = dataclasses.asdict(self)
        if not self.whole:  # as in the files of the first version
            del record["whole"]
        if not self.inputs:
            del record["inputs"]
        for entry in record["micrographs"]:
            if entry["noise"] is None:
                del entry["noise"]
        return record


def _dump(value: object) -> str:
    # ASCII escapes keep a file name that is not UTF-8 (lone surrogates) readable again.
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
