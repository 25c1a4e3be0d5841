"""The pixel size of a micrograph: who says it, whom cryoplug believes, and what it says when they differ.

What the user states beats the list (STAR file, cryoSPARC dataset), and the list beats the header: RELION reads its STAR
files so, and a header is what a program wrote that knew less. A header that is unset, or exactly 1 A/px, says nothing:
programs write 1 when they do not know.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryoplug.errors import InputError

MAX_ANGSTROM = 1e6
"""Longer lengths are no pixel sizes."""
SAME_PART = 0.01
"""Pixel sizes that differ by no more than this part are the same."""
_EXACTLY = 1e-6
"""A header holds the length of the cell in float32: 1 A/px may come out as 0.9999999."""


def pixel_size_problems(value: float, name: str = "--pixel-size ") -> Iterator[str]:
    """Say what is wrong with a pixel size that a user states, given as `name`."""
    if not (math.isfinite(value) and 0 < value < MAX_ANGSTROM):
        yield f"{name}{value} (allowed: a pixel size in angstrom above 0)"


@dataclass(frozen=True)
class PixelSize:
    """What is known of the sampling of one micrograph."""

    angstrom: float | None
    """The pixel size to use; None: nobody says."""
    source: str = ""
    """Who says so: ``stated`` (the user), ``list`` or ``header``; empty: nobody."""
    differing: tuple[tuple[str, float], ...] = ()
    """Who says something else, and what, in angstrom."""


def said(header: float | None) -> float | None:
    """Give what a header says: None where it is unset, or exactly 1 A/px."""
    return None if header is None or abs(header - 1.0) < _EXACTLY else header


def known_pixel_size(given: float | None, listed: float | None, header: float | None) -> PixelSize:
    """Decide on the pixel size of a micrograph; every command and every road through them asks here.

    Parameters
    ----------
    given
        What the user states, in angstrom; it counts whatever it is, also 1.
    listed
        What a list says of this micrograph: optics group or row of a STAR file, ``psize_A`` of a dataset.
    header
        What the file says of itself; exactly 1 says nothing.
    """
    return pixel_size_of_exposure(given, (listed,), (header,))[0]


def pixel_size_of_exposure(
    given: float | None, listed: Sequence[float | None], headers: Sequence[float | None]
) -> tuple[PixelSize, tuple[float | None, ...]]:
    """Decide on the pixel size of several files of one exposure: halves, a micrograph and its clean partner.

    What the list says of one of them holds for all, and so does a header where the others say nothing.

    Parameters
    ----------
    given
        As for `known_pixel_size`.
    listed, headers
        Of each file, the more important ones first.

    Returns
    -------
    tuple
        The pixel size of the exposure, and what counts for each of `headers`: None where nobody says. They differ where
        two files contradict each other and nobody who counts more decides.
    """
    in_list = next(filter(None, listed), None)
    in_headers = [said(header) for header in headers]
    in_header = next(filter(None, in_headers), None)
    by_all = (("stated", given), ("list", in_list), ("header", in_header))
    source, angstrom = next(((name, size) for name, size in by_all if size), ("", None))
    if angstrom is None:
        return PixelSize(None), tuple(in_headers)
    others = [("list", in_list), *(("header", size) for size in in_headers)]
    differing = {name: size for name, size in others if size and name != source and not same_size(size, angstrom)}
    lists = [*listed, *[None] * (len(headers) - len(listed))]
    counts = tuple(given or mine or in_list or own for mine, own in zip(lists, in_headers, strict=True))
    return PixelSize(angstrom, source, tuple(differing.items())), counts


def same_size(one: float, two: float) -> bool:
    """Tell whether two pixel sizes are the same to 1 %."""
    return abs(one - two) <= SAME_PART * min(one, two)


def unknown_pixel_size(path: Path, why: str, otherwise: str) -> InputError:
    """Make the error for a micrograph whose pixel size is needed, and nobody states it.

    Parameters
    ----------
    path
        The micrograph.
    why
        What needs it, as half a sentence.
    otherwise
        What else can be done, as in ``leave --angpix out``.
    """
    return InputError(
        f"{path}: its pixel size is not known, and {why}; state it with --pixel-size A, or give a list that has it "
        f"(rlnMicrographPixelSize, psize_A), or {otherwise}. A header that is unset or says exactly 1 A/px counts as unknown"
    )


class PixelSizeRemarks:
    """Counts over a run where sources differ; one sentence for each kind of difference, at its end."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], list[tuple[float, float]]] = {}

    def add(self, size: PixelSize | None) -> None:
        """Take in what is known of one more micrograph."""
        if size is None or size.angstrom is None:
            return
        for name, other in size.differing:
            self._kinds.setdefault((size.source, name), []).append((size.angstrom, other))

    def sentences(self) -> list[str]:
        """Say what differed, a sentence a kind, with the number of micrographs."""
        return [_sentence(used, other, sizes) for (used, other), sizes in self._kinds.items()]


def _sentence(used: str, other: str, sizes: Sequence[tuple[float, float]]) -> str:
    count = f"{len(sizes)} micrograph{'' if len(sizes) == 1 else 's'}"
    ours, theirs = (_span(values) for values in zip(*sizes, strict=True))
    if used == "stated":
        return f"pixel size: --pixel-size {ours} was used, but the {other} says {theirs} A/px for {count}"
    return (
        f"pixel size: the list says {ours} A/px, the header of {count} {theirs}; the list's was used, as RELION does "
        "(--pixel-size A states another one)"
    )


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.4g}" if same_size(low, high) else f"{low:.4g} to {high:.4g}"
