"""The pixel size of a micrograph: who states it, whom cryoplug believes, and the remark when two sources differ.

What the user states beats the list (STAR file, cryoSPARC dataset), and the list beats the header. RELION believes its STAR
files in the same way; the program that wrote the header often knew less. A header that is unset, or exactly 1 A/px, counts
as unknown: programs write 1 when they do not know.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryoplug.errors import InputError

MAX_ANGSTROM = 1e6
"""Largest length, in angstrom, that can be a pixel size."""
SAME_PART = 0.01
"""Relative difference up to which two pixel sizes count as equal."""
UNKNOWN_ADVICE = "the general model and --angpix need it; give a list that has it, or --pixel-size A"
"""Advice for a file that does not state its pixel size."""
_EXACTLY = 1e-6
"""Tolerance, in angstrom, of "exactly 1": a header holds the cell in float32, so 1 A/px may come out as 0.9999999."""


def pixel_size_problems(value: float, name: str = "--pixel-size ") -> Iterator[str]:
    """List what is wrong with a pixel size that the user stated by the option `name`."""
    if not (math.isfinite(value) and 0 < value < MAX_ANGSTROM):
        yield f"{name}{value} (allowed: a pixel size in angstrom above 0)"


@dataclass(frozen=True)
class PixelSize:
    """The pixel size of one micrograph, and where it comes from."""

    angstrom: float | None
    """The pixel size to use; None if no source states it."""
    source: str = ""
    """Where it comes from: ``stated`` (by the user), ``list`` or ``header``; empty if no source states it."""
    differing: tuple[tuple[str, float], ...] = ()
    """The sources that state another pixel size, each with its value in angstrom."""


def said(header: float | None) -> float | None:
    """Give the pixel size that a header states; None if it is unset, or exactly 1 A/px."""
    return None if header is None or abs(header - 1.0) < _EXACTLY else header


def known_pixel_size(given: float | None, listed: float | None, header: float | None) -> PixelSize:
    """Decide on the pixel size of a micrograph; every command uses this function.

    Parameters
    ----------
    given
        Pixel size stated by the user, in angstrom; it always counts, also if it is 1.
    listed
        Pixel size in a list: optics group or row of a STAR file, ``psize_A`` of a dataset.
    header
        Pixel size in the header of the file; exactly 1 counts as unknown.
    """
    return pixel_size_of_exposure(given, (listed,), (header,))[0]


def pixel_size_of_exposure(
    given: float | None, listed: Sequence[float | None], headers: Sequence[float | None]
) -> tuple[PixelSize, tuple[float | None, ...]]:
    """Decide on the pixel size of the files of one exposure, such as halves, or a micrograph and its clean partner.

    If the list states a pixel size for one of them, it holds for all. The same goes for a header if the others state none.

    Parameters
    ----------
    given
        As for `known_pixel_size`.
    listed, headers
        Pixel sizes of the files, the more important files first.

    Returns
    -------
    tuple
        The pixel size of the exposure, and one for each of `headers`; None if it is unknown. They differ if two headers
        contradict each other and neither the user nor the list decides.
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
    """Say whether two pixel sizes are equal to within 1 %."""
    return abs(one - two) <= SAME_PART * min(one, two)


def unknown_pixel_size(path: Path, why: str, otherwise: str) -> InputError:
    """Make the error for a micrograph whose pixel size is needed but unknown.

    Parameters
    ----------
    path
        The micrograph.
    why
        What needs it, as the second half of a sentence.
    otherwise
        What the user can do instead, such as ``leave --angpix out``.
    """
    return InputError(
        f"{path}: its pixel size is not known, and {why}; state it with --pixel-size A, or give a list that has it "
        f"(rlnMicrographPixelSize, psize_A), or {otherwise}. A header that is unset or says exactly 1 A/px counts as unknown"
    )


class PixelSizeRemarks:
    """Counts the micrographs of a run whose sources differ; at the end, one sentence for each kind of difference."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], list[tuple[float, float]]] = {}

    def add(self, size: PixelSize | None) -> None:
        """Count one more micrograph."""
        if size is None or size.angstrom is None:
            return
        for name, other in size.differing:
            self._kinds.setdefault((size.source, name), []).append((size.angstrom, other))

    def sentences(self) -> list[str]:
        """Say what differed: one sentence for each kind, with the number of micrographs."""
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
