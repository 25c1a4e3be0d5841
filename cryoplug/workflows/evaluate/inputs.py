"""Find the files of each micrograph for an evaluation: noisy image, truth, halves and denoised images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryoplug.errors import InputError, PairingError, UsageError
from cryoplug.inputs.companions import left_out_note
from cryoplug.inputs.discovered import DiscoveredMicrograph, known_endings
from cryoplug.inputs.discovery import discover, find, words_for_whole
from cryoplug.inputs.pairing import HalvesFound, halves_of, no_halves, pair_files
from cryoplug.inputs.stack_sections import StackLooks, common_sections, one_section
from cryoplug.workflows.evaluate.request import EvaluateRequest

Found = list[DiscoveredMicrograph]


@dataclass(frozen=True)
class Subject:
    """The files of one micrograph; None for a file that does not exist."""

    name: Path
    """Name in records: the noisy file, or the even half; ``000012@stack.mrcs`` for a section."""
    noisy: DiscoveredMicrograph | None = None
    """The whole exposure."""
    clean: DiscoveredMicrograph | None = None
    """The truth: the same image without noise."""
    even: DiscoveredMicrograph | None = None
    """One half."""
    odd: DiscoveredMicrograph | None = None
    """The other half; there when `even` is."""
    denoised: DiscoveredMicrograph | None = None
    """The result of another program for `noisy`."""
    denoised_even: DiscoveredMicrograph | None = None
    """The result of another program for `even`."""
    denoised_odd: DiscoveredMicrograph | None = None
    """The result of another program for `odd`."""
    remarks: tuple[str, ...] = ()
    """Remarks on how the files were paired."""
    problem: InputError | None = None
    """Why it cannot be measured. The error is raised when this micrograph is measured, so the others go on."""


FILES = ("noisy", "clean", "even", "odd", "denoised", "denoised_even", "denoised_odd")
"""Fields of a subject that hold files."""


def list_subjects(request: EvaluateRequest, note: Callable[[str], None] = lambda text: None) -> tuple[Subject, ...]:
    """Find and pair all files.

    Parameters
    ----------
    request
        The request.
    note
        Called with a sentence about files that were left out.

    Raises
    ------
    PairingError
        Files do not fit together, or there is neither a truth nor halves to compare with.
    InputError
        Nothing was found.
    """
    noisy: Found = []
    aside: tuple[Path, ...] = ()
    if request.inputs:
        found = find(request.inputs)
        noisy = list(found.micrographs)
        aside = found.companions
    clean = discover(request.clean) if request.clean else []
    halves = _halves(request, noisy, needed=not clean)
    even, odd = halves.even, halves.odd
    used = {item.path.absolute() for item in (*even, *odd)}
    if left_out := [path for path in aside if path.absolute() not in used]:
        note(left_out_note(left_out))
    subject_of = noisy if noisy and (clean or request.even) else even
    columns: dict[str, list[DiscoveredMicrograph | None]] = {}
    remarks: list[list[str]] = [[] for _ in subject_of]

    def join(name: str, items: Sequence[DiscoveredMicrograph], side: str, to: Found | None = None) -> None:
        if not items:
            return
        pairs = pair_files(to or subject_of, items, sides=("input" if to is None else "raw", side))
        columns[name] = [pair.clean for pair in pairs]
        for texts, pair in zip(remarks, pairs, strict=True):
            if pair.remark:
                texts.append(f"{side}: {pair.remark}")

    if subject_of is noisy:
        columns["noisy"] = list(noisy)
        if request.even:
            join("even", even, "even")
            join("odd", odd, "odd")
        elif len(even) == len(noisy):
            columns["even"], columns["odd"] = list(even), list(odd)
    else:
        columns["even"] = list(even)
        join("odd", odd, "odd")
    join("clean", clean, "clean")
    denoised, denoised_odd = _denoised(request)
    _refuse_raw([*noisy, *even, *odd], [*denoised, *denoised_odd])
    if request.denoised_is_of_inputs:
        join("denoised", denoised, "denoised")
    else:
        join("denoised_even", denoised, "denoised", to=_all(columns["even"]))
        join("denoised_odd", denoised_odd, "denoised odd", to=_all(columns["odd"]))
    looks, endings = StackLooks(), known_endings()
    found_subjects: list[Subject] = []
    for i, item in enumerate(subject_of):
        files: dict[str, Any] = {name: items[i] for name, items in columns.items()}
        found_subjects += _by_section(Subject(item.shown, remarks=tuple(remarks[i]), **files), looks, endings)
    found_subjects += [Subject(item.shown, problem=no_halves(item)) for item in halves.alone]
    return tuple(found_subjects)


def words_to_denoise(request: EvaluateRequest, subjects: Sequence[Subject]) -> tuple[str, ...]:
    """Give the inputs as the user named them if `denoise` accepts them for the same micrographs; else nothing."""
    if not request.inputs:
        return ()
    halves = {item.path.absolute() for subject in subjects for item in (subject.even, subject.odd) if item is not None}
    return words_for_whole(request.inputs, find(request.inputs).micrographs, halves)


def _by_section(subject: Subject, looks: StackLooks, endings: frozenset[str]) -> Iterator[Subject]:
    """Give one subject per section if the files of a subject are stacks."""
    files = {name: item for name in FILES if (item := getattr(subject, name)) is not None}
    count, problem = common_sections(list(files.values()), looks)
    if not count:
        yield replace(subject, problem=problem)
    for section in range(1, count + 1):
        sides: dict[str, Any] = {name: one_section(item, section, endings) for name, item in files.items()}
        yield replace(subject, name=Path(f"{section:06d}@{subject.name}"), **sides)


def _halves(request: EvaluateRequest, noisy: Found, *, needed: bool) -> HalvesFound:
    if request.even:
        return HalvesFound(discover(request.even, side="even"), discover(request.odd, side="odd"))
    if needed:
        try:
            return halves_of(noisy)
        except PairingError as error:
            raise PairingError(f"nothing to judge by: there is no --clean, and {error}") from error
    if all(item.has_halves for item in noisy) and not request.denoised:
        halves = halves_of(noisy)
        return halves if len(halves.even) == len(noisy) else HalvesFound([], [])
    return HalvesFound([], [])


def _denoised(request: EvaluateRequest) -> tuple[Found, Found]:
    denoised = discover(request.denoised) if request.denoised else []
    odd = discover(request.denoised_odd) if request.denoised_odd else []
    if denoised and not odd and not request.denoised_is_of_inputs and all(item.has_halves for item in denoised):
        halves = halves_of(denoised)
        return halves.even, halves.odd
    return denoised, odd


def _refuse_raw(raw: Found, denoised: Found) -> None:
    # os.path and not Path: that raises RuntimeError for a link to itself.
    known = {(os.path.realpath(item.path), item.section) for item in raw}
    for item in denoised:
        if (os.path.realpath(item.path), item.section) in known:
            raise PairingError(f"{item.path}: is given both as raw and as denoised; give the denoised file")


def _all(items: Sequence[DiscoveredMicrograph | None]) -> Found:
    found = [item for item in items if item is not None]
    if len(found) < len(items):
        raise UsageError("some inputs have no halves that the denoised files could belong to; name --even and --odd")
    return found
