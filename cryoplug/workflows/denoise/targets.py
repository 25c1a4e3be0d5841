"""Where a run writes: check the names of its outputs, and give each micrograph its output file."""

from __future__ import annotations

from collections.abc import Sequence

from cryoplug.disk.output_folder import refuse_file
from cryoplug.errors import InputError, UsageError
from cryoplug.inputs.discovery import DiscoveredMicrograph
from cryoplug.outputs.journal import JOURNAL_NAME
from cryoplug.outputs.planning import OutputPlanner, PlannedOutput
from cryoplug.outputs.star_file import OutputStar
from cryoplug.workflows.denoise.request import DenoiseRequest


def check_names(request: DenoiseRequest) -> None:
    """Refuse an output folder that is a file, and a STAR file that has the journal's name."""
    refuse_file(request.output)
    if request.star is not None and request.star.absolute() == (request.output / JOURNAL_NAME).absolute():
        raise UsageError(f"--star {request.star}: this is the name of the journal; choose another name")


def planner_of(request: DenoiseRequest) -> OutputPlanner:
    """Make the planner that gives each micrograph its output file; no output replaces the journal, STAR file or page."""
    reserved = (request.output / JOURNAL_NAME, request.star, request.page)
    return OutputPlanner(request.output, reserved=[path for path in reserved if path is not None])


def plan_part(
    request: DenoiseRequest,
    micrographs: Sequence[DiscoveredMicrograph],
    planner: OutputPlanner,
    star: OutputStar | None,
) -> list[PlannedOutput]:
    """Give the output file of each micrograph in the part of the list that the request covers.

    Raises
    ------
    InputError
        There is no micrograph.
    UsageError
        A target would overwrite an input, or the STAR file cannot list them.
    """
    if not micrographs:
        raise InputError(f"{request.output}: everything that was found is a result of an earlier run; name raw files")
    planned = planner.add(micrographs)
    if star is not None:
        star.check(planned)
    if request.shard is None:
        return planned
    # By the name below the output folder, which is the same on every machine and in every longer list.
    return [item for item in planned if request.shard.has(str(item.target.relative_to(request.output)))]
