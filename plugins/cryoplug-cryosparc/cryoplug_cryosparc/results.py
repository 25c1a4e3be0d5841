"""The output of the External job: a row for each denoised micrograph, with the columns that cryoSPARC asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from cryoplug.errors import StorageError

from cryoplug_cryosparc.instance import RAW_SLOT
from cryoplug_cryosparc.thumbnails import DTYPE, SLOTS, Thumbnail, Thumbnails

DENOISED_SLOT = f"{RAW_SLOT}_denoised"
"""The slot into which cryoSPARC's own Micrograph Denoiser writes."""
_KEPT = ("is_background_subtracted", "import_sig")
"""Columns that the denoised micrograph takes over from the raw one."""


def output_slots(*, thumbnails: bool) -> dict[str, str]:
    """Give the slots of the output, each with its type."""
    return {DENOISED_SLOT: RAW_SLOT, **({slot: DTYPE for slot in SLOTS.values()} if thumbnails else {})}


def fill(output: Any, denoised: Any, found: Mapping[str, Thumbnail], thumbnails: Thumbnails | None) -> list[str]:
    """Fill in the columns that the server declared.

    Parameters
    ----------
    output
        Dataset with the columns that cryoSPARC requires, and the ``uid`` of the rows of `denoised`, in that order.
    denoised
        Dataset that ``cryoplug denoise`` wrote: the columns of the input, and those of `DENOISED_SLOT`.
    found
        Thumbnail of each denoised micrograph, by its path from the project.
    thumbnails
        The maker of the thumbnails; None: no thumbnails.

    Returns
    -------
    list
        Columns of these slots that cryoplug does not know, and left empty.

    Raises
    ------
    StorageError
        The server declares no column for the path.
    """
    if f"{DENOISED_SLOT}/path" not in output:
        raise StorageError(f"cryoSPARC asks for no {DENOISED_SLOT}/path (it asks for: {', '.join(_names(output))})")
    paths = [str(path) for path in denoised[f"{DENOISED_SLOT}/path"]]
    unknown = []
    for column in _names(output):
        slot, _, name = column.partition("/")
        if slot == DENOISED_SLOT:
            values = _of_micrograph(name, denoised, [found.get(path) for path in paths])
        elif thumbnails is not None and slot in SLOTS.values():
            size = next(size for size, known in SLOTS.items() if known == slot)
            values = [thumbnails.columns(size, found[path]).get(name) for path in paths]
        else:
            continue
        if values is None or any(value is None for value in values):
            unknown.append(column)
        else:
            output[column] = list(values) if isinstance(values[0], str) else np.asarray(values)
    return unknown


def _of_micrograph(name: str, denoised: Any, found: Iterable[Thumbnail | None]) -> Any:
    if f"{DENOISED_SLOT}/{name}" in denoised:
        return list(denoised[f"{DENOISED_SLOT}/{name}"])
    if name in _KEPT and f"{RAW_SLOT}/{name}" in denoised:
        return list(denoised[f"{RAW_SLOT}/{name}"])
    if name in ("vmin", "vmax"):
        return [None if item is None else getattr(item, name) for item in found]
    return None


def _names(dataset: Any) -> list[str]:
    return [name for name in dataset.fields() if name != "uid"]
