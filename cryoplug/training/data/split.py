"""Which patches train and which validate: decided once, by micrograph, and written down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryoplug.disk.atomic import storage_errors
from cryoplug.errors import FormatError, InputError, MissingInputError, UsageError
from cryoplug.store.pairs import PairStore

_SPLIT_STREAM = 0x5371
"""Number of the random stream of the split; the order of an epoch has another."""
MAX_INDEX_FILE_BYTES = 256 << 20


@dataclass(frozen=True)
class Split:
    """Patch indices of the store's ``train`` part, ascending, without overlap."""

    train: np.ndarray
    """Patches to learn from."""
    validation: np.ndarray
    """Patches to measure on; may be empty."""
    note: str = ""
    """A remark for the user, in one line."""
    end_row: int | None = None
    """If a single micrograph is divided: first row for validation; training crops end above it. Else None."""


def split_patches(store: PairStore, *, fraction: float, seed: int, val_indices: Path | None = None) -> Split:
    """Hold out patches for validation.

    From bare bins, the last ``int(n * fraction)`` patches are held out, as in the founding program. With a manifest, whole
    micrographs are held out, because neighbouring patches overlap; and with a micrograph all others of the same exposure or
    stack. A single micrograph is divided: patches of its last rows validate, and patches that overlap them are not used.

    Parameters
    ----------
    store
        The opened store.
    fraction
        Part to hold out, 0 to below 1.
    seed
        Decides which micrographs.
    val_indices
        A file that names the validation patches instead, one index a line.

    Raises
    ------
    UsageError
        Nothing would be left to validate on, or to train on.
    """
    count = store.count("train")
    if count == 0:
        raise InputError(f"{store.path}: no training patches; convert more micrographs or a smaller --patch-size")
    everything = np.arange(count)
    if val_indices is not None:
        held_out = read_indices(val_indices, count)
        rest = np.setdiff1d(everything, held_out)
        if not rest.size:
            raise UsageError(f"{val_indices}: names all {count} patches; leave some for training")
        if store.whole and (shared := _micrographs(store, rest) & _micrographs(store, held_out)):
            name = store.manifest.micrographs[min(shared)].name if store.manifest else ""
            raise UsageError(
                f"{val_indices}: names only some crops of {name}, which is cut anywhere for training; "
                "name all crops of a micrograph or none"
            )
        return Split(rest, held_out)
    if fraction == 0:
        return Split(everything, everything[:0], "no validation (--val-split 0): the best epoch is by training loss")
    if store.manifest is None:
        size = int(count * fraction)
        if size == 0:
            least = next(step / 1000 for step in range(1, 1001) if int(count * step / 1000) >= 1)
            raise UsageError(
                f"{store.path}: --val-split {fraction:g} of {count} patches holds out none; "
                f"give --val-split {least:g} or more, or 0 for no validation"
            )
        return Split(everything[: count - size], everything[count - size :])
    micrographs = np.array([store.micrograph_of(index, "train") for index in range(count)])
    names = np.unique(micrographs)
    if names.size == 1:
        return _within_one_micrograph(store, fraction)
    exposures = store.manifest.exposures
    numbers = np.unique(exposures[names])
    if numbers.size == 1 and len({store.manifest.micrographs[name].shape for name in names}) == 1:
        return _within_one_micrograph(store, fraction)  # files of one exposure: their rows show the same
    size = min(numbers.size - 1, max(1, round(fraction * numbers.size)))
    chosen = np.random.default_rng([seed, _SPLIT_STREAM]).permutation(numbers)[:size]
    held = np.isin(exposures[micrographs], chosen)
    return Split(everything[~held], everything[held])


def _micrographs(store: PairStore, indices: np.ndarray) -> set[int]:
    return {micrograph for index in indices if (micrograph := store.micrograph_of(int(index))) is not None}


def read_indices(path: Path, count: int) -> np.ndarray:
    """Read patch indices, one a line, and return them sorted.

    Parameters
    ----------
    path
        Text file; empty lines are skipped.
    count
        Indices must be below it.
    """
    if not path.is_file():
        raise MissingInputError(f"{path}: no such file; give one patch index a line")
    with storage_errors(path):
        if path.stat().st_size > MAX_INDEX_FILE_BYTES:
            raise FormatError(f"{path}: too long for a list of patch indices; give one patch index a line")
        lines = path.read_bytes().splitlines()
    found: dict[int, int] = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip().decode("ascii", "replace")
        if not text:
            continue
        if not text.isdigit() or not text.isascii() or len(text) > 18 or int(text) >= count:
            raise FormatError(f"{path}: line {number}: {text[:40]!r} (allowed: a patch index, 0 to {count - 1})")
        if int(text) in found:
            raise FormatError(f"{path}: line {number}: patch {text} is on line {found[int(text)]} too; name it once")
        found[int(text)] = number
    if not found:
        raise FormatError(f"{path}: no patch index in it; give one a line, or leave --val-indices out")
    return np.array(sorted(found))


def write_indices(indices: np.ndarray) -> str:
    """Return the text of a file that `read_indices` reads."""
    return "".join(f"{index}\n" for index in indices)


def _within_one_micrograph(store: PairStore, fraction: float) -> Split:
    windows = [store.window_of(index) for index in range(store.count())]
    rows = np.array([window[1] for window in windows if window is not None])
    wanted = max(1, int(len(rows) * fraction))
    for border in np.unique(rows)[::-1]:
        held = rows >= border
        if held.sum() >= wanted:
            kept = rows + store.patch_shape[0] <= border
            if kept.any():
                unused = int((~held & ~kept).sum())
                note = (
                    f"one exposure: {int(held.sum())} patches from row {border} down validate, {int(kept.sum())} train, "
                    f"{unused} that overlap both are left out"
                )
                end_row = int(border) if store.whole else None
                return Split(np.flatnonzero(kept), np.flatnonzero(held), note, end_row)
            break
    raise UsageError(
        f"{store.path}: one micrograph is too small to hold out a part that does not overlap the rest; "
        "convert more micrographs, or give --val-split 0 for no validation"
    )
