"""Raw bins: patches one after another, without a header, so that np.memmap, C or Fortran can read them.

While a convert runs, the bins and a journal have hidden names that end with ``.cryoplug-partial``. The journal gets one
line of JSON for each micrograph, after the micrograph's pixels are on disk. If convert was killed, the same command goes on
after the last line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from cryoplug.disk.atomic import PARTIAL_SUFFIX, atomic_file, fsync_folder, storage_errors
from cryoplug.disk.lock import OutputLock
from cryoplug.errors import FormatError, MissingInputError, StorageError
from cryoplug.store.layout import PatchRun, StoreLayout, check_count, check_equal_counts, storage_dtype
from cryoplug.store.manifest import MAX_SIDE_PX, SPLITS, Manifest, MicrographEntry, Window
from cryoplug.store.manifest_reader import manifest_from_json, read_manifest
from cryoplug.store.writer import StoreWriter

MANIFEST_NAME = "dataset.json"
BIN_NAMES = {split: (f"noisy_{split}.bin", f"clean_{split}.bin") for split in SPLITS}
SISTER_NAMES = {split: (f"{split}_input.bin", f"{split}_target.bin") for split in SPLITS}
INTERLEAVED_NAMES = {split: f"{split}_n2n.bin" for split in SPLITS}
INTERLEAVED_HEADER_BYTES = 16


def journal_path(folder: Path) -> Path:
    """Return where an unfinished store keeps its journal."""
    return folder / f".{MANIFEST_NAME}{PARTIAL_SUFFIX}"


def bin_names(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    """Return the names of a store's bins by split: noisy and clean; for single exposures only noisy."""
    return {split: names[: manifest.sides] for split, names in BIN_NAMES.items()}


def bare_bins(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the names of the bins in `folder`, in any known spelling, for each split that has some."""
    found: dict[str, tuple[str, ...]] = {}
    for split in SPLITS:
        for names in (BIN_NAMES[split], SISTER_NAMES[split], (INTERLEAVED_NAMES[split],)):
            if any((folder / name).is_file() for name in names):
                found[split] = names
                break
    return found


def raw_layout(folder: Path, *, patch_size: int) -> StoreLayout:
    """Find the patches of a folder of bins, with a manifest or without.

    Parameters
    ----------
    folder
        Holds the bins.
    patch_size
        Side of a square patch; used only without a manifest.

    Raises
    ------
    FormatError, PairingError, MissingInputError
        A size is not a whole number of patches, the two sides differ, or a file is missing.
    """
    if (folder / MANIFEST_NAME).is_file():
        manifest = read_manifest(folder / MANIFEST_NAME)
        dtype, shape = storage_dtype(manifest.dtype), manifest.patch_shape
        names: dict[str, tuple[str, ...]] = {
            split: names for split, names in bin_names(manifest).items() if manifest.counts[split]
        }
    else:
        manifest, dtype, shape, names = None, storage_dtype("float32"), (patch_size, patch_size), bare_bins(folder)
    runs: dict[str, tuple[PatchRun, PatchRun]] = {}
    if manifest is not None and manifest.whole:
        shapes = {split: manifest.image_shapes(split) for split in names}
        for split, files in names.items():
            sides = [_whole_run(folder / name, shapes[split], dtype) for name in files]
            runs[split] = sides[0], sides[-1]
        return StoreLayout(manifest=manifest, patch_shape=shape, dtype=dtype, runs=runs, image_shapes=shapes)
    for split, files in names.items():
        if len(files) == 1 and manifest is None:
            shape, runs[split] = _interleaved(folder / files[0])
            continue
        sides = [_plain_run(folder / name, shape, dtype) for name in files]
        noisy, clean = sides[0], sides[-1]
        check_equal_counts(folder, split, len(noisy.offsets), len(clean.offsets))
        if manifest is not None:
            check_count(noisy.path, len(noisy.offsets), manifest, split)
        runs[split] = noisy, clean
    return StoreLayout(manifest=manifest, patch_shape=shape, dtype=dtype, runs=runs)


def finish_interrupted(folder: Path) -> None:
    """Complete a store whose writer was killed between the last patch and the last rename; otherwise do nothing."""
    if not journal_path(folder).is_file():
        return
    lock = OutputLock(_lock_path(folder))
    try:
        lines = _journal_lines(folder)
        if lines and "publish" in lines[-1]:
            _publish_bins(folder, manifest_from_json(str(lines[-1]["publish"]), path=journal_path(folder)))
    finally:
        lock.release()


class RawWriter(StoreWriter):
    """Writes a folder of bins; goes on where the same convert was killed."""

    def __init__(self, folder: Path, head: Manifest) -> None:
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder, head, OutputLock(_lock_path(folder)))
        self._descriptors: dict[str, tuple[int, ...]] = {}
        # One micrograph of 4096 x 4096 is 400 MB to sync: the patches of the next one are made meanwhile.
        self._background = ThreadPoolExecutor(1, "sync")
        self._syncing: Future[None] | None = None
        self._whole_bytes = dict.fromkeys(SPLITS, 0)
        self._patch_bytes = head.patch_shape[0] * head.patch_shape[1] * self.dtype.itemsize
        try:
            resumed = self._resume()
            with storage_errors(folder):
                if not resumed:
                    self._erase()
                for split, names in bin_names(head).items():
                    self._descriptors[split] = _open_bins(folder, names)
                    self._truncate(split)
                self._journal = open(journal_path(folder), "ab")
                if not resumed:
                    self._note({"head": _head_record(head)})
        except BaseException:
            self.close()
            raise

    def _resume(self) -> bool:
        lines = _journal_lines(self.target)
        if not lines or lines[0].get("head") != _head_record(self.head):
            return False
        try:
            for line in lines[1:]:
                self._entries.append(MicrographEntry(**line["entry"]))
                self._count_whole(self._entries[-1])
                for split in SPLITS:
                    self._windows[split] += [(m, y, x) for m, y, x in line["windows"][split]]
        except (KeyError, TypeError, ValueError):
            # Not ours, or damaged: nothing under a final name is lost by starting again.
            self._entries.clear()
            for rows in self._windows.values():
                rows.clear()
            self._whole_bytes = dict.fromkeys(SPLITS, 0)
            return False
        self._safe = {split: len(self._windows[split]) for split in SPLITS}
        sizes = [
            (partial_name(self.target, name), self._safe_bytes(split))
            for split, names in bin_names(self.head).items()
            for name in names
        ]
        if all(path.is_file() and path.stat().st_size >= size for path, size in sizes):
            # Cut off what a torn last line may have left, so that the next line starts on its own.
            os.truncate(journal_path(self.target), sum(len(line) for line in _complete_lines(self.target)))
            return True
        self._entries.clear()
        self._windows = {split: [] for split in SPLITS}
        self._safe = dict.fromkeys(SPLITS, 0)
        self._whole_bytes = dict.fromkeys(SPLITS, 0)
        return False

    def _write(self, split: str, index: int, noisy: np.ndarray, clean: np.ndarray) -> None:
        self._put(split, index * self._patch_bytes, (noisy, clean))

    def _write_rows(
        self, split: str, index: int, first: int, noisy: np.ndarray, clean: np.ndarray, shape: tuple[int, int]
    ) -> None:
        self._put(split, self._safe_bytes(split) + first * shape[1] * self.dtype.itemsize, (noisy, clean))

    def _put(self, split: str, offset: int, sides: tuple[np.ndarray, np.ndarray]) -> None:
        # Of a single exposure the one side is given twice and written once.
        for descriptor, side in zip(self._descriptors[split], sides, strict=False):
            view, place = side.data.cast("B"), offset
            while view:
                with storage_errors(self.target):
                    written = os.pwrite(descriptor, view, place)
                view, place = view[written:], place + written

    def _safe_bytes(self, split: str) -> int:
        """Bytes of each side that the acknowledged pairs take."""
        return self._whole_bytes[split] if self.head.whole else self._safe[split] * self._patch_bytes

    def _count_whole(self, entry: MicrographEntry) -> None:
        self._whole_bytes[entry.split] += entry.shape[0] * entry.shape[1] * self.dtype.itemsize

    def _secure(self, entry: MicrographEntry, windows: dict[str, list[Window]]) -> None:
        self._wait()
        self._count_whole(entry)
        touched = [descriptor for split in SPLITS if windows[split] for descriptor in self._descriptors[split]]
        line = {"entry": dataclasses.asdict(entry), "windows": windows}
        self._syncing = self._background.submit(self._sync, touched, line)

    def wait_until_safe(self) -> None:
        """Wait for the last micrograph's line in the journal."""
        self._wait()

    def _sync(self, descriptors: list[int], line: dict[str, Any]) -> None:
        with storage_errors(self.target):
            for descriptor in descriptors:
                os.fdatasync(descriptor)
            self._note(line)

    def _wait(self) -> None:
        syncing, self._syncing = self._syncing, None
        if syncing is not None:
            syncing.result()

    def _truncate(self, split: str) -> None:
        with storage_errors(self.target):
            for descriptor in self._descriptors[split]:
                os.ftruncate(descriptor, self._safe_bytes(split))

    def _publish(self, manifest: Manifest) -> None:
        self._wait()
        with storage_errors(self.target):
            for pair in self._descriptors.values():
                for descriptor in pair:
                    os.fsync(descriptor)
            self._note({"publish": manifest.to_json()})
        _publish_bins(self.target, manifest)

    def _erase(self) -> None:
        self._wait()
        for names in BIN_NAMES.values():
            for name in names:
                partial_name(self.target, name).unlink(missing_ok=True)
        journal_path(self.target).unlink(missing_ok=True)

    def _release(self) -> None:
        # An error of the last sync means one micrograph less in the journal; what ends the run is reported instead.
        with contextlib.suppress(StorageError):
            self._wait()
        self._background.shutdown()
        for pair in self._descriptors.values():
            for descriptor in pair:
                os.close(descriptor)
        self._descriptors = {}
        if hasattr(self, "_journal"):
            self._journal.close()

    def _note(self, line: dict[str, Any]) -> None:
        self._journal.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())


def partial_name(folder: Path, name: str) -> Path:
    """Return the hidden name of an unfinished bin: the same in every run, so that the next run finds it."""
    return folder / f".{name}{PARTIAL_SUFFIX}"


def _publish_bins(folder: Path, manifest: Manifest) -> None:
    # Every step may be repeated after a crash. The old manifest goes first: from here on to the new one a reader
    # sees an unfinished store, never old numbers beside new pixels.
    with storage_errors(folder):
        (folder / MANIFEST_NAME).unlink(missing_ok=True)
        fsync_folder(folder)
        for split, names in BIN_NAMES.items():
            for name in names:
                partial, final = partial_name(folder, name), folder / name
                if manifest.counts[split] == 0 or name not in bin_names(manifest)[split]:
                    # No empty file: np.memmap refuses one, and an old one would not belong.
                    partial.unlink(missing_ok=True)
                    final.unlink(missing_ok=True)
                elif partial.is_file():
                    partial.replace(final)
                elif not final.is_file():
                    raise StorageError(f"{final}: gone while the store was finished; run the convert with --overwrite")
        fsync_folder(folder)
    # One name in every run: what a killed one left is written over.
    target = folder / MANIFEST_NAME
    with atomic_file(target, partial=partial_name(folder, f"{MANIFEST_NAME}.new")) as stream, storage_errors(target):
        stream.write(manifest.to_json().encode("utf-8", "surrogateescape"))
    with storage_errors(folder):
        journal_path(folder).unlink(missing_ok=True)
        fsync_folder(folder)


def _plain_run(path: Path, shape: tuple[int, int], dtype: np.dtype) -> PatchRun:
    if not path.is_file():
        raise MissingInputError(f"{path}: not there, but its other half is; a store needs both sides")
    size, patch = path.stat().st_size, shape[0] * shape[1] * dtype.itemsize
    if size == 0:
        raise FormatError(f"{path}: is empty; run the convert again")
    if size % patch:
        raise FormatError(
            f"{path}: {size} bytes is {size / patch:.2f} patches of {shape[0]}x{shape[1]} {dtype.name} "
            f"({patch} bytes each); give --patch-size, or convert again if the file was cut off"
        )
    return PatchRun(path, range(0, size, patch))


def _whole_run(path: Path, shapes: list[tuple[int, int]], dtype: np.dtype) -> PatchRun:
    if not path.is_file():
        raise MissingInputError(f"{path}: not there, but the manifest names it; convert again")
    sizes = [height * width * dtype.itemsize for height, width in shapes]
    found = path.stat().st_size
    if found != sum(sizes):
        raise FormatError(
            f"{path}: {found} bytes but the {len(sizes)} micrographs of the manifest take {sum(sizes)}; "
            "it was cut off or is of another store, convert again"
        )
    return PatchRun(path, np.cumsum([0, *sizes[:-1]], dtype=np.int64))


def _interleaved(path: Path) -> tuple[tuple[int, int], tuple[PatchRun, PatchRun]]:
    size = path.stat().st_size
    with open(path, "rb") as stream:
        header = stream.read(INTERLEAVED_HEADER_BYTES)
    if len(header) < INTERLEAVED_HEADER_BYTES:
        raise FormatError(f"{path}: {size} bytes; allowed: a header of 16 bytes and patches; run the convert again")
    count, height, width, channels = (int(value) for value in np.frombuffer(header, "<i4"))
    if min(count, height, width) < 1 or channels != 1:
        raise FormatError(
            f"{path}: header says n {count}, height {height}, width {width}, channels {channels}; "
            "allowed: positive sizes and 1 channel; run the convert again"
        )
    patch = 4 * height * width
    if size != INTERLEAVED_HEADER_BYTES + 2 * count * patch:
        raise FormatError(
            f"{path}: {size} bytes but the header says {count} pairs of {height}x{width} float32 "
            f"({INTERLEAVED_HEADER_BYTES + 2 * count * patch} bytes); it was cut off or is of another kind"
        )
    if max(height, width) > MAX_SIDE_PX:
        raise FormatError(f"{path}: patches of {height}x{width}; allowed: up to {MAX_SIDE_PX} a side; cut smaller ones")
    noisy, clean = (
        range(start, size, 2 * patch) for start in (INTERLEAVED_HEADER_BYTES, INTERLEAVED_HEADER_BYTES + patch)
    )
    return (height, width), (PatchRun(path, noisy), PatchRun(path, clean))


def _lock_path(folder: Path) -> Path:
    return folder / f".dataset.lock{PARTIAL_SUFFIX}"


def _head_record(head: Manifest) -> Any:
    """Give the part of the manifest that must be equal if convert is to go on; the names that the user gave may differ."""
    return json.loads(dataclasses.replace(head, inputs=()).to_json())


def _complete_lines(folder: Path) -> list[bytes]:
    path = journal_path(folder)
    if not path.is_file():
        return []
    with storage_errors(path):
        # Without its newline the last line is torn: its micrograph does not count.
        return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def _journal_lines(folder: Path) -> list[dict[str, Any]]:
    try:
        lines = [json.loads(line) for line in _complete_lines(folder)]
    except (ValueError, RecursionError):
        return []
    return lines if all(isinstance(line, dict) for line in lines) else []


def _open_bins(folder: Path, names: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(os.open(partial_name(folder, name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666) for name in names)
