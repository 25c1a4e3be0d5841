"""One HDF5 file: groups ``train`` and ``test``, datasets ``noisy`` and ``clean``, one patch a chunk, no filter.

Whole micrographs: ``noisy`` and ``clean`` are groups of contiguous datasets ``000000``, ``000001``, ... of shape (y, x).

Only this file imports h5py. h5py finds the patches; they are then read by offset, without its global lock.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from cryoplug.disk.atomic import PARTIAL_SUFFIX, fsync_file, fsync_folder, storage_errors
from cryoplug.disk.lock import OutputLock
from cryoplug.errors import CryoplugError, FormatError, StorageError
from cryoplug.store.layout import PatchRun, check_equal_counts, storage_dtype
from cryoplug.store.manifest import DTYPES, MAX_SIDE_PX, SPLITS, Manifest, MicrographEntry, Window
from cryoplug.store.writer import StoreWriter

FILE_NAME = "dataset.h5"
MANIFEST_ATTRIBUTE = "manifest"
SIDES = ("noisy", "clean")
_SPARE_BYTES = 16 * 1024 * 1024


def partial_name(path: Path) -> Path:
    """Return the hidden name of an unfinished file."""
    return path.with_name(f".{path.name}{PARTIAL_SUFFIX}")


@dataclass(frozen=True)
class Hdf5Content:
    """The contents of an HDF5 store, without its pixels."""

    manifest_text: str | None
    """The manifest as JSON, not checked yet; None if there is none."""
    runs: Mapping[str, tuple[PatchRun, PatchRun]]
    """For each split that has patches: the noisy and the clean side."""
    patch_shape: tuple[int, int] | None
    """(y, x) in pixels; None without patches."""
    dtype: str | None
    """``float32`` or ``float16``; None without patches."""
    image_shapes: Mapping[str, Sequence[tuple[int, int]]] = field(default_factory=dict)
    """For each split, (y, x) of each whole micrograph; empty if patches are stored."""


def read_content(path: Path) -> Hdf5Content:
    """Find the patches and the manifest; `cryoplug.store.hdf5_guard` calls this in a process that may crash.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    FormatError, PairingError
        The file is not HDF5, or it is damaged, compressed, or laid out in another way.
    """
    with _hdf5_errors(path), h5py.File(path, "r", locking=False) as file:  # it has its name: nobody writes
        if file.userblock_size:
            raise FormatError(f"{path}: has a user block; allowed: none; write it again with cryoplug convert")
        text = _manifest_text(file, path)
        runs, shapes, dtypes = {}, set(), set()
        if any(_holds_whole(file, split, path) for split in SPLITS):
            return _whole_content(file, text, path)
        for split in SPLITS:
            group = _group(file, split, path)
            found = [_run(group, side, path) for side in SIDES] if group is not None else []
            sides = [item for item in found if item is not None]
            if len(sides) == 1:
                raise FormatError(f"{path}: {split} has only one of noisy and clean; run the convert again")
            if not sides:
                continue
            check_equal_counts(path, split, *(len(run.offsets) for run, _, _ in sides))
            if len(sides[0][0].offsets):
                runs[split] = sides[0][0], sides[1][0]
                shapes |= {shape for _, shape, _ in sides}
                dtypes |= {dtype for _, _, dtype in sides}
    if len(shapes) > 1 or len(dtypes) > 1:
        raise FormatError(f"{path}: patches of different shape or type; allowed: one shape, one type")
    return Hdf5Content(text, runs, shapes.pop() if shapes else None, dtypes.pop() if dtypes else None)


class Hdf5Writer(StoreWriter):
    """Writes one HDF5 file. After a kill it starts again, because an HDF5 file cannot be trusted after its writer died."""

    def __init__(self, path: Path, head: Manifest) -> None:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path, head, OutputLock(path.with_name(f".{path.name}.lock{PARTIAL_SUFFIX}")))
        self._file: h5py.File | None = None
        self._datasets: dict[str, list[h5py.Dataset]] = {}
        self._groups: dict[str, list[h5py.Group]] = {}
        self._pair_bytes = 2 * head.patch_shape[0] * head.patch_shape[1] * self.dtype.itemsize
        try:
            self._erase()
            with storage_errors(path):
                self._file = h5py.File(partial_name(path), "x")
            for split in SPLITS:
                group = self._file.create_group(split)
                sides = SIDES[: head.sides]
                if head.whole:
                    self._groups[split] = [group.create_group(side) for side in sides]
                    _link_sides(group)
                    continue
                self._datasets[split] = [
                    group.create_dataset(
                        side,
                        shape=(0, *head.patch_shape),
                        maxshape=(None, *head.patch_shape),
                        chunks=(1, *head.patch_shape),
                        dtype=self.dtype,
                    )
                    for side in sides
                ]
                _link_sides(group)
        except BaseException:
            self.close()
            raise

    def wait_until_safe(self) -> None:
        """Do nothing: an unfinished HDF5 file is not continued."""

    def _write(self, split: str, index: int, noisy: np.ndarray, clean: np.ndarray) -> None:
        with storage_errors(self.target):
            self._refuse_full_disk(self._pair_bytes)
            for dataset, side in zip(self._datasets[split], (noisy, clean), strict=False):
                dataset.resize(index + 1, axis=0)
                dataset.id.write_direct_chunk((index, 0, 0), side)

    def _write_rows(
        self, split: str, index: int, first: int, noisy: np.ndarray, clean: np.ndarray, shape: tuple[int, int]
    ) -> None:
        with storage_errors(self.target):
            self._refuse_full_disk(2 * (shape[0] - first) * shape[1] * self.dtype.itemsize)
            for group, side in zip(self._groups[split], (noisy, clean), strict=False):
                name = _image_name(index)
                if first == 0:
                    group.create_dataset(name, shape=shape, dtype=self.dtype)  # contiguous
                group[name][first : first + len(side)] = side

    def _refuse_full_disk(self, needed: int) -> None:
        # libhdf5 on a full disk writes zeros or ends in SIGSEGV, so it must never meet one.
        disk = os.statvfs(self.target.parent)
        free = disk.f_bavail * disk.f_frsize
        if free < needed + _SPARE_BYTES:
            raise StorageError(
                f"{self.target}: {free} bytes free, {needed + _SPARE_BYTES} needed for the next pair; "
                "free space or choose another output"
            )

    def _secure(self, entry: MicrographEntry, windows: dict[str, list[Window]]) -> None:
        """Do nothing: an unfinished HDF5 file is not continued."""

    def _truncate(self, split: str) -> None:
        with storage_errors(self.target):
            for dataset in self._datasets.get(split, ()):
                dataset.resize(self._safe[split], axis=0)
            for group in self._groups.get(split, ()):
                # The bytes stay in the file, unused.
                group.pop(_image_name(self._safe[split]), None)

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


def _link_sides(group: h5py.Group) -> None:
    """For single exposures, make the clean side another name of the noisy one."""
    if SIDES[1] not in group:
        group[SIDES[1]] = group[SIDES[0]]


def _manifest_text(file: h5py.File, path: Path) -> str | None:
    if not h5py.h5a.exists(file.id, MANIFEST_ATTRIBUTE.encode()):
        return None
    attribute = h5py.h5a.open(file.id, MANIFEST_ATTRIBUTE.encode())
    # Text of fixed length may claim gigabytes; what cryoplug writes is one text of variable length.
    text = h5py.check_string_dtype(attribute.dtype)
    if attribute.shape != () or text is None or text.length is not None:
        raise FormatError(f"{path}: attribute {MANIFEST_ATTRIBUTE} is not one text of variable length; convert again")
    return str(file.attrs[MANIFEST_ATTRIBUTE])


def _group(file: h5py.File, split: str, path: Path) -> h5py.Group | None:
    found = _linked(file, split, split, path)
    if found is not None and not isinstance(found, h5py.Group):
        raise FormatError(
            f"{path}: {split} is not a group; allowed: groups {' and '.join(SPLITS)}; run the convert again"
        )
    return found


def _image_name(index: int) -> str:
    return f"{index:06d}"


def _holds_whole(file: h5py.File, split: str, path: Path) -> bool:
    group = _group(file, split, path)
    return group is not None and isinstance(_linked(group, SIDES[0], f"{split}/{SIDES[0]}", path), h5py.Group)


def _whole_content(file: h5py.File, text: str | None, path: Path) -> Hdf5Content:
    """Find the images of a file of whole micrographs: one contiguous dataset each."""
    runs, shapes, dtypes = {}, {}, set()
    for split in SPLITS:
        group = _group(file, split, path)
        if group is None:
            continue
        sides = [_whole_run(group, side, path) for side in SIDES]
        check_equal_counts(path, split, *(len(offsets) for offsets, _, _ in sides))
        if sides[0][1] != sides[1][1]:
            raise FormatError(f"{path}: {split}: noisy and clean images differ in shape; convert again")
        if sides[0][0]:
            runs[split] = PatchRun(path, np.array(sides[0][0])), PatchRun(path, np.array(sides[1][0]))
            shapes[split] = sides[0][1]
            dtypes |= sides[0][2] | sides[1][2]
    if len(dtypes) > 1:
        raise FormatError(f"{path}: images of different type; allowed: one type")
    return Hdf5Content(text, runs, None, dtypes.pop() if dtypes else None, shapes)


def _whole_run(group: h5py.Group, side: str, path: Path) -> tuple[list[int], list[tuple[int, int]], set[str]]:
    name = f"{group.name}/{side}".lstrip("/")
    images = _linked(group, side, name, path)
    if not isinstance(images, h5py.Group):
        raise FormatError(f"{path}: {name} is not a group of whole micrographs; run the convert again")
    offsets, shapes, dtypes, size = [], [], set(), path.stat().st_size
    for index in range(len(images)):
        where = f"{name}/{_image_name(index)}"
        dataset = _linked(images, _image_name(index), where, path)
        if not isinstance(dataset, h5py.Dataset):
            raise FormatError(f"{path}: {where} is missing, or not a dataset; run the convert again")
        _refuse_indirect(dataset, where, path)
        if dataset.chunks is not None or dataset.ndim != 2 or not all(0 < s <= MAX_SIDE_PX for s in dataset.shape):
            raise FormatError(
                f"{path}: {where} has the shape {dataset.shape} and chunks {dataset.chunks}; allowed: contiguous, (y, x) "
                f"with sides from 1 to {MAX_SIDE_PX}; run the convert again"
            )
        shape = int(dataset.shape[0]), int(dataset.shape[1])
        start = dataset.id.get_offset()
        if start is None or start + shape[0] * shape[1] * dataset.dtype.itemsize > size:
            raise FormatError(f"{path}: {where} has no pixels, or they lie beyond the end of the file; convert again")
        offsets.append(int(start))
        shapes.append(shape)
        dtypes.add(dataset.dtype.name)
    return offsets, shapes, dtypes


def _refuse_indirect(dataset: h5py.Dataset, name: str, path: Path) -> None:
    """Raise an error if pixels are in another file, filtered, or of an unsupported type."""
    properties = dataset.id.get_create_plist()
    # Asked before the shape: that of a virtual dataset may depend on other files, which would be opened for it.
    if properties.get_layout() not in (h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED) or properties.get_external_count():
        raise FormatError(
            f"{path}: {name} keeps its pixels in another file or in its header; allowed: plain data in this file; "
            "run the convert again"
        )
    if properties.get_nfilters():
        raise FormatError(f"{path}: {name} is compressed or filtered; allowed: plain patches; convert again")
    if dataset.dtype not in [storage_dtype(known) for known in DTYPES]:
        raise FormatError(f"{path}: {name} is {dataset.dtype}; allowed: little-endian {', '.join(DTYPES)}")


def _linked(parent: h5py.Group, key: str, name: str, path: Path) -> h5py.HLObject | None:
    """Give the object of a hard link, or None if there is no such name. Python's ``in`` would follow links to other files."""
    link = parent.get(key, getlink=True)
    if link is None:
        return None
    if not isinstance(link, h5py.HardLink):
        raise FormatError(f"{path}: {name} is a link to elsewhere; allowed: data in this file; run the convert again")
    return parent[key]


def _run(group: h5py.Group, side: str, path: Path) -> tuple[PatchRun, tuple[int, int], str] | None:
    """Find the patches of one dataset; None if it is not there."""
    name = f"{group.name}/{side}".lstrip("/")
    dataset = _linked(group, side, name, path)
    if dataset is None:
        return None
    if not isinstance(dataset, h5py.Dataset):
        raise FormatError(f"{path}: {name} is not a dataset of shape (n, y, x); run the convert again")
    _refuse_indirect(dataset, name, path)
    if dataset.ndim != 3 or not all(0 < side <= MAX_SIDE_PX for side in dataset.shape[1:]):
        raise FormatError(
            f"{path}: {name} has the shape {dataset.shape}; allowed: shape (n, y, x) with sides from 1 to {MAX_SIDE_PX}; "
            "run the convert again"
        )
    count, shape = int(dataset.shape[0]), (int(dataset.shape[1]), int(dataset.shape[2]))
    patch, size = shape[0] * shape[1] * dataset.dtype.itemsize, path.stat().st_size
    if count * patch > size:
        raise FormatError(f"{path}: {name} claims {count * patch} bytes but the file has {size}; convert again")
    offsets: Sequence[int] | NDArray[np.int64]
    if dataset.chunks is None:
        start = dataset.id.get_offset()
        if count and start is None:
            raise FormatError(f"{path}: {name} has no pixels; the file was not closed properly, convert again")
        if count and start + count * patch > size:
            raise FormatError(f"{path}: {name} reaches beyond the end of the file; it was cut off, convert again")
        offsets = range(start or 0, (start or 0) + count * patch, patch)
    elif dataset.chunks == (1, *shape):
        offsets = _chunk_offsets(dataset, name, path, patch)
    else:
        raise FormatError(f"{path}: {name} has chunks {dataset.chunks}; allowed: contiguous or {(1, *shape)}")
    return PatchRun(path, offsets), shape, dataset.dtype.name


def _chunk_offsets(dataset: h5py.Dataset, name: str, path: Path, patch: int) -> NDArray[np.int64]:
    count, size = dataset.shape[0], path.stat().st_size
    # A sparse file may be as long as it likes: the index of the chunks is what really takes place.
    chunks = dataset.id.get_num_chunks()
    if chunks < count:
        raise FormatError(
            f"{path}: {name} has no pixels for patch {chunks} or one before it: {chunks} of {count} patches are there; "
            "convert again"
        )
    offsets = np.full(count, -1, dtype=np.int64)

    def remember(info: h5py.h5d.StoreInfo) -> None:
        inside = info.size == patch and info.byte_offset is not None and info.byte_offset + patch <= size
        if inside and info.chunk_offset[0] < count:
            offsets[info.chunk_offset[0]] = info.byte_offset

    dataset.id.chunk_iter(remember)
    if (offsets < 0).any():
        missing = int(np.flatnonzero(offsets < 0)[0])
        raise FormatError(
            f"{path}: {name} has no pixels for patch {missing}, or they lie beyond the end of the file; convert again"
        )
    return offsets


@contextlib.contextmanager
def _hdf5_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except CryoplugError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, OverflowError, MemoryError) as error:
        # libhdf5 reports damage in all of these, depending on where it meets it.
        raise FormatError(f"{path}: not a readable HDF5 file ({error}); run the convert again") from error
