"""Which clean file belongs to which noisy one, and which odd half to which even one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryoplug.errors import PairingError
from cryoplug.workflows.discovery import DiscoveredMicrograph

ROLE_WORDS = frozenset(
    {"noisy", "clean", "raw", "truth", "gt", "denoised", "input", "target"}
    | {"even", "odd", "evn", "half", "halves", "half1", "half2"}
)
"""Parts of a file name that say which side it is, and so do not say which micrograph."""
_SHOWN = 10


@dataclass(frozen=True)
class PairedInput:
    """What one micrograph's patches are made of."""

    index: int
    """Position in the list; seeds the noise."""
    noisy: DiscoveredMicrograph
    """The noisy or even file; for the noise regime the only one."""
    clean: DiscoveredMicrograph | None = None
    """The clean or odd file; None when noise is added to the noisy one."""
    remark: str = ""
    """What the user should know about how the two were brought together."""

    @property
    def files(self) -> tuple[DiscoveredMicrograph, ...]:
        """One file or two."""
        return (self.noisy,) if self.clean is None else (self.noisy, self.clean)


def pair_files(
    noisy: Sequence[DiscoveredMicrograph], clean: Sequence[DiscoveredMicrograph], *, sides: tuple[str, str]
) -> tuple[PairedInput, ...]:
    """Pair two lists by name; by order only when no name of one list is like any of the other.

    Names are compared as they are below their folders, then without folder and ending, then without words such as
    noisy, clean, even and odd.

    Parameters
    ----------
    noisy, clean
        The two lists; the result has the order of the first.
    sides
        What to call them in messages.

    Raises
    ------
    PairingError
        Some have no partner, the counts differ, or a file is its own partner. Nothing is paired then: a wrong guess
        would train without a word.
    """
    best: tuple[int, list[str], list[str]] = 0, [], []
    for key in _KEYS:
        left, right = [key(item) for item in noisy], [key(item) for item in clean]
        if len(set(left)) < len(left) or len(set(right)) < len(right):
            continue
        common = set(left) & set(right)
        if len(common) == len(left) == len(right):
            partner = dict(zip(right, clean, strict=True))
            return tuple(_pair(i, item, partner[name]) for i, (item, name) in enumerate(zip(noisy, left, strict=True)))
        if len(common) > best[0]:
            alone = [[str(item.path) for item, name in zip(items, names, strict=True) if name not in common]
                     for items, names in ((noisy, left), (clean, right))]  # fmt: skip
            best = len(common), alone[0], alone[1]
    if best[0]:
        lists = "; ".join(_listed(side, alone) for side, alone in zip(sides, best[1:], strict=True) if alone)
        raise PairingError(f"no partner of the same name for {lists}; leave them out or add the missing side")
    if len(noisy) != len(clean):
        raise PairingError(
            f"{len(noisy)} {sides[0]} but {len(clean)} {sides[1]} micrographs, and no names that agree; "
            "give equal names or equally many files"
        )
    return tuple(
        _pair(i, one, two, remark=f"paired by its place in the list with {two.path}, because no names agree")
        for i, (one, two) in enumerate(zip(noisy, clean, strict=True))
    )


def _pair(index: int, one: DiscoveredMicrograph, two: DiscoveredMicrograph, *, remark: str = "") -> PairedInput:
    if Path(one.path).resolve() == Path(two.path).resolve():
        raise PairingError(f"{one.path}: is on both sides of its pair; a network would learn to do nothing")
    return PairedInput(index, one, two, remark)


def _listed(side: str, paths: list[str]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return f"{len(paths)} {side}: {', '.join(paths[:_SHOWN])}{more}"


def _without_role(item: DiscoveredMicrograph) -> str:
    words = re.split(r"[_\-. ]+", item.relative.stem.lower())
    return " ".join(word for word in words if word not in ROLE_WORDS)


_KEYS: tuple[Callable[[DiscoveredMicrograph], str], ...] = (
    lambda item: str(item.relative),
    lambda item: item.relative.stem,
    _without_role,
    lambda item: f"{item.relative.parent.name}/{_without_role(item)}",
)
