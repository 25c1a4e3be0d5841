"""The inputs of a conversion: micrographs, pairs of files, halves or movies; and the files that are left out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryoplug.disk.file_state import file_state
from cryoplug.inputs.companions import left_out_note, name_of
from cryoplug.inputs.discovered import below_job, known_endings
from cryoplug.inputs.discovery import find, words_for_whole
from cryoplug.inputs.movies.exposures import halves_or_movies
from cryoplug.inputs.movies.halves import MovieInput
from cryoplug.inputs.pairing import PairedInput, pair_files
from cryoplug.inputs.stack_sections import StackLooks, with_sections
from cryoplug.workflows.convert.request import ConvertRequest


@dataclass(frozen=True)
class ConvertInputs:
    """The inputs of one conversion, paired."""

    pairs: tuple[PairedInput, ...]
    """The pairs to pack, in order."""
    exposures: tuple[int, ...]
    """For each pair, the number of its exposure or stack; pairs with the same number stay on one side of a split."""
    companions: tuple[Path, ...] = ()
    """Files that were left out because they only accompany others."""
    notes: tuple[str, ...] = ()
    """Remarks for the user."""
    to_denoise: tuple[str, ...] = ()
    """Names as the user gave them, if `denoise` finds the same micrographs with them (not for movies or halves)."""

    @property
    def exposures_repeat(self) -> bool:
        """Whether two pairs belong to the same exposure or stack."""
        return len(set(self.exposures)) < len(self.exposures)


def list_inputs(request: ConvertRequest) -> ConvertInputs:
    """Find the inputs and pair them.

    Raises
    ------
    PairingError
        Files do not fit together.
    InputError
        Nothing was found, or a stack is of the wrong kind.
    """
    sides = request.even, request.odd
    looks = StackLooks()
    notes: list[str] = []
    if request.pairs == "halves" and not request.inputs:
        found = [find(inputs, side=side) for inputs, side in zip(sides, ("even", "odd"), strict=True)]
        pairs = pair_files(*(item.micrographs for item in found), sides=("even", "odd"))
    else:
        found = [find(request.inputs, kind="either" if request.pairs == "halves" else "micrographs")]
        listed = found[0].micrographs
        if request.pairs == "halves":
            pairs = halves_or_movies(listed, gain=request.gain, defects=request.defects, looks=looks, note=notes.append)
        elif request.pairs == "clean":
            found.append(find(request.clean))
            pairs = pair_files(listed, found[1].micrographs, sides=("noisy", "clean"))
        else:
            pairs = tuple(PairedInput(i, item) for i, item in enumerate(listed))
    used = {item.path.absolute() for pair in pairs for item in pair.files}
    companions = tuple(path for item in found for path in item.companions if path.absolute() not in used)
    if companions:
        notes.insert(0, left_out_note(companions))
    if any(isinstance(pair, MovieInput) for pair in pairs):
        return ConvertInputs(pairs, _exposures(pairs), companions, tuple(notes))
    to_denoise = words_for_whole(request.inputs, found[0].micrographs, used if request.pairs == "halves" else ())
    pairs = with_sections(pairs, looks)
    exposures = _exposures(pairs)
    if len(pairs) > 1 and len(set(exposures)) == 1 and all(pair.noisy.section or pair.noisy.series for pair in pairs):
        exposures = tuple(range(len(pairs)))
        notes.append(
            f"{pairs[0].noisy.series or pairs[0].noisy.path}: one series or stack of {len(pairs)} sections alone: these are "
            "split into training and test, and neighbouring views of one area are alike; give several for an honest test"
        )
    return ConvertInputs(pairs, exposures, companions, tuple(notes), to_denoise)


def _exposures(pairs: tuple[PairedInput, ...]) -> tuple[int, ...]:
    """Give numbers to the exposures; sections of one stack count as one, because neighbouring tilts show the same area."""
    endings = known_endings()
    by_name: dict[tuple[str, str], int] = {}
    by_file: dict[tuple[int, int, int], int] = {}
    found = []
    for pair in pairs:
        file = pair.noisy.series or pair.noisy.path
        folder, stem = name_of(file, endings).exposure
        # What two jobs of RELION made of one movie has one path below the folder of the job.
        exposure = below_job(folder), stem
        number = by_name.get(exposure, len(by_name))
        if (state := file_state(file)) is not None:  # links give one file several names
            number = by_file.setdefault(state.same_file, number)
        by_name[exposure] = number
        found.append(number)
    return tuple(found)
