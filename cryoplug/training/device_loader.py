"""Deliver batches in a GPU's memory: threads read into pinned buffers, copies run beside the arithmetic.

Pixels travel in the store's own dtype; turning and conversion to float32 are done on the device, into one pair of tensors
whose addresses never change, so that a recorded step may be replayed on them. The host never waits for the device here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from cryoplug.store.pairs import PairStore
from cryoplug.training.cache import GpuCache, Load, RamCache, Tell
from cryoplug.training.config import TrainConfig
from cryoplug.training.draws import place
from cryoplug.training.lane import Lane, Mark
from cryoplug.training.loader import SPLIT, BatchLoader, Filling, Pick, PixelSource

SLOTS = 4
"""Batches that are read or copied ahead of the one that is computed on."""
MOST_READERS = 12
"""Threads that read. One thread copies 5 to 10 GB/s out of the page cache, a GPU takes 50."""
STEPS_BEFORE_CACHE = 3
"""Batches after which the memory that training itself needs is taken, and what is left can be measured."""


def open_loader(store: PairStore, config: TrainConfig, *, device: torch.device, tell: Tell) -> BatchLoader:
    """Give the loader that suits a device, with the cache that was asked for.

    Parameters
    ----------
    store
        The opened store.
    config
        Batch size and ``--cache``. ``auto`` keeps a set that fits on the GPU, and nothing without one: the system keeps
        files that were read in memory by itself.
    device
        Where the batches go.
    tell
        Called with a line about what is kept.
    """
    source = RamCache(store) if config.cache == "ram" else None
    if device.type != "cuda":
        return BatchLoader(store, batch_size=config.batch_size, source=source)
    cache = None
    if config.cache in ("auto", "gpu"):
        cache = GpuCache(store, device, needed=config.cache == "gpu", tell=tell)
    readers = max(2, min(MOST_READERS, config.thread_count - 2))
    return DeviceLoader(store, batch_size=config.batch_size, device=device, source=source, cache=cache, readers=readers)


class DeviceLoader(BatchLoader):
    """Deliver batches of a store on a GPU.

    Parameters
    ----------
    store, batch_size, source, readers
        As for `BatchLoader`.
    device
        Where the batches go.
    cache
        Keeps the set on the device; None: it is read in every pass.
    """

    def __init__(
        self,
        store: PairStore,
        *,
        batch_size: int,
        device: torch.device,
        source: PixelSource | None = None,
        cache: GpuCache | None = None,
        readers: int = 2,
    ) -> None:
        super().__init__(store, batch_size=batch_size, source=source, readers=readers)
        self._cache = cache
        self._delivered = 0
        dtype = torch.from_numpy(np.empty(0, store.dtype)).dtype
        height, width = store.patch_shape
        self._patch_pixels = height * width
        self._lane = Lane(device, buffers=2 * readers, pixels=self._patch_pixels, dtype=dtype)
        shape = (batch_size, 1, height, width)
        self._inputs = [torch.zeros(shape, device=device) for _ in range(2)]
        self._raw = [
            _Slot([torch.empty(shape, dtype=dtype, device=device) for _ in range(2)], self._lane.mark())
            for _ in range(SLOTS)
        ]
        self._let_copies_wait()

    @property
    def _slot_count(self) -> int:
        return SLOTS

    @contextlib.contextmanager
    def _reading(self) -> Iterator[ThreadPoolExecutor]:
        try:
            with super()._reading() as pool:
                yield pool
        finally:
            if self._cache is not None:
                self._cache.forget_loads()

    def _fill(self, slot: int, picks: Sequence[Pick], pool: ThreadPoolExecutor) -> Filling:
        cache = self._cache
        if cache is not None and self._delivered >= STEPS_BEFORE_CACHE and cache.try_to_open():
            self._let_copies_wait()
        if cache is not None and cache.is_open:
            loads = self._loads(cache, picks, pool)
            return _FromCache(slot, picks, [future for load in loads.values() for future in load.futures], loads)
        raw = self._raw[slot]
        self._lane.copies_wait_for(raw.emptied)
        copied = self._lane.mark()
        futures = [
            pool.submit(self._carry_patch, pick, side, raw.sides[side][row, 0], copied)
            for row, pick in enumerate(picks)
            for side in range(2)
        ]
        return _FromSlot(slot, picks, futures, copied)

    def _let_copies_wait(self) -> None:
        # Fresh memory may have been given back by arithmetic that is still under way.
        mark = self._lane.mark()
        self._lane.set_after_arithmetic(mark)
        self._lane.copies_wait_for(mark)

    def _loads(self, cache: GpuCache, picks: Sequence[Pick], pool: ThreadPoolExecutor) -> dict[int, Load]:
        """Begin to load the images that are not there yet; give those, and those that are still under way."""
        loads = {}
        for image in dict.fromkeys(pick.crop.image for pick in picks):
            if image in cache.known:
                continue
            if image not in cache.loads:
                load = cache.loads[image] = Load(self._lane.mark())
                size = cache.flat(0, image).numel()
                load.futures += [
                    pool.submit(self._carry_part, cache, side, image, first, load.copied)
                    for side in range(2)
                    for first in range(0, size, self._patch_pixels)
                ]
            loads[image] = cache.loads[image]
        return loads

    def _carry_patch(self, pick: Pick, side: int, target: torch.Tensor, copied: Mark) -> None:
        # Sides change places on the device, with everything else that is drawn.
        with self._lane.buffer(target, copied) as pixels:
            self._source.read_crop(side, pick.crop, pixels.view(target.shape).numpy())

    def _carry_part(self, cache: GpuCache, side: int, image: int, first: int, copied: Mark) -> None:
        target = cache.flat(side, image)[first : first + self._patch_pixels]
        with self._lane.buffer(target, copied) as pixels:
            self._store.read_pixels(side, image, first, pixels.numpy(), split=SPLIT)

    def _deliver(self, filling: Filling) -> tuple[torch.Tensor, torch.Tensor]:
        self._delivered += 1
        if isinstance(filling, _FromCache):
            assert self._cache is not None
            for image, load in filling.loads.items():
                self._lane.arithmetic_waits_for(load.copied)
                self._cache.loads.pop(image, None)
                self._cache.known.add(image)
        else:
            assert isinstance(filling, _FromSlot)
            self._lane.arithmetic_waits_for(filling.copied)
        for row, pick in enumerate(filling.picks):
            for side, inputs in enumerate(self._inputs):
                place(inputs[row, 0], self._patch(filling, row, pick, pick.turn.source_of(side)), pick.turn)
        self._lane.set_after_arithmetic(self._raw[filling.slot].emptied)
        noisy, clean = self._inputs
        return noisy[: len(filling.picks)], clean[: len(filling.picks)]

    def _patch(self, filling: Filling, row: int, pick: Pick, side: int) -> torch.Tensor:
        if not isinstance(filling, _FromCache):
            return self._raw[filling.slot].sides[side][row, 0]
        assert self._cache is not None
        height, width = self._store.patch_shape
        _, y, x = pick.crop
        return self._cache.image(side, pick.crop.image)[y : y + height, x : x + width]


@dataclass(frozen=True)
class _Slot:
    """Buffers of a batch on the device, as it was read."""

    sides: list[torch.Tensor]
    emptied: Mark


@dataclass(frozen=True)
class _FromSlot(Filling):
    copied: Mark


@dataclass(frozen=True)
class _FromCache(Filling):
    loads: dict[int, Load]
