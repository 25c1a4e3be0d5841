"""One interface to packed training pairs, in any backend: `open_store` to read, `create_store` to write."""

from __future__ import annotations

import dataclasses
import os
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from cryoplug.core.micrograph import ImageF32
from cryoplug.disk.atomic import storage_errors
from cryoplug.disk.output_folder import refuse_file
from cryoplug.errors import FormatError, ShapeError, UsageError
from cryoplug.store import raw
from cryoplug.store.finding import HDF5_NAME, find_layout
from cryoplug.store.grid import Crop, CropGrid
from cryoplug.store.layout import PatchRun, StoreLayout
from cryoplug.store.manifest import SPLITS, Manifest, Window
from cryoplug.store.manifest_reader import read_manifest
from cryoplug.store.writer import StoreWriter

HDF5_SUFFIXES = (".h5", ".hdf5")
FORMATS = ("bin", "hdf5")
_BAND_PIXELS = 1 << 18
"""Pixels to read at once when they are converted or cut: half a megabyte or one, which fits a core's own cache."""


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
        self.dtype = layout.dtype
        self._layout = layout
        self._runs = layout.runs
        self._shapes = layout.image_shapes
        self._cut_into(layout.patch_shape)
        self._local = threading.local()
        self._descriptors: dict[Path, int] = {}
        try:
            for file in self.files:
                with storage_errors(file):
                    self._descriptors[file] = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            self.close()
            raise

    def cut_anew(self, crop_size: int) -> None:
        """From now on, cut whole micrographs into square crops of another side, like `open_store` but without a new reading."""
        self._cut_into(_with_crops(self.path, self._layout, crop_size).patch_shape)

    def _cut_into(self, patch_shape: tuple[int, int]) -> None:
        self.patch_shape = patch_shape
        self._grids = {split: CropGrid(shapes, patch_shape) for split, shapes in self._shapes.items()}
        self._patch_bytes = patch_shape[0] * patch_shape[1] * self.dtype.itemsize

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the patches."""
        return tuple(dict.fromkeys(run.path for pair in self._runs.values() for run in pair))

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have patches."""
        return tuple(split for split in SPLITS if split in self._runs)

    @property
    def sides(self) -> int:
        """How many images of each place are stored: 2; for single exposures 1, and both sides are the same bytes."""
        return 2 if self.manifest is None else self.manifest.sides

    @property
    def pair_bytes(self) -> int:
        """Bytes that reading one pair takes from the disk."""
        return 2 * self._patch_bytes

    @property
    def whole(self) -> bool:
        """Whether micrographs are stored whole, so that crops may lie anywhere in them."""
        return bool(self._grids)

    def count(self, split: str = "train") -> int:
        """Return the number of pairs in `split` (``train`` or ``test``); for whole micrographs, of crops side by side."""
        return len(self._grids[split]) if split in self._grids else self.images(split)

    def images(self, split: str = "train") -> int:
        """Return the number of stored images on each side of `split`."""
        return len(self._runs[split][0].offsets) if split in self._runs else 0

    def image_shape(self, image: int, split: str = "train") -> tuple[int, int]:
        """Return (y, x) of a stored image."""
        return self._shapes[split][image] if split in self._shapes else self.patch_shape

    def crop_of(self, index: int, split: str = "train") -> Crop:
        """Return the stored image of pair number `index`, and the place in it."""
        if not 0 <= index < self.count(split):
            raise IndexError(f"{self.path}: patch {index} of {split}; allowed: 0 to {self.count(split) - 1}")
        return self._grids[split][index] if split in self._grids else Crop(index, 0, 0)

    def pair(self, index: int, *, split: str = "train") -> tuple[ImageF32, ImageF32]:
        """Return one pair as new arrays: noisy, then clean (or the other half), float32 ``(y, x)``. To look at a few pairs."""
        noisy, clean = (np.empty((1, *self.patch_shape), np.float32) for _ in range(2))
        self.read([index], noisy, clean, split=split)
        return noisy[0], clean[0]

    def read(
        self, indices: Sequence[int] | np.ndarray, noisy: np.ndarray, clean: np.ndarray, *, split: str = "train"
    ) -> None:
        """Fill two arrays with pairs; nothing is allocated, so you can reuse the arrays.

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
        for side, out in enumerate((noisy, clean)):
            if out.shape != (len(indices), *self.patch_shape) or out.dtype != np.float32 or not out.flags.c_contiguous:
                raise ShapeError(
                    f"{self.path}: buffer {out.shape} {out.dtype}; allowed: C-contiguous float32 "
                    f"{(len(indices), *self.patch_shape)}"
                )
            for row, index in enumerate(indices):
                self.read_crop(side, self.crop_of(int(index), split), out[row], split=split)

    def read_crop(self, side: int, crop: Crop, out: np.ndarray, *, split: str = "train") -> None:
        """Fill an array with a window of a stored image.

        Parameters
        ----------
        side
            0 noisy, 1 clean.
        crop
            Image, and first pixel of the window.
        out
            C-contiguous ``(y, x)`` of the window's size, float32 or the store's own dtype.
        split
            ``train`` or ``test``.
        """
        height, width = out.shape
        if not out.flags.c_contiguous or out.dtype not in (np.float32, self.dtype):
            raise ShapeError(f"{self.path}: buffer of {out.dtype}; allowed: C-contiguous float32 or {self.dtype}")
        rows, columns = self.image_shape(crop.image, split)
        if not (0 <= crop.y <= rows - height and 0 <= crop.x <= columns - width):
            raise IndexError(
                f"{self.path}: a window of {height}x{width} at {crop} leaves its image of {rows}x{columns}"
            )
        if width == columns:
            self.read_pixels(side, crop.image, crop.y * columns, out.reshape(-1), split=split)
            return
        # Whole rows into a band that stays in the processor's cache: one call for each row would take as long as
        # copying the rows that are not needed, and hold the interpreter's lock.
        step = max(1, _BAND_PIXELS // columns)
        band = self._buffer(step * columns)
        for first in range(0, height, step):
            last = min(first + step, height)
            part = band[: (last - first) * columns]
            self.read_pixels(side, crop.image, (crop.y + first) * columns, part, split=split)
            out[first:last] = part.reshape(-1, columns)[:, crop.x : crop.x + width]

    def read_pixels(self, side: int, image: int, first: int, out: np.ndarray, *, split: str = "train") -> None:
        """Fill a flat array with consecutive pixels of a stored image, row by row, from pixel number `first`."""
        run, size = self._runs[split][side], self.dtype.itemsize
        offset = int(run.offsets[image]) + first * size
        if out.dtype == self.dtype:
            self._fill(run, image, offset, out)
            return
        buffer = self._buffer(min(out.size, _BAND_PIXELS))
        for start in range(0, out.size, buffer.size):
            part = buffer[: out.size - start]
            self._fill(run, image, offset + start * size, part)
            out[start : start + part.size] = part

    def window_of(self, index: int, split: str = "train") -> Window | None:
        """Return (index into ``manifest.micrographs``, y, x) of a pair's first pixel; None without a manifest."""
        if self.manifest is None:
            return None
        crop = self.crop_of(index, split)
        micrograph, y, x = self.manifest.windows[split][crop.image]
        return micrograph, y + crop.y, x + crop.x

    def micrograph_of(self, index: int, split: str = "train") -> int | None:
        """Return the index into ``manifest.micrographs`` of the pair's micrograph; None without a manifest."""
        window = self.window_of(index, split)
        return None if window is None else window[0]

    def describe(self, index: int, split: str = "train", *, crop: Crop | None = None) -> str:
        """Name a patch in words, for messages; give `crop` if it was not cut at its place on the grid."""
        window = self.window_of(index, split)
        if window is None or self.manifest is None:
            return f"patch {index} of {split}"
        micrograph, y, x = window if crop is None or not self.whole else (window[0], crop.y, crop.x)
        return f"patch {index} (micrograph {self.manifest.micrographs[micrograph].name}, y {y}, x {x})"

    def verify(self) -> list[str]:
        """Read all pixels, and return a sentence for each micrograph that changed since it was written."""
        if self.manifest is None:
            return []
        found = dict.fromkeys(range(len(self.manifest.micrographs)), 0)
        for split in self.splits:
            for image, (micrograph, _, _) in enumerate(self.manifest.windows[split]):
                rows, columns = self.image_shape(image, split)
                # Noisy and clean in turn: a whole patch at a time, or a row of a micrograph that is kept whole.
                step = 1 if self.whole else rows
                buffer = np.empty(step * columns, self.dtype)
                for row in range(0, rows, step):
                    for side in range(2):
                        self.read_pixels(side, image, row * columns, buffer, split=split)
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

    def __enter__(self) -> PairStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _buffer(self, pixels: int) -> np.ndarray:
        # One for each thread, kept: a fresh page costs 4 us on a virtual machine.
        buffer = getattr(self._local, "buffer", None)
        if buffer is None or buffer.size < pixels:
            buffer = self._local.buffer = np.empty(pixels, self.dtype)
        return buffer[:pixels]

    def _fill(self, run: PatchRun, image: int, offset: int, out: np.ndarray) -> None:
        descriptor = self._descriptors.get(run.path)
        if descriptor is None:
            raise UsageError(f"{self.path}: this store was closed; open it again")
        view = out.data.cast("B")
        while view:
            with storage_errors(run.path):
                got = os.preadv(descriptor, [view], offset)
            if got == 0:
                raise FormatError(f"{run.path}: ends before patch {image}; it changed while it was read, open it again")
            view, offset = view[got:], offset + got


def open_store(path: str | Path, *, patch_size: int = 1024, crop_size: int | None = None) -> PairStore:
    """Open a store of training pairs: what ``cryoplug convert`` wrote, or bare bins.

    Parameters
    ----------
    path
        The folder, an ``.h5`` file, or one of the bins.
    patch_size
        Side in pixels of the square patches of bins without a manifest.
    crop_size
        Side in pixels of the square crops of whole micrographs; None takes that of convert.

    Returns
    -------
    PairStore
        Pixels are normalised as the manifest says, float32 ``(y, x)``. Use it as a context manager.

    Raises
    ------
    MissingInputError, FormatError, PairingError
        The store is missing, unfinished or damaged, or its two sides differ.
    UsageError
        Crops of a store of patches, or crops larger than a micrograph.

    Examples
    --------
    >>> import numpy as np
    >>> for name in ("noisy", "clean"):
    ...     np.zeros((3, 64, 64), np.float32).tofile(f"{name}_train.bin")
    >>> with open_store(".", patch_size=64) as store:
    ...     noisy, clean = store.pair(2)
    ...     store.count("train"), noisy.shape
    (3, (64, 64))
    """
    layout = find_layout(Path(path), patch_size)
    return PairStore(Path(path), layout if crop_size is None else _with_crops(Path(path), layout, crop_size))


def create_store(path: str | Path, head: Manifest, format: str = "bin", *, overwrite: bool = False) -> StoreWriter:
    """Begin a store, or go on with an interrupted one that has the same head.

    Parameters
    ----------
    path
        Folder; for ``hdf5`` also a file ending ``.h5`` or ``.hdf5``.
    head
        Manifest without micrographs.
    format
        ``bin`` or ``hdf5``.
    overwrite
        Whether to replace a finished store; it stays until the new one is complete.

    Raises
    ------
    UsageError
        A store exists and `overwrite` is off, or the path does not suit the format.
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
    """Return the folder of bins, or the HDF5 file, that `create_store` writes for `path`."""
    path = Path(path)
    if format not in FORMATS:
        raise UsageError(f"format {format!r}; allowed: {', '.join(FORMATS)}")
    is_file_name = path.suffix.lower() in HDF5_SUFFIXES and not path.is_dir()
    if format == "bin" and is_file_name:
        raise UsageError(f"{path}: a file name with --format bin; give a folder, or --format hdf5")
    if not is_file_name:
        refuse_file(path)
    return path / HDF5_NAME if format == "hdf5" and not is_file_name else path


def finished_files(target: Path, format: str) -> list[Path]:
    """Return the files under final names that writing to `target` would replace, manifest first."""
    if format == "hdf5":
        return [target] if target.exists() else []
    names = (raw.MANIFEST_NAME, *(name for pair in raw.BIN_NAMES.values() for name in pair))
    return [target / name for name in names if (target / name).exists()]


def finished_manifest(target: Path, format: str) -> Manifest | None:
    """Return the manifest of the finished store at `target`; None if there is none."""
    if format == "hdf5":
        from cryoplug.store.hdf5_guard import hdf5_manifest

        return hdf5_manifest(target) if target.is_file() else None
    raw.finish_interrupted(target)
    path = target / raw.MANIFEST_NAME
    return read_manifest(path) if path.is_file() else None


def _with_crops(path: Path, layout: StoreLayout, crop_size: int) -> StoreLayout:
    if not layout.image_shapes:
        raise UsageError(f"{path}: a store of patches; --crop-size needs one of convert --store whole")
    smallest = min(min(shape) for shapes in layout.image_shapes.values() for shape in shapes)
    if not 1 <= crop_size <= smallest:
        raise UsageError(f"--crop-size is {crop_size}; allowed with the micrographs of {path}: 1 to {smallest}")
    return dataclasses.replace(layout, patch_shape=(crop_size, crop_size))
