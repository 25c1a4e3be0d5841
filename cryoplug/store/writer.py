"""The part of a store writer that all backends share: count, remember windows, acknowledge, publish."""

from __future__ import annotations

import abc
import dataclasses
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from cryoplug.disk.lock import OutputLock
from cryoplug.errors import ShapeError, UsageError
from cryoplug.store.layout import storage_dtype
from cryoplug.store.manifest import SPLITS, FailedInput, Manifest, MicrographEntry, Window


class StoreWriter(abc.ABC):
    """Writes pairs, one micrograph after another, under hidden names until `finish`.

    If the ``with`` block ends without `finish`, acknowledged pairs stay for a later run, if the backend can keep them.

    Parameters
    ----------
    target
        Folder of the bins, or the HDF5 file.
    head
        Manifest without micrographs.
    lock
        Held until the writer closes.
    """

    def __init__(self, target: Path, head: Manifest, lock: OutputLock) -> None:
        self.target = target
        self.head = head
        self.dtype = storage_dtype(head.dtype)
        self._lock = lock
        self._entries: list[MicrographEntry] = []
        self._windows: dict[str, list[Window]] = {split: [] for split in SPLITS}
        self._safe = dict.fromkeys(SPLITS, 0)
        self._crc32 = 0
        self._rows_written = 0
        self._closed = False

    @property
    def acknowledged(self) -> tuple[MicrographEntry, ...]:
        """The micrographs that were acknowledged, also those of an earlier interrupted run."""
        return tuple(self._entries)

    def count(self, split: str = "train") -> int:
        """Return how many pairs of `split` were appended so far."""
        return len(self._windows[split])

    def append(self, split: str, noisy: np.ndarray, clean: np.ndarray, window: tuple[int, int]) -> None:
        """Add one pair of the micrograph that the next `acknowledge` names.

        Parameters
        ----------
        split
            ``train`` or ``test``.
        noisy, clean
            ``(y, x)`` of the store's patch shape; cast to the store's dtype.
        window
            (y, x) of the patch's first pixel in the micrograph.
        """
        if self._closed:
            raise UsageError(f"{self.target}: this writer was closed; create the store again to go on")
        pair = []
        for side in (noisy, clean):
            if side.shape != self.head.patch_shape:
                raise ShapeError(f"{self.target}: patch of shape {side.shape}; allowed: {self.head.patch_shape}")
            pair.append(np.ascontiguousarray(side, self.dtype))
        self._write(split, len(self._windows[split]), pair[0], pair[1])
        for side in pair:
            self._crc32 = zlib.crc32(side.data, self._crc32)
        self._windows[split].append((len(self._entries), int(window[0]), int(window[1])))

    def append_rows(self, split: str, noisy: np.ndarray, clean: np.ndarray, shape: tuple[int, int]) -> None:
        """Add the next rows of the micrograph that the next `acknowledge` names; only for stores of whole micrographs.

        Parameters
        ----------
        split
            ``train`` or ``test``.
        noisy, clean
            ``(rows, x)``, the rows after those of the last call; cast to the store's dtype.
        shape
            (y, x) of the whole micrograph.
        """
        if noisy.shape != clean.shape or noisy.shape[1] != shape[1] or self._rows_written + len(noisy) > shape[0]:
            raise ShapeError(
                f"{self.target}: rows of shape {noisy.shape} and {clean.shape} after {self._rows_written}; "
                f"allowed: rows of one micrograph of {shape}"
            )
        first, rows = self._rows_written, [np.ascontiguousarray(side, self.dtype) for side in (noisy, clean)]
        if first == 0:
            self._windows[split].append((len(self._entries), 0, 0))
        self._write_rows(split, len(self._windows[split]) - 1, first, rows[0], rows[1], shape)
        # Row by row, so that the sum does not depend on the bands; in one call, because each one gives the interpreter away
        # to the threads that measure, and waits to get it back.
        self._crc32 = zlib.crc32(np.stack(rows, axis=1).data, self._crc32)
        self._rows_written += len(noisy)

    def acknowledge(self, entry: MicrographEntry) -> None:
        """Record that all pairs since the last call belong to `entry`, and begin to write them safely to disk."""
        if self.head.whole and self._rows_written != entry.shape[0]:
            raise ShapeError(f"{self.target}: {self._rows_written} rows of {entry.name}, which has {entry.shape[0]}")
        entry = dataclasses.replace(entry, crc32=self._crc32)
        self._entries.append(entry)
        fresh = {split: self._windows[split][self._safe[split] :] for split in SPLITS}
        self._secure(entry, fresh)
        self._safe = {split: len(self._windows[split]) for split in SPLITS}
        self._crc32 = self._rows_written = 0

    def discard(self) -> None:
        """Forget the pairs since the last `acknowledge`, because their micrograph turned out to be unreadable."""
        for split in SPLITS:
            del self._windows[split][self._safe[split] :]
            self._truncate(split)
        self._crc32 = self._rows_written = 0

    def finish(self, *, failures: Sequence[FailedInput] = ()) -> Manifest:
        """Give the store its final name, manifest last, and close.

        Parameters
        ----------
        failures
            Inputs that are not in the store, for the record.
        """
        if any(len(self._windows[split]) != self._safe[split] for split in SPLITS):
            raise UsageError(f"{self.target}: pairs without a micrograph; call acknowledge or discard before finish")
        manifest = dataclasses.replace(
            self.head,
            counts=dict(self._safe),
            micrographs=tuple(self._entries),
            windows={split: tuple(rows) for split, rows in self._windows.items()},
            failures=tuple(failures),
        )
        self._publish(manifest)
        self.close()
        return manifest

    def abort(self) -> None:
        """Remove everything that was written and close."""
        self._erase()
        self.close()

    def close(self) -> None:
        """Close the files and release the lock. A second call does nothing."""
        if not self._closed:
            self._closed = True
            try:
                self._release()
            finally:
                self._lock.release()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abc.abstractmethod
    def wait_until_safe(self) -> None:
        """Wait until all acknowledged pairs would survive a crash, if the backend can do that before `finish`."""

    @abc.abstractmethod
    def _write(self, split: str, index: int, noisy: np.ndarray, clean: np.ndarray) -> None:
        """Write pair number `index` of `split`."""

    @abc.abstractmethod
    def _write_rows(
        self, split: str, index: int, first: int, noisy: np.ndarray, clean: np.ndarray, shape: tuple[int, int]
    ) -> None:
        """Write rows from number `first` of whole micrograph number `index` of `split`."""

    @abc.abstractmethod
    def _secure(self, entry: MicrographEntry, windows: dict[str, list[Window]]) -> None:
        """Make the new pairs survive a crash, if the backend can; this may go on in the background until `_publish`."""

    @abc.abstractmethod
    def _truncate(self, split: str) -> None:
        """Keep only the acknowledged pairs of `split`."""

    @abc.abstractmethod
    def _publish(self, manifest: Manifest) -> None:
        """Write everything safely to disk, and rename it to its final name."""

    @abc.abstractmethod
    def _erase(self) -> None:
        """Remove the unfinished files."""

    @abc.abstractmethod
    def _release(self) -> None:
        """Close the open files."""
