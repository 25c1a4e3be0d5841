"""The journal of an output folder: one line of JSON for every micrograph that any process worked on."""

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
"""Name of the journal in the output folder."""


class Journal:
    """Appends lines to a file that several processes may append to.

    Each line is one ``write`` to a file opened with ``O_APPEND``, so lines of several processes on one machine never mix. A
    network disk may lose a line if two machines append at the same moment. That does no harm: the records decide what is
    finished, never the journal.

    Parameters
    ----------
    path
        The file; its folder must exist.
    common
        Fields that every line gets: model, hash of the checkpoint, settings.
    """

    def __init__(self, path: Path, common: dict[str, Any]) -> None:
        self._path = path
        self._common = {**common, "host": socket.gethostname(), "pid": os.getpid()}

    def add_fields(self, **common: Any) -> None:
        """Add further fields to every line from now on."""
        self._common.update(common)

    def append(self, result: FileResult) -> None:
        """Add a line.

        Raises
        ------
        StorageError
            The system refused. A part of the line may remain; the next line still begins on a new line.
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
    """Read the last line of the journal for each of some outputs.

    Parameters
    ----------
    path
        The journal; if there is none, or it cannot be read, the result is empty.
    wanted
        Outputs, by their paths below the output folder. A line names its output as its run saw it, maybe from another
        working directory; so the longest end of that path that is in `wanted` counts.

    Returns
    -------
    dict
        The last line of each output that has one; damaged lines are passed over.
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
