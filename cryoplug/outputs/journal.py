"""The journal of an output folder: one line of JSON for every micrograph that was worked on, by whichever process."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Collection
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

from cryoplug.core.results import FileResult, to_json
from cryoplug.disk.atomic import storage_errors

JOURNAL_NAME = "denoise.jsonl"
"""In the output folder."""


class Journal:
    """Appends lines to a file that several processes may append to.

    Each line is one ``write`` to a file opened with ``O_APPEND``: lines of several processes of one machine never mix. A
    network disk may lose a line when two machines append at the very same moment; what is finished is known from the
    records, never from the journal.

    Parameters
    ----------
    path
        The file; its folder must exist.
    common
        Fields of every line: model, hash of the checkpoint, settings.
    """

    def __init__(self, path: Path, common: dict[str, Any]) -> None:
        self._path = path
        self._common = {**common, "host": socket.gethostname(), "pid": os.getpid()}

    def add_fields(self, **common: Any) -> None:
        """Put further fields into every line from now on."""
        self._common.update(common)

    def append(self, result: FileResult) -> None:
        """Add a line.

        Raises
        ------
        StorageError
            The system refused; a part of the line may stay, and the next line begins a new one.
        """
        own = {field.name: getattr(result, field.name) for field in fields(result)}
        time = datetime.now(UTC).isoformat(timespec="seconds")
        line = to_json({"time": time, **own, **self._common}).encode("utf-8", "replace") + b"\n"
        with storage_errors(self._path):
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                size_bytes = os.fstat(descriptor).st_size
                if size_bytes and os.pread(descriptor, 1, size_bytes - 1) not in (b"\n", b""):
                    line = b"\n" + line  # a full disk cut the last line
                written = os.write(descriptor, line)
                if written < len(line):
                    os.write(descriptor, line[written:])  # says why there is no more room
            finally:
                os.close(descriptor)


def last_lines(path: Path, wanted: Collection[PurePath]) -> dict[PurePath, dict[str, Any]]:
    """Read what a journal says last of some outputs.

    Parameters
    ----------
    path
        The journal; when there is none, or it cannot be read, nothing is known.
    wanted
        Outputs by their path below the output folder. A line names its output as its run named the folder, which may have
        been another working directory: the longest end of that path that is wanted counts.

    Returns
    -------
    dict
        The last line of each that is there; damaged lines are passed over.
    """
    found: dict[PurePath, dict[str, Any]] = {}
    try:
        with path.open("rb") as lines:
            for line in lines:
                try:
                    record = json.loads(line)
                    parts = PurePath(record["output"]).parts if record.get("status") == "done" else ()
                except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                    continue
                name = next((end for at in range(len(parts)) if (end := PurePath(*parts[at:])) in wanted), None)
                if name is not None:
                    found[name] = record
    except OSError:
        return found
    return found
