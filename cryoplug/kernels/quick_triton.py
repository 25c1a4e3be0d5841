"""Triton, which here starts quickly: it does not read all of its own library to find what it compiled before.

Triton names compiled kernels after a hash of its own files, because another Triton may compile differently. Its library has
460 MB, and every process reads them again, before its first kernel. Here the version stands for them, and the size and the date
of each file. So a Triton that was installed anew compiles once more, and no other can be mistaken for it.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

import triton
import triton.language as tl
from triton.runtime import cache

__all__ = ["library_key", "tl", "triton"]

_PARTS = ("_C", "backends", "compiler", "language", "runtime")
"""Folders of the files that decide how a kernel is compiled."""


def library_key(folder: Path, version: str) -> str:
    """Name a Triton by its version, and by the size and the date of its files.

    Parameters
    ----------
    folder
        Where it is installed.
    version
        Its version.
    """
    facts = "\n".join(f"{name} {size} {changed}" for name, size, changed in sorted(_files(folder)))
    return f"{version}-{hashlib.sha256(facts.encode()).hexdigest()}"


def _files(folder: Path) -> Iterator[tuple[str, int, int]]:
    for part in _PARTS:
        for path in folder.joinpath(part).rglob("*"):
            if path.suffix in (".py", ".so"):
                status = path.stat()
                yield str(path.relative_to(folder)), status.st_size, status.st_mtime_ns


if hasattr(cache, "triton_key"):  # where a later version has another name for it, Triton starts as slowly as it does
    cache.triton_key = functools.cache(lambda: library_key(Path(triton.__file__).parent, triton.__version__))
