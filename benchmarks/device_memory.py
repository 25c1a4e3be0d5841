"""Give `cryoplug denoise` only some of a GPU's memory, and tell what became of it: bands, smaller tiles, refusals.

Imported by programs that benchmarks start.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import torch

from cryoplug.inference.network.device_image import DeviceImage
from cryoplug.inference.whole.pipeline import _Run
from cryoplug.inference.whole.preparing import Preparer
from cryoplug.kernels.recording import Recorded


def limit(memory_gib: float) -> None:
    """Make the GPU as small as a card of this size; 0: all of it."""
    if memory_gib:
        size, whole = int(memory_gib * 2**30), torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(size / whole)
        torch.cuda.mem_get_info = lambda *device: (
            size - torch.cuda.memory_reserved(*device),
            size,
        )  # as such a card says


@dataclass
class MemoryWatch:
    """What became of the memory so far."""

    in_bands: int = 0
    """Micrographs that went in bands, for whatever reason."""
    too_large: int = 0
    """Of these, those for which there was no room to prepare them as a whole."""
    tiles: set[tuple[int, int]] = field(default_factory=set)
    """Sizes of tiles, rows and columns, into which whole micrographs were cut."""
    refused: set[str] = field(default_factory=set)
    """Why computations could not be recorded."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _before: tuple[int, ...] = ()

    def clear(self) -> None:
        """Begin anew."""
        self.in_bands = self.too_large = 0
        self.tiles.clear()
        self.refused.clear()
        self._before = _allocator()

    def said(self) -> dict[str, object]:
        """Give all of it for a line of JSON."""
        retries, refusals = (now - then for now, then in zip(_allocator(), self._before or (0, 0), strict=True))
        return {
            "files in bands": self.in_bands,
            "of these, too large for their room": self.too_large,
            "tiles": sorted(self.tiles),
            "recording refused": sorted(self.refused),
            "allocator gave memory back and tried again": retries,
            "allocator gave up": refusals,
        }


def watch_memory() -> MemoryWatch:
    """Watch all denoising of this process from now on."""
    seen = MemoryWatch()
    in_bands, takes, largest_tile, record = (
        _Run._compute_in_bands,
        Preparer.takes,
        DeviceImage._largest_tile,
        Recorded._record,
    )

    def counted(self: Any, job: Any) -> Any:
        with seen._lock:
            seen.in_bands += 1
        return in_bands(self, job)

    def asked(self: Any, plan: Any) -> bool:
        answer = takes(self, plan)
        with seen._lock:
            seen.too_large += not answer
        return answer

    def noted(self: Any, shape: tuple[int, int]) -> Any:
        tile = largest_tile(self, shape)
        seen.tiles.add((min(tile[0], shape[0]), min(tile[1], shape[1])))
        return tile

    def tried(self: Any, *given: Any) -> Any:
        try:
            return record(self, *given)
        except RuntimeError as error:
            seen.refused.add(str(error).split("\n")[0][:200])
            raise

    watched: list[tuple[type, str, Any]] = [
        (_Run, "_compute_in_bands", counted),
        (Preparer, "takes", asked),
        (DeviceImage, "_largest_tile", noted),
        (Recorded, "_record", tried),
    ]
    for owner, method, replacement in watched:
        setattr(owner, method, replacement)
    return seen


def _allocator() -> tuple[int, int]:
    if not torch.cuda.is_available():
        return 0, 0
    found = torch.cuda.memory_stats()
    return found.get("num_alloc_retries", 0), found.get("num_ooms", 0)
