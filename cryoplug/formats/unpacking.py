"""Unpack gzip, bzip2, xz and zstd as a forward stream, in bounded memory, whatever the file claims.

zstd needs Python 3.14, or zstandard, which ``pip install 'cryoplug[movies]'`` brings.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol

ENDINGS = {"gzip": ".gz", "bzip2": ".bz2", "xz": ".xz", "zstd": ".zst"}
"""Endings of the names of packed files, by kind."""
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_SKIPPED_ZSTD = b"\x2a\x4d\x18"
"""Bytes 2 to 4 of a frame to skip, after a first byte of 0x50 to 0x5f; files of pzstd begin with one."""
_MOST_MEMORY = {"xz": 80 << 20, "zstd": 1 << 27}
"""Most bytes of memory that a stream may ask for to look back; ``xz -9`` and ``zstd --long`` need so much."""
_STEP = {"xz": 1 << 14, "zstd": 1 << 10}
"""Packed bytes to unpack at a time. zstandard does not limit its output, and zeros can grow 32,000 times."""


class UnpackingError(Exception):
    """The stream is damaged, incomplete, or asks for more memory than any micrograph needs."""


class MissingLibraryError(Exception):
    """No installed library unpacks this kind."""


class Packed(Protocol):
    """The packed bytes of a file."""

    def read(self, size: int = -1, /) -> bytes:
        """Give up to `size` bytes."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a position."""


def kind_of(head: bytes) -> str | None:
    """Give the kind of a packed file from its first bytes; None for any other file."""
    if head[1:4] == _SKIPPED_ZSTD and head[0] >> 4 == 5:
        return "zstd"
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def open_packed(packed: Any, kind: str) -> BinaryIO:
    """Give the unpacked contents as a stream that can be read and searched.

    Parameters
    ----------
    packed
        A `Packed`, at its start.
    kind
        A key of `ENDINGS`.

    Raises
    ------
    MissingLibraryError
        The kind is zstd, and no library for it is installed.
    """
    stream: Any
    if kind in ("gzip", "bzip2"):
        stream = gzip.open(packed) if kind == "gzip" else bz2.open(packed)
        return stream
    engine, error = (_xz, lzma.LZMAError) if kind == "xz" else _zstd()
    stream = _Unpacked(packed, engine, error, _STEP[kind])
    return stream


DAMAGE = (EOFError, OSError, UnpackingError, zlib.error)
"""Errors that reading such a stream raises; an `OSError` with a number comes from the disk."""


class _Unpacked:
    """A stream that is unpacked forward; going back starts again."""

    def __init__(self, packed: Packed, engine: Callable[[], Any], error: type[Exception], step: int) -> None:
        self._packed = packed
        self._new = engine
        self._errors = (error, MemoryError, ValueError)
        self._step = step
        self._held = self._left = b""
        self._place = 0
        self._rewind()

    def read(self, size: int) -> bytes:
        parts, missing = [], size
        while missing and (self._held or self._more(missing)):
            parts.append(self._held[:missing])
            self._held = self._held[missing:]
            missing -= len(parts[-1])
        self._place += size - missing
        return b"".join(parts)

    def seek(self, place: int) -> int:
        if place < self._place:
            self._packed.seek(0)
            self._rewind()
        while self._place < place and self.read(min(place - self._place, 1 << 20)):
            pass
        return self._place

    def close(self) -> None:
        self._held = b""

    def _rewind(self) -> None:
        self._engine = self._new()
        self._held = self._left = b""
        self._place = 0
        self._between = False

    def _more(self, size: int) -> bool:
        """Unpack a step; False at the end of the last stream in the file."""
        data = b""
        if self._between or getattr(self._engine, "needs_input", True):
            data, self._left = self._left or self._packed.read(self._step), b""
            if self._between:
                if not data:
                    return False
                data = data.lstrip(b"\0")  # zeros may follow a stream
                if not data:
                    return True
                self._engine, self._between = self._new(), False
            elif not data:
                raise EOFError("it ends before the end of the stream")
        try:
            bounded = hasattr(self._engine, "needs_input")
            self._held = self._engine.decompress(data, size) if bounded else self._engine.decompress(data)
        except self._errors as error:
            raise UnpackingError(str(error)) from error
        if self._engine.eof:
            self._left, self._between = self._engine.unused_data, True
        return True


def _xz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_MOST_MEMORY["xz"])


def _zstd() -> tuple[Callable[[], Any], type[Exception]]:
    try:
        import zstandard

        return zstandard.ZstdDecompressor(max_window_size=_MOST_MEMORY["zstd"]).decompressobj, zstandard.ZstdError
    except ImportError:
        pass
    try:
        from compression import zstd  # type: ignore[import-not-found]
    except ImportError as error:
        raise MissingLibraryError("zstandard is not installed") from error
    limits = {zstd.DecompressionParameter.window_log_max: _MOST_MEMORY["zstd"].bit_length() - 1}
    return lambda: zstd.ZstdDecompressor(options=limits), zstd.ZstdError
