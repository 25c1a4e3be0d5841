"""Which kind of store a path is (bins, HDF5, or unfinished), and where its patches lie."""

from __future__ import annotations

from pathlib import Path

from cryoplug.errors import FormatError, MissingInputError, UsageError
from cryoplug.store import raw
from cryoplug.store.layout import StoreLayout

HDF5_NAME = "dataset.h5"


def find_layout(path: Path, patch_size: int) -> StoreLayout:
    """Find where the patches of a store lie; the arguments are those of `cryoplug.store.pairs.open_store`."""
    if patch_size < 1:
        raise UsageError(f"--patch-size is {patch_size}; allowed: 1 or more")
    if not path.exists():
        _refuse_unfinished(raw.partial_name(path.parent, path.name))
        raise MissingInputError(f"{path}: not there; give a folder or .h5 file that cryoplug convert wrote")
    if path.is_file() and path.suffix == ".bin":
        return raw.raw_layout(path.parent, patch_size=patch_size)
    if path.is_file():
        from cryoplug.store.hdf5_guard import hdf5_layout

        return hdf5_layout(path)
    if not (path / raw.MANIFEST_NAME).is_file():
        if (path / HDF5_NAME).is_file():
            return find_layout(path / HDF5_NAME, patch_size)
        _refuse_unfinished(raw.journal_path(path), raw.partial_name(path, HDF5_NAME))
        if not raw.bare_bins(path):
            raise FormatError(
                f"{path}: no store here; allowed: {raw.MANIFEST_NAME} with bins, {HDF5_NAME}, or "
                f"{' and '.join(raw.BIN_NAMES['train'])}; make one with cryoplug convert"
            )
    return raw.raw_layout(path, patch_size=patch_size)


def _refuse_unfinished(*leftovers: Path) -> None:
    for leftover in leftovers:
        if leftover.is_file():
            raise FormatError(
                f"{leftover.parent}: an unfinished store ({leftover.name}): its convert was interrupted or still runs; "
                "run the same convert command again"
            )
