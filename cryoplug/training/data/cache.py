"""Training sets that stay in memory after the first reading: on the GPU, or in host memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from cryoplug.errors import DeviceError, UsageError
from cryoplug.store.pairs import Crop, PairStore
from cryoplug.training.data.loader import SPLIT

if TYPE_CHECKING:
    from concurrent.futures import Future

    from cryoplug.machine.copy_stream import Mark

LEFT_FREE_BYTES, LEFT_FREE_PART = 1 << 30, 0.1
"""Memory to leave free on the GPU (bytes, or part of all; the larger counts), for other batches and other programs."""

Note = Callable[[str], None]


def set_bytes(store: PairStore) -> int:
    """Return the bytes of all pairs in the training part of a store, in its own dtype."""
    return sum(store.sides * size * store.dtype.itemsize for size in image_sizes(store))


def image_sizes(store: PairStore) -> list[int]:
    """Return the number of pixels of each stored image of one side."""
    shapes = (store.image_shape(image, SPLIT) for image in range(store.images(SPLIT)))
    return [height * width for height, width in shapes]


@dataclass
class Load:
    """An image on its way to the GPU."""

    copied: Mark
    """Mark that is set after each of its copies."""
    futures: list[Future[None]] = field(default_factory=list)
    """Work of the reading threads on it."""


class GpuCache:
    """The images of a store on the GPU; each is copied there when it is first needed.

    Parameters
    ----------
    store
        The store.
    device
        The GPU.
    needed
        Whether too little memory is an error; otherwise the set is then read from the disk.
    note
        Called with one line about what is kept.
    free_bytes
        Measures the device's free memory, in bytes.
    """

    def __init__(
        self,
        store: PairStore,
        device: torch.device,
        *,
        needed: bool,
        note: Note,
        free_bytes: Callable[[torch.device], tuple[int, int]] = torch.cuda.mem_get_info,
    ) -> None:
        self._store = store
        self._device = device
        self._needed = needed
        self._note = note
        self._free_bytes = free_bytes
        self._tried = False
        self._pixels: torch.Tensor | None = None
        self._starts = np.zeros(0, np.int64)
        self.loads: dict[int, Load] = {}
        """Images that are loading, by number."""
        self.known: set[int] = set()
        """Numbers of the images that are on the GPU."""

    @property
    def is_open(self) -> bool:
        """Whether memory for the set was taken, so that images can be kept."""
        return self._pixels is not None

    def try_to_open(self) -> bool:
        """Take the memory if the set fits beside that of training; return whether this call took it."""
        if self._tried:
            return False
        self._tried = True
        need = set_bytes(self._store)
        free, total = self._free_bytes(self._device)
        room = max(0, free - max(LEFT_FREE_BYTES, int(LEFT_FREE_PART * total)))
        if need <= room and self._took_memory():
            self._note(f"the training set ({_gib(need)}) stays in GPU memory once it is read")
            return True
        found = f"the training set takes {_gib(need)}, {_gib(room)} of GPU memory can be spared"
        if self._needed:
            raise DeviceError(f"--cache gpu: {found}; give --cache auto, or convert --dtype float16")
        self._note(f"{found}: it is read from the disk in every epoch")
        return False

    def _took_memory(self) -> bool:
        sizes = image_sizes(self._store)
        dtype = torch.from_numpy(np.empty(0, self._store.dtype)).dtype
        try:
            self._pixels = torch.empty(self._store.sides * sum(sizes), dtype=dtype, device=self._device)
        except torch.OutOfMemoryError:  # another program was faster
            return False
        self._starts = np.concatenate(([0], np.cumsum(sizes)))
        return True

    @property
    def pixels(self) -> torch.Tensor:
        """Pixels of all images, one after another: the noisy side, then the clean side."""
        assert self._pixels is not None
        return self._pixels

    def start(self, side: int, image: int) -> int:
        """Return the index of an image's first pixel in `pixels`."""
        return int(side % self._store.sides * self._starts[-1] + self._starts[image])

    def flat(self, side: int, image: int) -> torch.Tensor:
        """Return the place for the pixels of an image, whether they have been read or not."""
        size = int(self._starts[image + 1] - self._starts[image])
        return self.pixels[self.start(side, image) :][:size]

    def forget_loads(self) -> None:
        """Forget images that are loading, because the pass that needed them has ended."""
        self.loads.clear()


class RamCache:
    """The images of a store in host memory; each is read whole when it is first needed.

    Parameters
    ----------
    store
        The store.
    available_bytes
        Measures the available memory, in bytes.

    Raises
    ------
    UsageError
        The set is larger than the available memory.
    """

    def __init__(self, store: PairStore, *, available_bytes: Callable[[], int] | None = None) -> None:
        self._store = store
        need, room = set_bytes(store), int((1 - LEFT_FREE_PART) * (available_bytes or _available_bytes)())
        if need > room:
            raise UsageError(
                f"--cache ram: the training set takes {_gib(need)}, {_gib(room)} of memory can be spared; "
                "give --cache none, or convert --dtype float16"
            )
        self._images: dict[tuple[int, int], np.ndarray] = {}
        self._locks = [threading.Lock() for _ in range(64)]

    def read_crop(self, side: int, crop: Crop, out: np.ndarray) -> None:
        """Fill an array ``(y, x)``, float32 or of the store's dtype, with a window of an image."""
        key = (side % self._store.sides, crop.image)
        with self._locks[(2 * crop.image + side) % len(self._locks)]:
            if key not in self._images:
                pixels = np.empty(self._store.image_shape(crop.image, SPLIT), self._store.dtype)
                self._store.read_pixels(side, crop.image, 0, pixels.reshape(-1), split=SPLIT)
                self._images[key] = pixels
        height, width = out.shape
        np.copyto(out, self._images[key][crop.y : crop.y + height, crop.x : crop.x + width])


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise UsageError("--cache ram: this system does not say how much memory is left; give --cache none")


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
