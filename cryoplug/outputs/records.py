"""How each output was made; this also shows whether it is finished.

A hidden folder beside the results holds one small record for each file: from what it was made, and how. The record is
written as unfinished before the result gets its name, and as finished after that. So a file of a killed run differs from a
file of another program.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from cryoplug.core.pixel_size import same_size
from cryoplug.core.results import to_json
from cryoplug.disk.atomic import PARTIAL_SUFFIX, atomic_file, partial_path_of, storage_errors
from cryoplug.disk.file_state import MISSING, file_content
from cryoplug.errors import UsageError
from cryoplug.outputs.planning import PlannedOutput

_RECORD_VERSION = 1
_MAX_RECORD_BYTES = 1 << 20
_LISTED = "listed_pixel_size"
_USED = "used_pixel_size"
_SAME_PART = 1e-4
"""Relative difference up to which two pixel sizes give the same output; a header holds them in float32."""


Settings = Mapping[str, str]
"""Everything that the pixels of an output depend on, except for the input: the request's `identity`."""


@dataclass(frozen=True)
class OutputRecord:
    """How an output was made; the contents of the record file."""

    finished: bool
    """False while the output is being written."""
    input: str
    """Path of the micrograph, for people."""
    input_size_bytes: int
    """Size of the micrograph when it was read."""
    input_mtime_ns: int
    """Time of its last change."""
    settings: dict[str, str]
    """Settings of the run; see `Settings`."""
    host: str
    """Machine that wrote it."""
    pid: int
    """Process that wrote it; part of the name of the unfinished output."""
    output_size_bytes: int = 0
    """Size of the output; 0 while unfinished."""
    version: int = _RECORD_VERSION
    """Layout of this record."""


def new_record(item: PlannedOutput, settings: Settings) -> OutputRecord:
    """Describe an output that is about to be written.

    A missing micrograph gets a record that matches no file: if it appears before it is read, the next run does it again.
    """
    size_bytes, mtime_ns = file_content(item.micrograph.path)
    return OutputRecord(
        finished=False,
        input=str(item.shown.absolute() if item.micrograph.section is None else item.shown),
        input_size_bytes=size_bytes,
        input_mtime_ns=mtime_ns,
        settings={**settings, **_listed(item, settings)},
        host=socket.gethostname(),
        pid=os.getpid(),
    )


def finished_record(record: OutputRecord, size_bytes: int, pixel_size_angstrom: float | None) -> OutputRecord:
    """Complete the record of an output with its size and with the pixel size that was used, whoever stated it."""
    used = {} if pixel_size_angstrom is None else {_USED: f"{pixel_size_angstrom:.10g}"}
    return replace(record, finished=True, output_size_bytes=size_bytes, settings={**record.settings, **used})


def begin_output(item: PlannedOutput, record: OutputRecord, *, beside: Sequence[Path] = ()) -> None:
    """Note that an output is being written; remove what a killed run left of it, and of the files `beside` it.

    The caller must hold the claim of the output, so that no other live process is writing it.
    """
    old = read_record(item.record)
    if old is not None and not old.finished and (old.host, old.pid) != (record.host, record.pid):
        for path in (item.target, *beside):
            leftover = partial_path_of(path, old.host, old.pid)
            with storage_errors(leftover):
                leftover.unlink(missing_ok=True)
    write_record(item.record, record)


def write_record(path: Path, record: OutputRecord) -> None:
    """Write a record atomically; the claim of its output makes this process the only writer."""
    # One name for all processes: what a killed one left of a record is written over by the next.
    partial = path.with_name(f".{path.name}{PARTIAL_SUFFIX}")
    with atomic_file(path, partial=partial) as stream, storage_errors(path):
        stream.write((to_json(record) + "\n").encode("utf-8", "surrogateescape"))


def read_record(path: Path) -> OutputRecord | None:
    """Read a record; None if there is none, or if another version of this record was written."""
    try:
        if path.stat().st_size > _MAX_RECORD_BYTES:
            return None
        values: Any = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or set(values) != {item.name for item in fields(OutputRecord)}:
        return None
    record = OutputRecord(**values)
    sound = record.version == _RECORD_VERSION and isinstance(record.settings, dict) and isinstance(record.pid, int)
    return record if sound and record.pid > 0 else None


def is_finished(item: PlannedOutput, settings: Settings, *, unsaid: Settings) -> bool:
    """Say whether the output of an earlier run is still valid for this input, checkpoint and settings.

    Parameters
    ----------
    item
        The output and its micrograph.
    settings
        Settings of this run.
    unsaid
        Settings that older records lack, with the values that were used then.

    Returns
    -------
    bool
        False if there is no output, if an earlier run was interrupted, or if the input has changed since.

    Raises
    ------
    UsageError
        The output exists, but was made in another way: replacing it needs ``--overwrite``.
    """
    if not os.path.lexists(item.target):
        return False
    record = read_record(item.record)
    if record is None:
        raise UsageError(f"{item.target}: exists, and no record says how it was made; use --overwrite to replace it")
    if not record.finished:
        return False
    with contextlib.suppress(OSError):
        if item.target.stat().st_size != record.output_size_bytes:
            raise UsageError(f"{item.target}: was changed after it was written; use --overwrite to replace it")
    made = {**unsaid, **record.settings}
    if _has_the_size_that_was_used(item, settings, made):
        made["pixel_size"] = settings.get("pixel_size", "none")
    differing = sorted(key for key in settings if made.get(key) != settings[key])
    if differing:
        found = ", ".join(f"{key} {str(made.get(key))[:12]}, now {settings[key][:12]}" for key in differing)
        raise UsageError(f"{item.target}: was made with {found}; use --overwrite or another output folder")
    before, now = record.settings.get(_LISTED), _listed(item, settings).get(_LISTED)
    if before is not None and now is not None and not _same(before, now):
        raise UsageError(
            f"{item.target}: was made with a pixel size of {before} A/px, which the list said, now {now}; use --overwrite or "
            "another output folder"
        )
    input_now = file_content(item.micrograph.path)
    return input_now != MISSING and input_now == (record.input_size_bytes, record.input_mtime_ns)


def _has_the_size_that_was_used(item: PlannedOutput, settings: Settings, made: Settings) -> bool:
    """Say whether the user or the list now states the pixel size that was used, whoever stated it then."""
    stated, listed = settings.get("pixel_size", "none"), item.micrograph.pixel_size_angstrom
    try:
        used, now = float(made[_USED]), float(listed if stated == "none" and listed is not None else stated)
    except (KeyError, TypeError, ValueError):
        return False
    return abs(used - now) <= _SAME_PART * used


def _same(before: Any, now: str) -> bool:
    try:
        return same_size(float(before), float(now))
    except (TypeError, ValueError):  # somebody edited the record
        return False


def _listed(item: PlannedOutput, settings: Settings) -> dict[str, str]:
    """Give the pixel size from the list, if it is used; older records lack it, and match any value."""
    size = item.micrograph.pixel_size_angstrom
    return {} if size is None or settings.get("pixel_size", "none") != "none" else {_LISTED: f"{size:.10g}"}
