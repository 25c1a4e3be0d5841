"""``cryoplug.denoise`` with files: make a request, run the workflow of the command, and give the outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cryoplug.core.shard import Shard
from cryoplug.errors import UsageError
from cryoplug.machine.launch import chosen_shard
from cryoplug.models.shipped import GENERAL
from cryoplug.verbs.applied import applied_fields
from cryoplug.verbs.arguments import AnyPath, AnyPaths, checkpoint_of, names_of, path_of
from cryoplug.verbs.outcome import Note, Notes, Outcome, Progress, check_usable, outputs_of, remarks_of, reporting
from cryoplug.workflows.denoise import DenoiseRequest

_FIELDS = {
    "voltage": "voltage_kv",
    "cs": "spherical_aberration_mm",
    "poll": "poll_s",
    "settle": "settle_s",
    "idle_exit": "idle_exit_s",
}
"""Options whose field in the request has another name, which contains the unit."""


def denoise_files(
    inputs: AnyPaths,
    output: AnyPath | None,
    *,
    progress: Progress | None = None,
    note: Note | None = None,
    **options: Any,
) -> Outcome:
    """Denoise files; `cryoplug.verbs.denoise.denoise` has already checked the names of the options."""
    from cryoplug.workflows.denoise import denoise as run

    names = names_of(inputs, "inputs")
    if output is None:
        raise UsageError(
            "output is not given: the folder for the denoised micrographs, as in denoise(inputs, 'denoised')"
        )
    notes = Notes(note)
    request = _request(names, output, options, notes)
    batch = run(request, reporting(progress), notes.take)
    check_usable(batch)
    return Outcome(
        files=batch.files,
        outputs=outputs_of(batch),
        lists=batch.outputs,
        page=batch.details.get("report"),
        remarks=remarks_of(batch, notes.kept),
        exit_code=batch.exit_code,
        details=batch.details,
    )


def _request(inputs: tuple[str, ...], output: AnyPath, options: dict[str, Any], note: Notes) -> DenoiseRequest:
    fields = {_FIELDS.get(name, name): value for name, value in applied_fields(options).items()}
    for name in ("even", "odd"):
        fields[name] = names_of(fields.get(name, ()), name)
    for name in ("star", "report"):
        fields[name] = None if fields.get(name) is None else path_of(fields[name], name)
    fields["gpu"] = _numbers(fields.get("gpu", ()))
    shard = fields.get("shard")
    asked = Shard.parse(shard) if isinstance(shard, str) else shard
    fields["shard"] = chosen_shard(asked, watch=fields.get("watch", False), note=note.take)
    checkpoint = checkpoint_of(fields.pop("checkpoint", GENERAL))
    return DenoiseRequest(inputs=inputs, checkpoint=checkpoint, output=path_of(output, "output"), **fields)


def _numbers(asked: int | Sequence[int]) -> tuple[int, ...]:
    numbers = (asked,) if isinstance(asked, int) else tuple(asked)
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise UsageError(f"gpu={asked!r} (allowed: a number from 0, or several as in (0, 1))")
    return numbers
