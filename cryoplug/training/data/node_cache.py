"""A training set in memory that all processes of a machine share: the process that first needs an image reads it."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cryoplug.errors import UsageError
from cryoplug.store.pairs import Crop, PairStore
from cryoplug.training.data.cache import RamCache, image_sizes
from cryoplug.training.data.loader import SPLIT
from cryoplug.training.distributed import Processes

SHARED_MEMORY = Path("/dev/shm")
"""Files in this folder are memory; it is freed when the last process that has them open ends, even by a kill."""


class NodeCache(RamCache):
    """The images of a store in memory that the processes of a machine share.

    Parameters
    ----------
    store
        The store.
    processes
        All processes of the run; those with the same `Launch.node` share.

    Raises
    ------
    UsageError
        There is too little memory, or it cannot be shared.
    """

    def __init__(self, store: PairStore, processes: Processes) -> None:
        sizes = image_sizes(store)
        self._starts = np.concatenate(([0], np.cumsum(sizes)))
        count = store.sides * len(sizes)
        self._pixels_begin = -(-count // mmap.PAGESIZE) * mmap.PAGESIZE
        size = self._pixels_begin + store.sides * int(self._starts[-1]) * store.dtype.itemsize
        path = None
        with processes.agreeing():
            if processes.launch.local_rank == 0:
                super().__init__(store)
                path = _new_file(size)
        paths = {node: made for node, made in processes.everyone((processes.launch.node, path)) if made is not None}
        try:
            with processes.agreeing():
                self._file = os.open(paths[processes.launch.node], os.O_RDWR | os.O_CLOEXEC)
        finally:
            if path is not None:
                path.unlink(missing_ok=True)
        self._store = store
        self._memory = mmap.mmap(self._file, size)
        self._is_there = np.frombuffer(self._memory, np.uint8, count)
        self._pixels = np.frombuffer(self._memory, store.dtype, offset=self._pixels_begin)
        self._threads = [threading.Lock() for _ in range(64)]

    def read_crop(self, side: int, crop: Crop, out: np.ndarray) -> None:
        """Fill an array ``(y, x)``, float32 or of the store's dtype, with a window of an image."""
        side %= self._store.sides
        start = side * int(self._starts[-1]) + int(self._starts[crop.image])
        rows, columns = self._store.image_shape(crop.image, SPLIT)
        image = self._pixels[start : start + rows * columns]
        number = side * (len(self._starts) - 1) + crop.image
        # The kernel's lock keeps out other processes, not other threads of this one.
        if not self._is_there[number]:
            with self._threads[number % len(self._threads)], self._locked(number):
                if not self._is_there[number]:
                    self._store.read_pixels(side, crop.image, 0, image, split=SPLIT)
                    self._is_there[number] = 1
        height, width = out.shape
        np.copyto(out, image.reshape(rows, columns)[crop.y : crop.y + height, crop.x : crop.x + width])

    @contextlib.contextmanager
    def _locked(self, number: int) -> Iterator[None]:
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, number)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)


def _new_file(size: int) -> Path:
    try:
        descriptor, name = tempfile.mkstemp(prefix="cryoplug-", dir=SHARED_MEMORY)
    except OSError as error:
        raise UsageError(f"--cache ram: {SHARED_MEMORY}: {error.strerror}; give --cache none") from error
    try:
        # All of it now: a page that is not there when it is written to ends the process without a word.
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        Path(name).unlink()
        raise UsageError(
            f"--cache ram: {SHARED_MEMORY}: {size / 2**30:.1f} GiB cannot be shared ({error.strerror}); give --cache none, or "
            "give the container more shared memory (--shm-size)"
        ) from error
    finally:
        os.close(descriptor)
    return Path(name)
