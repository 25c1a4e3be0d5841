"""Deliver batches in a GPU's memory: threads read into pinned buffers, and copies run while the GPU computes.

Pixels are copied in the store's own dtype. The device turns them and converts them to float32, into one pair of tensors whose
addresses never change, so that a recorded step can be replayed on them. The host never waits for the device here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from cryoplug.kernels.patches import Cut, cut_patches
from cryoplug.machine.copy_stream import CopyStream, Mark
from cryoplug.store.pairs import Crop, PairStore
from cryoplug.training.config import TrainConfig
from cryoplug.training.data.augment import UPRIGHT
from cryoplug.training.data.cache import GpuCache, Load, Note, RamCache
from cryoplug.training.data.loader import SPLIT, BatchLoader, Filling, Pick, PixelSource
from cryoplug.training.data.node_cache import NodeCache
from cryoplug.training.distributed import ALONE, Processes

SLOTS = 4
"""Batches that are read or copied ahead of the one in computation."""
MOST_READERS = 8
"""Most threads that read. From the page cache one copies 6 GB/s, 8 copy 35 GB/s, 12 less (16 cores beside an H100)."""
BUFFER_BYTES = 1 << 25
"""Bytes that a thread reads before they are copied to the GPU; with fewer, threads wait for Python's lock too often."""
STEPS_BEFORE_CACHE = 3
"""Batches after which training has taken all the memory that it needs, if it had not before."""


def open_loader(
    store: PairStore, config: TrainConfig, *, device: torch.device, note: Note, processes: Processes = ALONE
) -> BatchLoader:
    """Give the loader for a device, with the cache that was asked for.

    Parameters
    ----------
    store
        The opened store.
    config
        Batch size and ``--cache``. ``auto`` keeps a set on the GPU if it fits; without a GPU it keeps nothing, because the
        system keeps files that were read in memory anyway.
    device
        Device of the batches.
    note
        Called with a line about what is kept.
    processes
        The processes that share the set.
    """
    source = None
    if config.cache == "ram":
        source = RamCache(store) if processes.launch.local_world == 1 else NodeCache(store, processes)
    if device.type != "cuda":
        return BatchLoader(store, batch_size=config.batch_size, source=source, processes=processes)
    cache = None
    if config.cache in ("auto", "gpu"):
        cache = GpuCache(store, device, needed=config.cache == "gpu", note=note)
    readers = max(2, min(MOST_READERS, config.thread_count - 2))
    return DeviceLoader(
        store,
        batch_size=config.batch_size,
        device=device,
        source=source,
        cache=cache,
        readers=readers,
        processes=processes,
    )


class DeviceLoader(BatchLoader):
    """Deliver batches of a store on a GPU.

    Parameters
    ----------
    store, batch_size, source, readers, processes
        As for `BatchLoader`.
    device
        Device of the batches.
    cache
        Keeps the set on the device; None reads it in every pass.
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
        processes: Processes = ALONE,
    ) -> None:
        super().__init__(store, batch_size=batch_size, source=source, readers=readers, processes=processes)
        self._cache = cache
        self._delivered = 0
        dtype = torch.from_numpy(np.empty(0, store.dtype)).dtype
        height, width = store.patch_shape
        self._patch_pixels = height * width
        self._rows_at_once = min(batch_size, max(1, BUFFER_BYTES // (self._patch_pixels * store.dtype.itemsize)))
        self._buffer_pixels = self._rows_at_once * self._patch_pixels
        self._copy_stream = CopyStream(device, buffers=readers + 2, pixels=self._buffer_pixels, dtype=dtype)
        self._inputs = torch.zeros((2, batch_size, 1, height, width), device=device)
        self._raw = [
            _Slot(torch.zeros((2, batch_size, height, width), dtype=dtype, device=device), self._copy_stream.mark())
            for _ in range(SLOTS)
        ]
        self._let_copies_wait()

    def prepare(self, compute: Callable[[torch.Tensor, torch.Tensor], bool]) -> None:
        """Deliver a batch of zeros and call `compute` with it, because loading its kernels may take seconds.

        Parameters
        ----------
        compute
            Returns whether it took all the memory that training needs.
        """
        still = [Pick(0, Crop(0, 0, 0), UPRIGHT)] * self._batch_size
        taken = compute(*self._deliver(_FromSlot(0, still, (), self._copy_stream.mark())))
        self._delivered = STEPS_BEFORE_CACHE if taken else 0

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
        self._copy_stream.copies_wait_for(raw.emptied)
        copied = self._copy_stream.mark()
        futures = [
            pool.submit(
                self._carry_patches,
                [pick.crop for pick in part],
                side,
                [raw.pixels[side, first : first + len(part)]],
                copied,
            )
            for first, part in self._parts(picks)
            for side in range(2)
        ]
        return _FromSlot(slot, picks, futures, copied)

    def _parts(self, picks: Sequence[Pick]) -> Iterator[tuple[int, Sequence[Pick]]]:
        for first in range(0, len(picks), self._rows_at_once):
            yield first, picks[first : first + self._rows_at_once]

    def _let_copies_wait(self) -> None:
        # Fresh memory may have been given back by arithmetic that is still under way.
        mark = self._copy_stream.mark()
        self._copy_stream.set_after_arithmetic(mark)
        self._copy_stream.copies_wait_for(mark)

    def _loads(self, cache: GpuCache, picks: Sequence[Pick], pool: ThreadPoolExecutor) -> dict[int, Load]:
        """Begin to load missing images; give these, and those that are still loading."""
        wanted = list(dict.fromkeys(pick.crop.image for pick in picks if pick.crop.image not in cache.known))
        missing = [image for image in wanted if image not in cache.loads]
        # A few small images in one go, a large one in parts.
        for first in range(0, len(missing), step := 1 if self._store.whole else self._rows_at_once):
            images = missing[first : first + step]
            load = Load(self._copy_stream.mark())
            for side in range(self._store.sides):
                if self._store.whole:
                    tasks = self._parts_of(cache, side, images[0])
                else:
                    tasks = [(images, [cache.flat(side, image) for image in images], 0)]
                load.futures += [pool.submit(self._carry_images, side, *task, load.copied) for task in tasks]
            cache.loads |= dict.fromkeys(images, load)
        return {image: cache.loads[image] for image in wanted}

    def _parts_of(self, cache: GpuCache, side: int, image: int) -> list[tuple[list[int], list[torch.Tensor], int]]:
        """Give (images, targets, first pixel) for each buffer that a large image needs."""
        flat = cache.flat(side, image)
        starts = range(0, flat.numel(), self._buffer_pixels)
        return [([image], [flat[start : start + self._buffer_pixels]], start) for start in starts]

    def _carry_images(
        self, side: int, images: Sequence[int], targets: Sequence[torch.Tensor], first: int, copied: Mark
    ) -> None:
        sizes = [target.numel() for target in targets]

        def read(pixels: np.ndarray) -> None:
            for image, part in zip(images, np.split(pixels, np.cumsum(sizes)[:-1]), strict=True):
                self._store.read_pixels(side, image, first, part, split=SPLIT)

        self._copy_stream.carry(targets, read, copied)

    def _carry_patches(self, crops: Sequence[Crop], side: int, targets: Sequence[torch.Tensor], copied: Mark) -> None:
        # Sides change places on the device, with everything else that is drawn.
        def read(pixels: np.ndarray) -> None:
            for crop, patch in zip(crops, pixels.reshape(-1, *self._store.patch_shape), strict=True):
                self._source.read_crop(side, crop, patch)

        self._copy_stream.carry(targets, read, copied)

    def _deliver(self, filling: Filling) -> tuple[torch.Tensor, torch.Tensor]:
        self._delivered += 1
        if isinstance(filling, _FromCache):
            assert self._cache is not None
            for image, load in filling.loads.items():
                self._copy_stream.arithmetic_waits_for(load.copied)
                self._cache.loads.pop(image, None)
                self._cache.known.add(image)
            source = self._cache.pixels
        else:
            assert isinstance(filling, _FromSlot)
            self._copy_stream.arithmetic_waits_for(filling.copied)
            source = self._raw[filling.slot].pixels.view(-1)
        cuts = [self._cut(filling, row, pick, side) for side in range(2) for row, pick in enumerate(filling.picks)]
        cut_patches(source, cuts, self._inputs.view(-1, *self._store.patch_shape))
        self._copy_stream.set_after_arithmetic(self._raw[filling.slot].emptied)
        noisy, clean = self._inputs
        return noisy[: len(filling.picks)], clean[: len(filling.picks)]

    def _cut(self, filling: Filling, row: int, pick: Pick, side: int) -> Cut:
        stored, turn, stride = pick.orientation.source_of(side), pick.orientation, self._store.patch_shape[1]
        if isinstance(filling, _FromCache):
            assert self._cache is not None
            image, y, x = pick.crop
            stride = self._store.image_shape(image, SPLIT)[1]
            start = self._cache.start(stored, image) + y * stride + x
        else:
            start = (stored * self._batch_size + row) * self._patch_pixels
        return Cut(start, stride, side * self._batch_size + row, turn.transpose, turn.flip_y, turn.flip_x)


@dataclass(frozen=True)
class _Slot:
    """A batch on the device, before it is turned and converted: ``(2, b, y, x)``."""

    pixels: torch.Tensor
    emptied: Mark


@dataclass(frozen=True)
class _FromSlot(Filling):
    copied: Mark


@dataclass(frozen=True)
class _FromCache(Filling):
    loads: dict[int, Load]
