"""One HDF5 file: groups ``train`` and ``test``, datasets ``noisy`` and ``clean``, one patch a chunk, no filter.

The only file that imports h5py. h5py finds the patches; they are then read by offset, past its global lock.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from cryoplug.core.atomic import PARTIAL_SUFFIX, fsync_file, fsync_folder, storage_errors
from cryoplug.errors import CryoplugError, FormatError, StorageError
from cryoplug.store.layout import PatchRun, StoreLayout, check_count, check_equal_counts, storage_dtype
from cryoplug.store.lock import OutputLock
from cryoplug.store.manifest import DTYPES, SPLITS, Manifest, MicrographEntry, Window
from cryoplug.store.writer import StoreWriter

FILE_NAME = "dataset.h5"
MANIFEST_ATTRIBUTE = "manifest"
SIDES = ("noisy", "clean")
_SPARE_BYTES = 16 * 1024 * 1024


def partial_name(path: Path) -> Path:
    """Return the hidden name of a file that is not finished."""
    return path.with_name(f".{path.name}{PARTIAL_SUFFIX}")


def hdf5_layout(path: Path) -> StoreLayout:
    """Find the patches of an HDF5 store.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    FormatError, PairingError
        Not HDF5, damaged, compressed, or of another layout.
    """
    with _hdf5_errors(path), h5py.File(path, "r", locking="best-effort") as file:
        if file.userblock_size:
            raise FormatError(f"{path}: has a user block; allowed: none; write it again with cryoplug convert")
        manifest = _manifest(file, path)
        runs, shapes, dtypes = {}, set(), set()
        for split in SPLITS:
            sides = [_run(file, f"{split}/{side}", path) for side in SIDES if f"{split}/{side}" in file]
            if len(sides) == 1:
                raise FormatError(f"{path}: {split} has only one of noisy and clean; run the convert again")
            if not sides:
                continue
            check_equal_counts(path, split, *(len(run.offsets) for run, _, _ in sides))
            if len(sides[0][0].offsets):
                runs[split] = sides[0][0], sides[1][0]
                shapes |= {shape for _, shape, _ in sides}
                dtypes |= {dtype for _, _, dtype in sides}
    if not runs:
        raise FormatError(f"{path}: no patches under train/noisy, train/clean or test; is it a cryoplug store?")
    if len(shapes) > 1 or len(dtypes) > 1:
        raise FormatError(f"{path}: patches of different shape or type; allowed: one shape, one type")
    shape, dtype = shapes.pop(), storage_dtype(dtypes.pop())
    if manifest is not None:
        if (manifest.patch_shape, manifest.dtype) != (shape, dtype.name):
            raise FormatError(
                f"{path}: patches are {shape} {dtype.name} but the manifest says {manifest.patch_shape} "
                f"{manifest.dtype}; run the convert again"
            )
        for split in SPLITS:
            check_count(path, len(runs[split][0].offsets) if split in runs else 0, manifest, split)
    return StoreLayout(manifest=manifest, patch_shape=shape, dtype=dtype, runs=runs)


def hdf5_manifest(path: Path) -> Manifest | None:
    """Read only the manifest; None when the file has none."""
    with _hdf5_errors(path), h5py.File(path, "r", locking="best-effort") as file:
        return _manifest(file, path)


class Hdf5Writer(StoreWriter):
    """Writes one HDF5 file. A killed one starts again: HDF5 cannot be trusted after its writer died."""

    def __init__(self, path: Path, head: Manifest) -> None:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path, head, OutputLock(path.with_name(f".{path.name}.lock{PARTIAL_SUFFIX}")))
        self._file: h5py.File | None = None
        self._datasets: dict[str, list[h5py.Dataset]] = {}
        self._pair_bytes = 2 * head.patch_shape[0] * head.patch_shape[1] * self.dtype.itemsize
        try:
            self._erase()
            with storage_errors(path):
                self._file = h5py.File(partial_name(path), "x")
            for split in SPLITS:
                group = self._file.create_group(split)
                self._datasets[split] = [
                    group.create_dataset(
                        side,
                        shape=(0, *head.patch_shape),
                        maxshape=(None, *head.patch_shape),
                        chunks=(1, *head.patch_shape),
                        dtype=self.dtype,
                    )
                    for side in SIDES
                ]
        except BaseException:
            self.close()
            raise

    def _write(self, split: str, index: int, noisy: np.ndarray, clean: np.ndarray) -> None:
        with storage_errors(self.target):
            # libhdf5 on a full disk writes zeros or ends in SIGSEGV, so it must never meet one.
            disk = os.statvfs(self.target.parent)
            free = disk.f_bavail * disk.f_frsize
            if free < self._pair_bytes + _SPARE_BYTES:
                raise StorageError(
                    f"{self.target}: {free} bytes free, {self._pair_bytes + _SPARE_BYTES} needed for the next pair; "
                    "free space or choose another output"
                )
            for dataset, side in zip(self._datasets[split], (noisy, clean), strict=True):
                dataset.resize(index + 1, axis=0)
                dataset.id.write_direct_chunk((index, 0, 0), side)

    def _secure(self, entry: MicrographEntry, windows: dict[str, list[Window]]) -> None:
        """Do nothing: an unfinished HDF5 file is not continued."""

    def _truncate(self, split: str, count: int) -> None:
        with storage_errors(self.target):
            for dataset in self._datasets[split]:
                dataset.resize(count, axis=0)

    def _publish(self, manifest: Manifest) -> None:
        assert self._file is not None
        partial = partial_name(self.target)
        with storage_errors(self.target):
            # Text of variable length lies outside the object header, which ends at 64 KiB.
            self._file.attrs[MANIFEST_ATTRIBUTE] = manifest.to_json()
            self._file.close()
            self._file = None
            fsync_file(partial)
            partial.replace(self.target)
            fsync_folder(self.target.parent)

    def _erase(self) -> None:
        self._release()
        with storage_errors(self.target):
            partial_name(self.target).unlink(missing_ok=True)

    def _release(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError, RuntimeError):
                self._file.close()
            self._file = None


def _manifest(file: h5py.File, path: Path) -> Manifest | None:
    if MANIFEST_ATTRIBUTE not in file.attrs:
        return None
    text = file.attrs[MANIFEST_ATTRIBUTE]
    if not isinstance(text, str):
        raise FormatError(f"{path}: attribute manifest is not text; run the convert again")
    return Manifest.from_json(text, path=path)


def _run(file: h5py.File, name: str, path: Path) -> tuple[PatchRun, tuple[int, int], str]:
    group, _, side = name.partition("/")
    for parent, key in ((file, group), (file[group], side)):
        # A link may lead into another file, which nobody checked.
        if not isinstance(parent.get(key, getlink=True), h5py.HardLink):
            raise FormatError(f"{path}: {name} is a link to elsewhere; allowed: data in this file")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 3 or 0 in dataset.shape[1:]:
        raise FormatError(f"{path}: {name} is no dataset of shape (n, y, x); run the convert again")
    if dataset.is_virtual or dataset.external:
        raise FormatError(f"{path}: {name} keeps its pixels in another file; allowed: data in this file")
    if dataset.dtype not in [storage_dtype(known) for known in DTYPES]:
        raise FormatError(f"{path}: {name} is {dataset.dtype}; allowed: little-endian {', '.join(DTYPES)}")
    properties = dataset.id.get_create_plist()
    if properties.get_nfilters():
        raise FormatError(f"{path}: {name} is compressed or filtered; allowed: plain patches; convert again")
    count, shape = dataset.shape[0], (int(dataset.shape[1]), int(dataset.shape[2]))
    patch = shape[0] * shape[1] * dataset.dtype.itemsize
    if dataset.chunks is None:
        start = dataset.id.get_offset()
        if count and start is None:
            raise FormatError(f"{path}: {name} has no pixels; the file was not closed properly, convert again")
        offsets = (start or 0) + np.arange(count, dtype=np.int64) * patch
    elif dataset.chunks == (1, *shape):
        offsets = np.full(count, -1, dtype=np.int64)

        def remember(info: h5py.h5d.StoreInfo) -> None:
            if info.size == patch and info.chunk_offset[0] < count:
                offsets[info.chunk_offset[0]] = info.byte_offset

        dataset.id.chunk_iter(remember)
        if (offsets < 0).any():
            missing = int(np.flatnonzero(offsets < 0)[0])
            raise FormatError(f"{path}: {name} has no pixels for patch {missing}; convert again")
    else:
        raise FormatError(f"{path}: {name} has chunks {dataset.chunks}; allowed: contiguous or {(1, *shape)}")
    if count and int(offsets.max()) + patch > path.stat().st_size:
        raise FormatError(f"{path}: {name} reaches beyond the end of the file; it was cut off, convert again")
    return PatchRun(path, offsets), shape, dataset.dtype.name


@contextlib.contextmanager
def _hdf5_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except CryoplugError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        # libhdf5 reports damage in all of these, depending on where it meets it.
        raise FormatError(f"{path}: not a readable HDF5 file ({error}); run the convert again") from error
