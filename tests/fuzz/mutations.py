"""Damaging valid files: bit flips, cuts, overwritten fields, splices, and words of the format in wrong places."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

MAX_BYTES = 1 << 20
_EDGES = (0, 1, 2, -1, 127, 255, 1 << 15, (1 << 16) - 1, 1 << 20, 1 << 24, (1 << 31) - 1, -(1 << 31), (1 << 32) - 1)
_LONG_EDGES = (*_EDGES, 1 << 40, (1 << 63) - 1, -(1 << 63), (1 << 64) - 1)
Draw = Callable[[st.SearchStrategy[Any]], Any]


@st.composite
def mutated(draw: Draw, seeds: tuple[bytes, ...], words: tuple[bytes, ...] = ()) -> bytes:
    """Give one of the seeds after one to five mutations.

    Parameters
    ----------
    draw
        Given by hypothesis.
    seeds
        Valid files.
    words
        Words of the format, put in place of others in text.
    """
    data = bytearray(draw(st.sampled_from(seeds)))
    kinds = [_flip, _cut, _overwrite, _splice, _insert, _remove, *([_word] if words else [])]
    for _ in range(draw(st.integers(1, 5))):
        draw(st.sampled_from(kinds))(draw, data, words)
    return bytes(data[:MAX_BYTES])


def _place(draw: Draw, data: bytearray) -> int:
    # Headers are where it hurts: half of all places lie in the first kilobyte.
    end = max(0, len(data) - 1)
    return draw(st.one_of(st.integers(0, min(end, 1100)), st.integers(0, end)))


def _flip(draw: Draw, data: bytearray, words: tuple[bytes, ...]) -> None:
    if data:
        data[_place(draw, data)] ^= 1 << draw(st.integers(0, 7))


def _cut(draw: Draw, data: bytearray, words: tuple[bytes, ...]) -> None:
    del data[_place(draw, data) :]


def _overwrite(draw: Draw, data: bytearray, words: tuple[bytes, ...]) -> None:
    size = draw(st.sampled_from((1, 2, 4, 8)))
    at = _place(draw, data) // size * size
    number = draw(st.one_of(st.sampled_from(_LONG_EDGES), st.integers(-(1 << 63), (1 << 64) - 1)))
    order = draw(st.sampled_from("<>"))
    data[at : at + size] = struct.pack(f"{order}Q", number % (1 << 64))[-size if order == ">" else 0 :][:size]


def _splice(draw: Draw, data: bytearray, words: tuple[bytes, ...]) -> None:
    start, length = _place(draw, data), draw(st.integers(1, 300))
    at, times = _place(draw, data), draw(st.integers(1, 20))
    data[at:at] = bytes(data[start : start + length]) * times


def _insert(draw: Draw, data: bytearray, words: tuple[bytes, ...]) -> None:
    at = _place(draw, data)
    data[at:at] = draw(st.binary(max_size=40))


def _remove(draw: Draw, data: bytearray, words: tuple[bytes, ...]) -> None:
    at = _place(draw, data)
    del data[at : at + draw(st.integers(1, 64))]


def _word(draw: Draw, data: bytearray, words: tuple[bytes, ...]) -> None:
    """Put a word of the format in place of what stands between two separators."""
    breaks = [at for at, value in enumerate(data[:20_000]) if value in b" \t\n,:[]{}()"]
    word = draw(st.sampled_from(words)) * draw(st.sampled_from((1, 1, 1, 2, 1000)))
    if len(breaks) < 2:
        data[:0] = word
        return
    first = draw(st.integers(0, len(breaks) - 2))
    data[breaks[first] + 1 : breaks[first + 1]] = word
