"""Inspect a store of training pairs: manifest, counts, sizes and patches."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from cryoplug.core.results import Finding
from cryoplug.disk.atomic import PARTIAL_SUFFIX
from cryoplug.errors import FormatError, InputError
from cryoplug.metrics.micrograph_noise import MicrographNoise
from cryoplug.reports.html import counted
from cryoplug.store.grey_scale import ClippedPixels
from cryoplug.store.manifest import SPLITS, Manifest
from cryoplug.store.pairs import HDF5_NAME, PairStore, open_store
from cryoplug.store.raw import BIN_NAMES, INTERLEAVED_NAMES, MANIFEST_NAME, SISTER_NAMES
from cryoplug.workflows.inspect.inspection import Inspection

PAIR_BINS = frozenset(name for names in (*BIN_NAMES.values(), *SISTER_NAMES.values()) for name in names) | {
    *INTERLEAVED_NAMES.values()
}
"""File names of bare bins, including those of the founding program."""

_STORE_FILES = PAIR_BINS | {MANIFEST_NAME, HDF5_NAME}
_PIXELS_TO_READ = 1 << 29
"""Most pairs of pixels to read from a split (about 20 s); a larger split is sampled evenly."""


def is_store(folder: Path) -> bool:
    """Tell whether a folder holds a store, finished or not."""
    return folder.is_dir() and any(item.name in _STORE_FILES or _is_leftover(item) for item in folder.iterdir())


def inspect_store(path: Path, *, patch_size: int = 1024, verify: bool = False) -> Inspection:
    """Inspect a store.

    Parameters
    ----------
    path
        A folder with ``dataset.json`` or bare bins, or an ``.h5`` file.
    patch_size
        Side in pixels of the patches of bare bins.
    verify
        Read every patch, even of a large store, and compare it with the checksum that `convert` wrote.
    """
    files = sorted(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []
    known = [item for item in files if item == path or item.name in _STORE_FILES or _is_leftover(item)]
    summary: dict[str, Any] = {"size_bytes": {item.name: item.stat().st_size for item in known}}
    findings = [
        Finding("warning", item.name, "a convert was killed here or is still running; run the same convert again")
        for item in known
        if _is_leftover(item)
    ]
    try:
        store = open_store(path, patch_size=patch_size)
    except InputError as error:
        findings.insert(0, Finding("error", "store", str(error).removeprefix(f"{path}: ")))
        return Inspection(path, "store", summary, tuple(findings))
    with store:
        summary |= _manifest(store, findings)
        for split in SPLITS:
            summary[split] = _split(store, split, findings, everything=verify)
        if verify:
            changed = store.verify()
            findings += [Finding("error", "checksum", text.removeprefix(f"{path}: ")) for text in changed]
            summary["checksums"] = "none recorded" if store.manifest is None else f"{len(changed)} wrong"
    if not summary["train"]["pairs"]:
        findings.append(Finding("error", "train", "no training pairs; convert more or larger micrographs"))
    return Inspection(path, "store", summary, tuple(findings))


def _is_leftover(path: Path) -> bool:
    stem = path.name.lstrip(".")
    return path.name.endswith(PARTIAL_SUFFIX) and stem.startswith(("dataset", "noisy_", "clean_"))


def _manifest(store: PairStore, findings: list[Finding]) -> dict[str, Any]:
    manifest = store.manifest
    common = {"patch_shape": list(store.patch_shape), "dtype": np.dtype(store.dtype).name}
    if manifest is None:
        message = "no manifest: these are bare bins, and --patch-size says their patch shape"
        findings.append(Finding("note", "dataset.json", message))
        return {**common, "manifest": False}
    _check_manifest(manifest, findings)
    return {
        **common,
        "manifest": True,
        "store": "whole" if manifest.whole else "patches",
        "pairs": manifest.pairs,
        "normalize": manifest.normalize,
        "seed": manifest.seed,
        "stride": manifest.stride,
        "micrographs": {split: sum(entry.split == split for entry in manifest.micrographs) for split in SPLITS},
        "pixel_size_angstrom": sorted({entry.pixel_size_angstrom for entry in manifest.micrographs}, key=str),
        **_noise(manifest, findings),
        "software": manifest.software,
        "fingerprint": manifest.fingerprint(),
    }


def _noise(manifest: Manifest, findings: list[Finding]) -> dict[str, Any]:
    """Say how the noise of single exposures was measured, and how well it is known; empty for other stores."""
    if manifest.pairs != "single":
        return {}
    try:
        found = [MicrographNoise.from_dict(entry.noise or {}) for entry in manifest.micrographs]
    except FormatError as error:
        findings.append(Finding("error", "micrographs", str(error)))
        return {}
    known = [noise.uncertainty_db for noise in found if noise.uncertainty_db is not None]
    if doubtful := sum(not noise.trusted for noise in found):
        message = f"the noise of {doubtful} of {len(found)} micrographs is in doubt: compare the result with a Gaussian"
        findings.append(Finding("note", "micrographs", message))
    return {
        "noise_from": dict(sorted(Counter(noise.source for noise in found).items())),
        "noise_uncertainty_up_to_db": max(known) if len(known) == len(found) else None,
    }


def _check_manifest(manifest: Manifest, findings: list[Finding]) -> None:
    sizes = Counter(entry.pixel_size_angstrom for entry in manifest.micrographs)
    if manifest.pixel_size_angstrom is None and any(sizes):
        shown = ", ".join(
            f"{f'{size:.4g}' if size else 'unset'} ({counted(count, 'micrograph')})"
            for size, count in sorted(sizes.items(), key=str)
        )
        message = f"{len(sizes)} pixel sizes (A): {shown}; convert them apart: one scale a network"
        findings.append(Finding("warning", "pixel_size_angstrom", message))
    names = {split: {entry.name for entry in manifest.micrographs if entry.split == split} for split in SPLITS}
    for name in sorted(names["train"] & names["test"]):
        message = f"{name} is in train and in test, so the test would flatter; convert again"
        findings.append(Finding("error", "micrographs", message))
    for failure in manifest.failures:
        findings.append(Finding("note", "inputs", f"{failure.name} is missing from it: {failure.message}"))


def _split(store: PairStore, split: str, findings: list[Finding], *, everything: bool) -> dict[str, Any]:
    count = store.count(split)
    summary: dict[str, Any] = {"pairs": count}
    if store.whole:
        shapes = Counter(store.image_shape(image, split) for image in range(store.images(split)))
        summary["stored_whole"] = {f"{height}x{width}": number for (height, width), number in sorted(shapes.items())}
    if not count:
        return summary
    wanted = count if everything else min(count, max(1, _PIXELS_TO_READ // math.prod(store.patch_shape)))
    sample = sorted({round(position) for position in np.linspace(0, count - 1, wanted)})
    noisy, clean = (np.empty((1, *store.patch_shape), np.float32) for _ in range(2))
    sums = _Sums()
    clipped = ClippedPixels()
    nonfinite, copies, constant = [], [], []
    for index in sample:
        store.read([index], noisy, clean, split=split)
        bad = {name: int(part.size - np.isfinite(part).sum()) for name, part in (("noisy", noisy), ("clean", clean))}
        if any(bad.values()):
            nonfinite.append((index, ", ".join(f"{number} in {name}" for name, number in bad.items() if number)))
            continue
        sums.add(noisy, clean)
        clipped.add(clean)
        if store.sides == 2 and np.array_equal(noisy, clean):
            copies.append(index)
        if float(np.ptp(noisy)) == 0 or float(np.ptp(clean)) == 0:
            constant.append(index)
    for index, found in nonfinite:
        message = f"{store.describe(index, split)}: NaN or infinite pixels: {found}; convert again"
        findings.append(Finding("error", split, message))
    if clipped.remark and (store.manifest is None or store.manifest.normalize == "percentile"):
        findings.append(Finding("warning", split, clipped.remark))
    if copies:
        message = f"noisy equals clean in {len(copies)} of {len(sample)} patches looked at: nothing to learn there"
        findings.append(Finding("error" if len(copies) == len(sample) else "warning", split, message))
    if constant:
        where = store.describe(constant[0], split)
        message = f"{len(constant)} of {len(sample)} patches looked at are constant, the first: {where}"
        findings.append(Finding("warning", split, message + "; leave that micrograph out"))
    looked = {"patches_looked_at": len(sample), "patches_not_finite": len(nonfinite)}
    if store.sides == 2:
        looked["patches_with_noisy_equal_clean"] = len(copies)
    return {**summary, **looked, "patches_constant": len(constant), **sums.summary(sides=store.sides)}


class _Sums:
    """Sums of the pairs read so far, in float64, for means and correlations."""

    def __init__(self) -> None:
        self.count = 0
        self.moments = np.zeros(5)

    def add(self, noisy: np.ndarray, clean: np.ndarray) -> None:
        a, b = noisy.ravel().astype(np.float64), clean.ravel().astype(np.float64)
        self.count += a.size
        self.moments += (a.sum(), b.sum(), a @ a, b @ b, a @ b)

    def summary(self, *, sides: int) -> dict[str, float]:
        if not self.count:
            return {}
        mean_a, mean_b, square_a, square_b, product = (self.moments / self.count).tolist()
        std_a = max(square_a - mean_a**2, 0.0) ** 0.5
        std_b = max(square_b - mean_b**2, 0.0) ** 0.5
        covariance = product - mean_a * mean_b
        result = {"noisy_mean": mean_a, "noisy_std": std_a}
        if sides == 1:
            return result
        result |= {"clean_mean": mean_b, "clean_std": std_b}
        result["rmse_noisy_clean"] = max(square_a + square_b - 2 * product, 0.0) ** 0.5
        if std_a and std_b:
            result["correlation_noisy_clean"] = covariance / (std_a * std_b)
        return result
