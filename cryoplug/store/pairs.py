"""One interface to packed training pairs, whatever holds them: `open_store` to read, `create_store` to write."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from cryoplug.core.atomic import storage_errors
from cryoplug.errors import FormatError, MissingInputError, ShapeError, UsageError
from cryoplug.store import raw
from cryoplug.store.layout import PatchRun, StoreLayout
from cryoplug.store.manifest import SPLITS, Manifest, read_manifest
from cryoplug.store.writer import StoreWriter

HDF5_NAME = "dataset.h5"
HDF5_SUFFIXES = (".h5", ".hdf5")
FORMATS = ("bin", "hdf5")


class PairStore:
    """An opened store. Threads may read at the same time.

    Parameters
    ----------
    path
        As the user named it.
    layout
        Where the patches lie.
    """

    def __init__(self, path: Path, layout: StoreLayout) -> None:
        self.path = path
        self.manifest = layout.manifest
        self.patch_shape = layout.patch_shape
        self.dtype = layout.dtype
        self._runs = layout.runs
        self._patch_bytes = self.patch_shape[0] * self.patch_shape[1] * self.dtype.itemsize
        self._local = threading.local()
        self._descriptors: dict[Path, int] = {}
        self._closed = False
        try:
            for file in self.files:
                with storage_errors(file):
                    self._descriptors[file] = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            self.close()
            raise

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the patches."""
        return tuple(dict.fromkeys(run.path for pair in self._runs.values() for run in pair))

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have patches."""
        return tuple(split for split in SPLITS if split in self._runs)

    @property
    def pair_bytes(self) -> int:
        """Bytes that reading one pair takes from the disk."""
        return 2 * self._patch_bytes

    def count(self, split: str = "train") -> int:
        """Return the number of pairs in `split`: ``train`` or ``test``."""
        return len(self._runs[split][0].offsets) if split in self._runs else 0

    def read(
        self, indices: Sequence[int] | np.ndarray, noisy: np.ndarray, clean: np.ndarray, *, split: str = "train"
    ) -> None:
        """Fill two arrays with pairs; nothing is allocated, so reuse them.

        Parameters
        ----------
        indices
            Which pairs, in any order.
        noisy, clean
            float32, C-contiguous, ``(n, y, x)`` with n = number of indices.
        split
            ``train`` or ``test``.

        Raises
        ------
        FormatError
            The file became shorter since it was opened.
        """
        if self._closed:
            raise UsageError(f"{self.path}: this store was closed; open it again")
        count = self.count(split)
        for side, out in enumerate((noisy, clean)):
            if out.shape != (len(indices), *self.patch_shape) or out.dtype != np.float32 or not out.flags.c_contiguous:
                raise ShapeError(
                    f"{self.path}: buffer {out.shape} {out.dtype}; allowed: C-contiguous float32 "
                    f"{(len(indices), *self.patch_shape)}"
                )
            for row, index in enumerate(indices):
                if not 0 <= index < count:
                    raise IndexError(f"{self.path}: patch {index} of {split}; allowed: 0 to {count - 1}")
                self._read_one(self._runs[split][side], int(index), out[row])

    def micrograph_of(self, index: int, split: str = "train") -> int | None:
        """Return the index into ``manifest.micrographs`` of the pair's micrograph; None without a manifest."""
        return None if self.manifest is None else self.manifest.windows[split][index][0]

    def describe(self, index: int, split: str = "train") -> str:
        """Say in words which patch this is, for messages."""
        if self.manifest is None:
            return f"patch {index} of {split}"
        micrograph, y, x = self.manifest.windows[split][index]
        return f"patch {index} (micrograph {self.manifest.micrographs[micrograph].name}, y {y}, x {x})"

    def verify(self) -> list[str]:
        """Read everything and return a sentence for each micrograph whose pixels changed since they were written."""
        if self.manifest is None:
            return []
        found = dict.fromkeys(range(len(self.manifest.micrographs)), 0)
        buffer = np.empty(self.patch_shape, self.dtype)
        for split in self.splits:
            for index, (micrograph, _, _) in enumerate(self.manifest.windows[split]):
                for run in self._runs[split]:
                    self._fill(run, index, buffer)
                    found[micrograph] = zlib.crc32(buffer.data, found[micrograph])
        return [
            f"{self.path}: the patches of {entry.name} are not those that were written "
            f"(CRC-32 {found[i]:08x}, written {entry.crc32:08x}); convert again"
            for i, entry in enumerate(self.manifest.micrographs)
            if entry.crc32 is not None and entry.crc32 != found[i]
        ]

    def close(self) -> None:
        """Close the files. A second call does nothing."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors = {}
        self._closed = True

    def __enter__(self) -> PairStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_one(self, run: PatchRun, index: int, out: np.ndarray) -> None:
        if out.dtype == self.dtype:
            self._fill(run, index, out)
            return
        buffer = getattr(self._local, "buffer", None)
        if buffer is None:
            # One for each thread, kept: a fresh page costs 4 us on a virtual machine.
            buffer = self._local.buffer = np.empty(self.patch_shape, self.dtype)
        self._fill(run, index, buffer)
        np.copyto(out, buffer)

    def _fill(self, run: PatchRun, index: int, out: np.ndarray) -> None:
        view, offset = out.data.cast("B"), int(run.offsets[index])
        while view:
            with storage_errors(run.path):
                got = os.preadv(self._descriptors[run.path], [view], offset)
            if got == 0:
                raise FormatError(f"{run.path}: ends before patch {index}; it changed while it was read, open it again")
            view, offset = view[got:], offset + got


def open_store(path: str | Path, *, patch_size: int = 1024) -> PairStore:
    """Open a folder of bins, with or without a manifest, or an HDF5 store.

    Parameters
    ----------
    path
        The folder, an ``.h5`` file, or one of the bins.
    patch_size
        Side of the square patches of bins without a manifest.

    Raises
    ------
    MissingInputError, FormatError, PairingError
        Nothing there, unfinished, damaged, or sides that disagree.
    """
    path = Path(path)
    if patch_size < 1:
        raise UsageError(f"--patch-size is {patch_size}; allowed: 1 or more")
    if not path.exists():
        _refuse_unfinished(raw.partial_name(path.parent, path.name))
        raise MissingInputError(f"{path}: not there; give a folder or .h5 file that cryoplug convert wrote")
    if path.is_file() and path.suffix == ".bin":
        return PairStore(path, raw.raw_layout(path.parent, patch_size=patch_size))
    if path.is_file():
        from cryoplug.store.hdf5_guard import hdf5_layout

        return PairStore(path, hdf5_layout(path))
    if not (path / raw.MANIFEST_NAME).is_file():
        if (path / HDF5_NAME).is_file():
            return open_store(path / HDF5_NAME)
        _refuse_unfinished(raw.journal_path(path), raw.partial_name(path, HDF5_NAME))
        if not raw.bare_bins(path):
            raise FormatError(
                f"{path}: no store here; allowed: {raw.MANIFEST_NAME} with bins, {HDF5_NAME}, or "
                f"{' and '.join(raw.BIN_NAMES['train'])}; make one with cryoplug convert"
            )
    return PairStore(path, raw.raw_layout(path, patch_size=patch_size))


def create_store(path: str | Path, head: Manifest, format: str = "bin", *, overwrite: bool = False) -> StoreWriter:
    """Begin a store, or go on with one of the same head that was interrupted.

    Parameters
    ----------
    path
        Folder; for ``hdf5`` also a file ending ``.h5`` or ``.hdf5``.
    head
        Manifest without micrographs.
    format
        ``bin`` or ``hdf5``.
    overwrite
        Replace a finished store; it stays until the new one is complete.

    Raises
    ------
    UsageError
        A store is there already and `overwrite` is off, or the path does not suit the format.
    OutputBusyError
        Another live process writes it.
    """
    target = store_target(path, format)
    if not overwrite and (found := finished_files(target, format)):
        raise UsageError(f"{found[0]}: exists already; give --overwrite or another output")
    if format == "bin":
        return raw.RawWriter(target, head)
    from cryoplug.store.hdf5 import Hdf5Writer

    return Hdf5Writer(target, head)


def store_target(path: str | Path, format: str) -> Path:
    """Return the folder of the bins or the HDF5 file that `create_store` writes for `path`."""
    path = Path(path)
    if format not in FORMATS:
        raise UsageError(f"format {format!r}; allowed: {', '.join(FORMATS)}")
    is_file_name = path.suffix.lower() in HDF5_SUFFIXES and not path.is_dir()
    if format == "bin" and is_file_name:
        raise UsageError(f"{path}: a file name with --format bin; give a folder, or --format hdf5")
    if not is_file_name and path.exists() and not path.is_dir():
        raise UsageError(f"{path}: is a file; the output must be a folder")
    return path / HDF5_NAME if format == "hdf5" and not is_file_name else path


def finished_files(target: Path, format: str) -> list[Path]:
    """Return the files under final names that writing to `target` would replace, manifest first."""
    if format == "hdf5":
        return [target] if target.exists() else []
    names = (raw.MANIFEST_NAME, *(name for pair in raw.BIN_NAMES.values() for name in pair))
    return [target / name for name in names if (target / name).exists()]


def finished_manifest(target: Path, format: str) -> Manifest | None:
    """Return the manifest of the finished store at `target`; None when there is none."""
    if format == "hdf5":
        from cryoplug.store.hdf5_guard import hdf5_manifest

        return hdf5_manifest(target) if target.is_file() else None
    raw.finish_interrupted(target)
    path = target / raw.MANIFEST_NAME
    return read_manifest(path) if path.is_file() else None


def _refuse_unfinished(*leftovers: Path) -> None:
    for leftover in leftovers:
        if leftover.is_file():
            raise FormatError(
                f"{leftover.parent}: an unfinished store ({leftover.name}): its convert was interrupted or still runs; "
                "run the same convert command again"
            )
