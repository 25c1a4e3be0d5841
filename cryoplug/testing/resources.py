"""Measurements of this process for the laws: open files, bytes read, memory taken."""

from __future__ import annotations

import contextlib
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path


def holds(path: Path) -> list[str]:
    """Say how this process holds a file: ``descriptor 7``, ``memory map``; empty if it does not (Linux)."""
    wanted = os.path.realpath(path)
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # that of the listing itself is gone already
            if str(link.readlink()) == wanted:
                found.append(f"descriptor {link.name}")
    if wanted in Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape"):
        found.append("memory map")
    return found


def bytes_read() -> int:
    """Return how many bytes this process has read from files so far (Linux)."""
    line = next(line for line in Path("/proc/self/io").read_text(encoding="ascii").splitlines() if "rchar" in line)
    return int(line.split()[1])


@contextlib.contextmanager
def limited_memory(limit_bytes: int, doing: str) -> Iterator[None]:
    """Fail if Python and NumPy hold more than `limit_bytes` at a time within the block."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= limit_bytes, f"{doing} took {peak} bytes of memory; allowed: {limit_bytes}"
