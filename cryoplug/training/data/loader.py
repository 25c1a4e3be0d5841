"""Read batches ahead in background threads, into buffers that are reused.

The order is a function of (seed, epoch), augmentation of (seed, epoch, pair number), so it does not matter where a run was
interrupted. A new buffer for each batch would cost more in page faults than reading it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from cryoplug.store.pairs import Crop, PairStore
from cryoplug.training.data.augment import UPRIGHT, Draw, Orientation, crop_of, orientation_of, place
from cryoplug.training.distributed import ALONE, Processes, Rows

READ_AHEAD = 2
"""Batches in memory at a time on the CPU: one is in computation while the next is read."""
SPLIT = "train"
"""Part of a store from which training and validation pairs come; the other part (``test``) is never used."""


@dataclass(frozen=True)
class Batch:
    """One batch; its tensors are overwritten when the next batch is asked for."""

    indices: np.ndarray
    """Pair numbers in the store; if an epoch has more crops than pairs, higher numbers start a new round."""
    noisy: torch.Tensor
    """``(b, 1, y, x)`` float32 on the device."""
    clean: torch.Tensor
    """Like `noisy`."""
    crops: tuple[Crop, ...]
    """Place where each pair was cut."""
    rows: Rows
    """Rows of this process in the batch that all processes share."""


@dataclass(frozen=True)
class Pick:
    """One pair of a batch to come."""

    index: int
    """Pair number."""
    crop: Crop
    """Place where it is cut."""
    orientation: Orientation
    """How it is turned and mirrored."""


@dataclass(frozen=True)
class Filling:
    """A batch while it is read."""

    slot: int
    """Number of its buffers."""
    picks: Sequence[Pick]
    """Its pairs."""
    futures: Sequence[Future[None]]
    """Work of the reading threads; done when the batch is read."""


class PixelSource(Protocol):
    """Source of the pixels of patches: a store, or a copy of it in memory."""

    def read_crop(self, side: int, crop: Crop, out: np.ndarray) -> None:
        """Fill an array ``(y, x)`` with a crop; see `cryoplug.store.pairs.PairStore.read_crop`."""


def epoch_order(indices: np.ndarray, *, seed: int, epoch: int, shuffle: bool) -> np.ndarray:
    """Return `indices` in the order of this epoch: a function of seed and epoch alone."""
    return np.random.default_rng([seed, epoch]).permutation(indices) if shuffle else indices


def crops_of_epoch(order: np.ndarray, count: int, *, pairs: int) -> np.ndarray:
    """Return the numbers of `count` crops of whole micrographs, drawn in turn from those of `order`.

    Parameters
    ----------
    order
        Pair numbers in the order of the epoch.
    count
        Number of crops.
    pairs
        Number of pairs in the store; each further round adds this to its numbers, so that it has other places.
    """
    rounds = np.arange(-(-count // len(order)))
    return (order[None, :] + pairs * rounds[:, None]).ravel()[:count]


class BatchLoader:
    """Deliver batches of a store in host memory.

    Parameters
    ----------
    store
        The opened store.
    batch_size
        Largest batch of one process.
    source
        Source of the pixels; None reads from the store.
    readers
        Number of threads that read; batches do not depend on it.
    processes
        The processes that share every batch; each reads only its own rows.
    """

    def __init__(
        self,
        store: PairStore,
        *,
        batch_size: int,
        source: PixelSource | None = None,
        readers: int = 1,
        processes: Processes = ALONE,
    ) -> None:
        self._store = store
        self._source: PixelSource = source or store
        self._batch_size = batch_size
        self._readers = readers
        self._processes = processes
        self._square = store.patch_shape[0] == store.patch_shape[1]
        self._scratch = threading.local()
        self._slots: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.waited_s = 0.0
        """Seconds for which the computation waited for data, so far."""

    def prepare(self, compute: Callable[[torch.Tensor, torch.Tensor], bool]) -> None:
        """Do slow preparations before the first pass; there are none on the CPU."""

    def batches(
        self, order: np.ndarray, *, first: int = 0, limit: int | None = None, draw: Draw | None = None
    ) -> Iterator[Batch]:
        """Yield the batches of one pass.

        Parameters
        ----------
        order
            Pair numbers in the order to deliver them.
        first
            Number of the first batch: those before it were done by an earlier run.
        limit
            Deliver only batches below this number.
        draw
            Random choices of this epoch; None leaves pairs unchanged.
        """
        shared = self._batch_size * self._processes.world
        starts = range(0, len(order), shared)[:limit][first:]
        upcoming = iter([order[start : start + shared] for start in starts])
        with self._reading() as pool:
            pending: deque[tuple[np.ndarray, Rows, Filling]] = deque()

            def read_next_into(slot: int) -> None:
                whole = next(upcoming, None)
                if whole is not None:
                    rows = self._processes.rows(len(whole))
                    picks = [self._pick(int(index), draw) for index in whole[rows.own]]
                    pending.append((whole[rows.own], rows, self._fill(slot, picks, pool)))

            for slot in range(self._slot_count):
                read_next_into(slot)
            while pending:
                indices, rows, filling = pending.popleft()
                begin = time.perf_counter()
                for future in filling.futures:
                    future.result()
                self.waited_s += time.perf_counter() - begin
                noisy, clean = self._deliver(filling)
                yield Batch(indices, noisy, clean, tuple(pick.crop for pick in filling.picks), rows)
                read_next_into(filling.slot)

    @property
    def _slot_count(self) -> int:
        return READ_AHEAD

    @contextlib.contextmanager
    def _reading(self) -> Iterator[ThreadPoolExecutor]:
        pool = ThreadPoolExecutor(max_workers=self._readers, thread_name_prefix="cryoplug-loader")
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _pick(self, index: int, draw: Draw | None) -> Pick:
        orientation = UPRIGHT if draw is None or not draw.turn else orientation_of(draw, index, square=self._square)
        if draw is not None and self._store.whole:
            return Pick(index, crop_of(draw, index, self._store, SPLIT), orientation)
        return Pick(index, self._store.crop_of(index, SPLIT), orientation)

    def _fill(self, slot: int, picks: Sequence[Pick], pool: ThreadPoolExecutor) -> Filling:
        """Begin to read a batch."""
        if not self._slots:
            shape = (self._batch_size, 1, *self._store.patch_shape)
            self._slots = [(torch.zeros(shape), torch.zeros(shape)) for _ in range(self._slot_count)]
        sides = self._slots[slot]
        rows = [(row, pick, side) for row, pick in enumerate(picks) for side in range(2)]
        futures = [pool.submit(self._read_row, sides[side][row, 0], pick, side) for row, pick, side in rows]
        return Filling(slot, picks, futures)

    def _read_row(self, target: torch.Tensor, pick: Pick, side: int) -> None:
        stored = pick.orientation.source_of(side)
        if pick.orientation == UPRIGHT:
            self._source.read_crop(stored, pick.crop, target.numpy())
            return
        if not hasattr(self._scratch, "patch"):
            self._scratch.patch = torch.empty(self._store.patch_shape)
        self._source.read_crop(stored, pick.crop, self._scratch.patch.numpy())
        place(target, self._scratch.patch, pick.orientation)

    def _deliver(self, filling: Filling) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the tensors of a batch that has been read."""
        noisy, clean = self._slots[filling.slot]
        return noisy[: len(filling.picks)], clean[: len(filling.picks)]


@contextlib.contextmanager
def closing_batches(batches: Iterator[Batch]) -> Iterator[Iterator[Batch]]:
    """End the reading threads when the block ends, also after an error."""
    try:
        yield batches
    finally:
        close = getattr(batches, "close", None)
        if close is not None:
            close()
