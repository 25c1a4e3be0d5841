"""Where the results of a batch go, which of them are finished already, and what must never be overwritten.

Beside the results lies a hidden folder with one small record per file: what it was made from, and how. The record is
written unfinished before the result gets its name and finished after it: a killed run is told from a foreign file.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from cryoplug.core.atomic import PARTIAL_SUFFIX, storage_errors, write_text
from cryoplug.core.results import to_json
from cryoplug.errors import UsageError
from cryoplug.formats.registry import formats
from cryoplug.workflows.discovery import DiscoveredMicrograph

RECORD_FOLDER = ".cryoplug"
"""Below the output folder; may be deleted, then finished files are no longer known as such."""
_RECORD_VERSION = 1
_MAX_RECORD_BYTES = 1 << 20


@dataclass(frozen=True)
class PlannedOutput:
    """One micrograph and the file that will be made from it."""

    micrograph: DiscoveredMicrograph
    """What to read."""
    target: Path
    """What to write."""
    record: Path
    """The small file that says how `target` was made."""


@dataclass(frozen=True)
class Settings:
    """Everything besides the input that the pixels of an output depend on."""

    checkpoint_sha256: str
    """Hash of the weights."""
    normalize: str
    """Normalization that is applied."""


@dataclass(frozen=True)
class OutputRecord:
    """How an output was made: the contents of the small file."""

    finished: bool
    """False while the output is being written."""
    input: str
    """Path of the micrograph, for people."""
    input_size_bytes: int
    """Size of the micrograph when it was read."""
    input_mtime_ns: int
    """Time of its last change."""
    settings: dict[str, str]
    """Fields of `Settings`."""
    host: str
    """Machine that wrote it."""
    pid: int
    """Process that wrote it; part of the name of the unfinished output."""
    output_size_bytes: int = 0
    """Size of the output; 0 while unfinished."""
    version: int = _RECORD_VERSION
    """Layout of this record."""


def plan_outputs(micrographs: Sequence[DiscoveredMicrograph], folder: Path) -> list[PlannedOutput]:
    """Choose a name below `folder` for the result of every micrograph.

    The name of the micrograph is kept with the ending ``.mrc``. Of two micrographs that differ in nothing but the
    ending, the one that is not MRC keeps its own ending too: ``a.tif.mrc``.

    Raises
    ------
    UsageError
        A result would overwrite a micrograph or another result, or lie outside of `folder`.
    """
    endings = {ending for spec in formats().values() for ending in spec.extensions}
    names = [_as_mrc(item.relative, endings) for item in micrographs]
    taken = {str(item.relative) for item in micrographs}
    seen: dict[str, int] = {}
    for index, item in enumerate(micrographs):
        if str(names[index]) in seen or (names[index] != item.relative and str(names[index]) in taken):
            names[index] = item.relative.with_name(item.relative.name + ".mrc")
        first = seen.setdefault(str(names[index]), index)
        if first != index:
            raise UsageError(
                f"{item.path} and {micrographs[first].path}: both would be written to {folder / names[index]}; "
                "denoise them into two folders"
            )
    planned = [
        PlannedOutput(item, folder / name, folder / RECORD_FOLDER / name.with_name(name.name + ".json"))
        for item, name in zip(micrographs, names, strict=True)
    ]
    _check_inside(planned, folder)
    check_no_input([item.target for item in planned], [item.path for item in micrographs])
    return planned


def without_own_outputs(
    micrographs: Sequence[DiscoveredMicrograph], folder: Path, *, named: Iterable[str]
) -> list[DiscoveredMicrograph]:
    """Leave out results of earlier runs that a search found because `folder` lies within a folder of inputs.

    Parameters
    ----------
    micrographs
        What was found.
    folder
        The output folder.
    named
        Paths that the user spelled out: these are never left out.
    """
    spelled = {Path(text) for text in named}
    root = folder.absolute()
    records = root / RECORD_FOLDER
    if not records.is_dir():
        return list(micrographs)

    def is_own(path: Path) -> bool:
        path = path.absolute()
        if path.is_relative_to(root):
            below = path.relative_to(root)
            return (records / below.with_name(below.name + ".json")).is_file()
        return False

    return [item for item in micrographs if item.path in spelled or not is_own(item.path)]


def check_no_input(targets: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Raise `UsageError` when a file to be written is one of the inputs, under whatever name or link."""
    by_name = {_resolved(path): path for path in inputs}
    by_identity = {identity: path for path in inputs if (identity := _identity(path)) is not None}
    for target in targets:
        identity = _identity(target)
        hit = by_name.get(_resolved(target)) or (by_identity.get(identity) if identity else None)
        if hit is not None:
            raise UsageError(
                f"{target}: this is the input {hit}; inputs are never overwritten; choose another output folder"
            )


def new_record(item: PlannedOutput, settings: Settings) -> OutputRecord:
    """Describe an output that is about to be written.

    A micrograph that is missing gets a record that matches none: should it appear until it is read, it is redone next time.
    """
    try:
        status = item.micrograph.path.stat()
        size_bytes, mtime_ns = status.st_size, status.st_mtime_ns
    except (OSError, ValueError):
        size_bytes, mtime_ns = -1, -1
    return OutputRecord(
        finished=False,
        input=str(item.micrograph.path.absolute()),
        input_size_bytes=size_bytes,
        input_mtime_ns=mtime_ns,
        settings=asdict(settings),
        host=socket.gethostname(),
        pid=os.getpid(),
    )


def begin_output(item: PlannedOutput, record: OutputRecord) -> None:
    """Note that an output is being written, and remove what a killed run on this machine left of it."""
    old = read_record(item.record)
    if old is not None and not old.finished and old.host == record.host and not _is_alive(old.pid):
        rest = item.target.with_name(f".{item.target.name}.{old.pid}{PARTIAL_SUFFIX}")
        with storage_errors(rest):
            rest.unlink(missing_ok=True)
    write_record(item.record, record)


def write_record(path: Path, record: OutputRecord) -> None:
    """Write a record atomically."""
    write_text(path, to_json(record) + "\n")


def read_record(path: Path) -> OutputRecord | None:
    """Read a record; None when there is none, or none that this version wrote."""
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


def is_finished(item: PlannedOutput, settings: Settings) -> bool:
    """Tell whether the output of an earlier run still stands for this input, checkpoint and settings.

    Returns
    -------
    bool
        False when there is no output, when an earlier run was interrupted, or when the input has changed since.

    Raises
    ------
    UsageError
        The output exists and came about in another way: replacing it needs ``--overwrite``.
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
    wanted = asdict(settings)
    differing = sorted(key for key in wanted if record.settings.get(key) != wanted[key])
    if differing:
        found = ", ".join(f"{key} {str(record.settings.get(key))[:12]}, now {wanted[key][:12]}" for key in differing)
        raise UsageError(f"{item.target}: was made with {found}; use --overwrite or another output folder")
    try:
        status = item.micrograph.path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (record.input_size_bytes, record.input_mtime_ns)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _as_mrc(relative: PurePosixPath, endings: set[str]) -> PurePosixPath:
    if relative.suffix == ".mrc":
        return relative
    # `mic_1.5A` has no ending that could be dropped.
    known = relative.suffix.lower() in endings
    return relative.with_suffix(".mrc") if known else relative.with_name(relative.name + ".mrc")


def _check_inside(planned: Sequence[PlannedOutput], folder: Path) -> None:
    root = folder.resolve()
    parents: dict[Path, bool] = {}
    for item in planned:
        parent = item.target.parent
        if parent not in parents:
            parents[parent] = parent.resolve().is_relative_to(root) and RECORD_FOLDER not in parent.parts
        if not parents[parent]:
            raise UsageError(
                f"{item.target}: leads outside of the output folder {folder} ({parent.resolve()}); "
                "remove the link or choose another output folder"
            )


def _resolved(path: Path) -> str:
    with contextlib.suppress(OSError, RuntimeError):
        return str(path.resolve())
    return str(path.absolute())


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
