"""Read batches ahead in a background thread, into buffers that are used again and again.

Order is a function of (seed, epoch), augmentation of (seed, epoch, patch index): where a run was interrupted does not
matter. A fresh buffer for each batch would cost more in page faults than reading it.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from cryoplug.store.pairs import PairStore

READ_AHEAD = 2
"""Batches in memory at a time: one is computed on while the next is read."""


@dataclass(frozen=True)
class Batch:
    """One batch; its tensors are used again once the next batch is asked for."""

    indices: np.ndarray
    """Patch indices in the store."""
    noisy: torch.Tensor
    """``(b, 1, y, x)`` float32 on the device."""
    clean: torch.Tensor
    """Like `noisy`."""
    noisy_host: np.ndarray
    """``(b, y, x)`` in host memory, to look at when something is wrong."""
    clean_host: np.ndarray
    """Like `noisy_host`."""


def epoch_order(indices: np.ndarray, *, seed: int, epoch: int, shuffle: bool) -> np.ndarray:
    """Return `indices` in the order of this epoch: a function of seed and epoch alone."""
    return np.random.default_rng([seed, epoch]).permutation(indices) if shuffle else indices


def turn_patch(
    noisy: np.ndarray, clean: np.ndarray, *, seed: int, epoch: int, index: int, exchange: bool = False
) -> None:
    """Turn and mirror a pair in place, both alike: one of 8 ways, of 4 when the patch is not square.

    With `exchange`, noisy and clean change places in half of the cases: two halves of an exposure are worth the same.
    """
    rng = np.random.default_rng([seed, epoch, index])
    way = int(rng.integers(8))
    if exchange and rng.integers(2):
        kept = noisy.copy()
        noisy[...] = clean
        clean[...] = kept
    quarter_turns = way % 4 if noisy.shape[0] == noisy.shape[1] else 2 * (way % 2)
    for patch in (noisy, clean):
        turned = np.rot90(patch, quarter_turns)
        patch[...] = (turned[::-1] if way >= 4 else turned).copy()


class BatchLoader:
    """Deliver batches of a store on a device.

    Parameters
    ----------
    store
        The opened store.
    batch_size
        Largest batch.
    device
        Where the batches go; host buffers are pinned for a GPU.
    """

    def __init__(self, store: PairStore, *, batch_size: int, device: torch.device) -> None:
        self._store = store
        self._batch_size = batch_size
        self._device = device
        self.waited_s = 0.0
        """Seconds for which the computation waited for data, so far."""
        on_gpu = device.type == "cuda"
        shape = (batch_size, 1, *store.patch_shape)
        self._slots = []
        for _ in range(READ_AHEAD):
            host = [torch.zeros(shape, dtype=torch.float32, pin_memory=on_gpu) for _ in range(2)]
            self._slots.append((host, [torch.empty_like(part, device=device) for part in host] if on_gpu else host))

    def batches(
        self,
        order: np.ndarray,
        *,
        first: int = 0,
        limit: int | None = None,
        augment_seed: tuple[int, int] | None = None,
        exchange: bool = False,
    ) -> Iterator[Batch]:
        """Yield the batches of one pass.

        Parameters
        ----------
        order
            Patch indices in the order to deliver them.
        first
            Number of the first batch: those before it were done by an earlier run.
        limit
            Deliver only batches below this number.
        augment_seed
            (seed, epoch) of the augmentation; None for none.
        exchange
            Whether the augmentation exchanges noisy and clean, too.
        """
        starts = range(0, len(order), self._batch_size)[:limit][first:]
        upcoming = iter([order[start : start + self._batch_size] for start in starts])
        pending: deque[tuple[int, np.ndarray, Future[None]]] = deque()
        reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cryoplug-loader")

        def read_next_into(slot: int) -> None:
            indices = next(upcoming, None)
            if indices is not None:
                pending.append((slot, indices, reader.submit(self._fill, slot, indices, augment_seed, exchange)))

        try:
            for slot in range(READ_AHEAD):
                read_next_into(slot)
            while pending:
                slot, indices, filled = pending.popleft()
                begin = time.perf_counter()
                filled.result()
                self.waited_s += time.perf_counter() - begin
                yield self._batch(slot, indices)
                read_next_into(slot)
        finally:
            reader.shutdown(wait=True, cancel_futures=True)

    def _fill(self, slot: int, indices: np.ndarray, augment_seed: tuple[int, int] | None, exchange: bool) -> None:
        host, on_device = self._slots[slot]
        noisy, clean = (part[: len(indices), 0].numpy() for part in host)
        self._store.read(indices, noisy, clean)
        if augment_seed is not None:
            seed, epoch = augment_seed
            for row, index in enumerate(indices):
                turn_patch(noisy[row], clean[row], seed=seed, epoch=epoch, index=int(index), exchange=exchange)
        if on_device is not host:
            # On a stream of its own, so that the copy runs beside the previous batch's arithmetic.
            stream = torch.cuda.Stream(self._device)
            with torch.cuda.stream(stream):
                for source, target in zip(host, on_device, strict=True):
                    target[: len(indices)].copy_(source[: len(indices)], non_blocking=True)
            stream.synchronize()

    def _batch(self, slot: int, indices: np.ndarray) -> Batch:
        host, on_device = self._slots[slot]
        size = len(indices)
        return Batch(
            indices,
            on_device[0][:size],
            on_device[1][:size],
            host[0][:size, 0].numpy(),
            host[1][:size, 0].numpy(),
        )


@contextlib.contextmanager
def closing_batches(batches: Iterator[Batch]) -> Iterator[Iterator[Batch]]:
    """End the reader thread when the block ends, however it ends."""
    try:
        yield batches
    finally:
        close = getattr(batches, "close", None)
        if close is not None:
            close()
