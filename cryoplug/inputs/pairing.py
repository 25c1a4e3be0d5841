"""Which clean file belongs to which noisy one, and which odd half to which even one."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cryoplug.errors import InputError, PairingError, StorageError
from cryoplug.inputs.companions import name_of
from cryoplug.inputs.discovered import DiscoveredMicrograph, known_endings
from cryoplug.inputs.half_names import expected_names, half_of, without_side

ROLE_WORDS = frozenset(
    {"noisy", "clean", "raw", "truth", "gt", "denoised", "input", "target"}
    | {"even", "odd", "evn", "half", "halves", "half1", "half2"}
)
"""Words in a file name that say which side of a pair it is, and not which micrograph."""
_SHOWN = 10
_PAIRS_OF_FOLDERS = (("a", "b"), ("half1", "half2"), ("half_1", "half_2"), ("parta", "partb"), ("evens", "odds"))
"""Names of folders that hold halves under equal names; they count only if halves are asked for, as grids may be named so, too."""
WITH_MOVIES = "Add what is missing, give movies, or name the halves with --even and --odd"
"""Advice for missing halves, in commands that take movies."""
WITHOUT_MOVIES = "Add what is missing, or name the halves with --even and --odd"
"""Advice for missing halves, in commands that do not take movies."""


@dataclass(frozen=True)
class PairedInput:
    """The files from which the patches of one micrograph are made."""

    index: int
    """Position in the list; seeds the noise."""
    noisy: DiscoveredMicrograph
    """The noisy or even file; with ``--pairs noise`` the only one."""
    clean: DiscoveredMicrograph | None = None
    """The clean or odd file; None if noise is added to the noisy one."""
    remark: str = ""
    """A remark for the user on how the two files were paired."""
    problem: InputError | StorageError | None = None
    """Why it cannot be used; raised when its turn comes, so that only this exposure fails."""

    @property
    def files(self) -> tuple[DiscoveredMicrograph, ...]:
        """The one or two files."""
        return (self.noisy,) if self.clean is None else (self.noisy, self.clean)


@dataclass(frozen=True)
class HalvesFound:
    """Both halves of the exposures that have them, and the exposures that have not."""

    even: list[DiscoveredMicrograph]
    """One half of each, in the order of the input."""
    odd: list[DiscoveredMicrograph]
    """The other half, in the same order."""
    alone: tuple[DiscoveredMicrograph, ...] = ()
    """Exposures of which a half is missing; `no_halves` says which. They fail by name, and the others go on."""


def pair_files(
    noisy: Sequence[DiscoveredMicrograph], clean: Sequence[DiscoveredMicrograph], *, sides: tuple[str, str]
) -> tuple[PairedInput, ...]:
    """Pair two lists by name.

    Names are compared three times: as they are below their folders, without folder and ending, and without words such as
    noisy, clean, even and odd.

    Parameters
    ----------
    noisy, clean
        The two lists; the result is in the order of the first.
    sides
        What to call them in messages.

    Raises
    ------
    PairingError
        Some files have no partner, no names agree, or a file is its own partner. Then nothing is paired, because training
        would not notice a wrong guess. If each side has one file, names do not matter.
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
        hint = _pattern_hint(noisy, clean)
        raise PairingError(
            f"no partner of the same name for {lists}; {hint or 'leave them out or add the missing side'}"
        )
    if len(noisy) == len(clean) == 1:
        remark = f"paired with {clean[0].path}, the only other file, although the names do not agree"
        return (_pair(0, noisy[0], clean[0], remark=remark),)
    raise PairingError(
        f"{len(noisy)} {sides[0]} and {len(clean)} {sides[1]} micrographs, and no names that agree: "
        f"{', '.join(str(items[0].path) for items in (noisy, clean) if items)}; give both sides of a pair the same name, as in "
        "X_even.mrc and X_odd.mrc"
    )


def _pattern_hint(first: Sequence[DiscoveredMicrograph], second: Sequence[DiscoveredMicrograph]) -> str:
    """Give the advice where the shell replaced ``--clean DIR/*.mrc`` by many files: the option takes one, INPUT gets the rest."""
    homes = {item.path.absolute().parent for item in first}
    if len(second) != 1 or len(homes) < 2 or (home := second[0].path.parent).absolute() not in homes:
        return ""
    return f"if {home}/* was a pattern, the option took its first file and INPUT the others: name the folder {home} instead"


def halves_of(micrographs: Sequence[DiscoveredMicrograph], *, advice: str = WITHOUT_MOVIES) -> HalvesFound:
    """Find the even and the odd half of every exposure.

    Parameters
    ----------
    micrographs
        Micrographs whose halves lie beside them or are named in a STAR file; or the halves themselves. Halves in two folders
        belong together if no other exposure has the same name. Other files of an exposure that has halves (``X_PS``,
        ``X_noDW``, ``X_DW``) are passed over.
    advice
        What the user can do if halves are missing; it names options of the command.

    Returns
    -------
    HalvesFound
        Each pair once. Both halves of a pair have the name of the exposure, so that `pair_files` pairs them.

    Raises
    ------
    PairingError
        No exposure has both halves, or a half belongs to two exposures; the message names the missing files.
    """
    endings = known_endings()
    items = _with_partners(micrographs, endings)
    pairs: dict[tuple[Path, Path], DiscoveredMicrograph] = {}
    exposures: set[tuple[str, str]] = set()
    for item in items:
        if item.even is not None and item.odd is not None:
            pairs.setdefault((item.even, item.odd), item)
            exposures.add(name_of(item.path, endings).exposure)
    alone = [item for item in items if not item.has_halves and name_of(item.path, endings).exposure not in exposures]
    if alone and not pairs:
        missing = [_missing(item, endings) for item in alone[:_SHOWN]]
        more = f"; and {len(alone) - _SHOWN} more" if len(alone) > _SHOWN else ""
        raise PairingError(f"{len(alone)} of {len(items)} have no halves: {'; '.join(missing)}{more}. {advice}")
    _refuse_shared_halves(list(pairs))
    even, odd = [], []
    for (even_path, odd_path), item in pairs.items():
        is_half = item.path in (even_path, odd_path)
        relative = without_side(item.relative, endings) if is_half else item.relative
        exposure = replace(item, relative=relative, even=None, odd=None)
        even.append(replace(exposure, path=even_path))
        odd.append(replace(exposure, path=odd_path))
    return HalvesFound(even, odd, tuple(alone))


def no_halves(item: DiscoveredMicrograph, *, advice: str = WITHOUT_MOVIES) -> PairingError:
    """Make the error for one exposure whose halves are missing where others have theirs; see `halves_of`."""
    return PairingError(f"{_missing(item, known_endings())}. {advice}")


def _with_partners(micrographs: Sequence[DiscoveredMicrograph], endings: frozenset[str]) -> list[DiscoveredMicrograph]:
    """Pair halves that lie in two folders."""
    alone: dict[str, dict[str, list[Path]]] = defaultdict(lambda: {"even": [], "odd": []})
    for item in micrographs:
        named = half_of(item.path.name, endings)
        if named is not None and (item.even is None) != (item.odd is None):
            alone[named[0]][named[1]].append(item.path)
    found = []
    for item in micrographs:
        named = half_of(item.path.name, endings)
        sides = alone[named[0]] if named is not None and (item.even is None) != (item.odd is None) else None
        if sides is not None and len(sides["even"]) == len(sides["odd"]) == 1:
            found.append(replace(item, even=sides["even"][0], odd=sides["odd"][0]))
        else:
            found.append(item)
    return _from_pairs_of_folders(found)


def _from_pairs_of_folders(micrographs: Sequence[DiscoveredMicrograph]) -> list[DiscoveredMicrograph]:
    """Pair ``A/X.mrc`` with ``B/X.mrc``, and other folders of this kind."""
    places = {
        (str(item.path.parent.parent), item.path.parent.name.lower(), item.path.name): item for item in micrographs
    }
    found = []
    for item in micrographs:
        above, folder, name = str(item.path.parent.parent), item.path.parent.name.lower(), item.path.name
        pair = next((names for names in _PAIRS_OF_FOLDERS if folder in names), None)
        sides = [places.get((above, side, name)) for side in pair or ()]
        if item.even is None and item.odd is None and len(sides) == 2 and sides[0] and sides[1]:
            item = replace(item, even=sides[0].path, odd=sides[1].path)
        found.append(item)
    return found


def _missing(item: DiscoveredMicrograph, endings: frozenset[str]) -> str:
    if item.section is not None:
        return f"{item.path}: is a stack, of which section {item.section} was named"
    if not (item.even or item.odd or os.path.lexists(item.path)):
        return f"{item.path}: there is no such file, nor halves of that name"
    even, odd = expected_names(item.path.name, endings)
    wanted = [name for name, half in ((even, item.even), (odd, item.odd)) if half is None]
    return f"{item.path}: no {' and no '.join(wanted)} beside it"


def _refuse_shared_halves(pairs: Sequence[tuple[Path, Path]]) -> None:
    partner: dict[Path, Path] = {}
    for even, odd in pairs:
        for one, two in ((even, odd), (odd, even)):
            if partner.setdefault(one, two) != two:
                raise PairingError(
                    f"{one}: belongs to {partner[one]} and to {two}; leave one of them out, or use --even and --odd"
                )


def _pair(index: int, one: DiscoveredMicrograph, two: DiscoveredMicrograph, *, remark: str = "") -> PairedInput:
    # os.path and not Path: that raises RuntimeError for a link to itself.
    if os.path.realpath(one.path) == os.path.realpath(two.path) and one.section == two.section:
        raise PairingError(f"{one.path}: both sides of this pair are the same file; give the other half or a clean one")
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
