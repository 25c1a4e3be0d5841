"""MRC files inside gzip or bzip2: damage of the stream, and of what is in it."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

from fuzz.targets import Target, mrc


def _seeds() -> tuple[bytes, ...]:
    plain = (mrc.image(1), mrc.image(2, extended=b"x" * 128), mrc.image(6, sections=3))
    packed = [gzip.compress(item, mtime=0) for item in plain] + [bz2.compress(plain[0])]
    return (*plain, *packed, packed[0] + packed[1])


def _run(folder: Path, payload: bytes) -> None:
    # What does not look packed is packed here, so that a damaged header lies in a sound stream too.
    packed = payload if payload[:2] in (b"\x1f\x8b", b"BZ") else gzip.compress(payload, 1, mtime=0)
    mrc.run(folder, packed, "input.mrc.gz")


TARGET = Target(seeds=_seeds, run=_run)
