"""Record which External job a command has begun: in a small file in the job's folder, and by a claim while it runs.

cryoSPARC cannot see that this process was killed. The next run of the same command finds the file, and goes on in that job.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryoplug.core.results import to_json
from cryoplug.disk.atomic import write_text
from cryoplug.disk.claims import Claims

RECORD_NAME = "cryoplug_job.json"
"""Name of the record in the folder of the External job."""
_VERSION = 1


@dataclass(frozen=True)
class JobRecord:
    """The record of an External job: the command and the input for which it was made."""

    job: str
    """Job, such as ``J43``; also the name of its folder."""
    command: str
    """Fingerprint of project, workspace, exposures and all options that change pixels."""
    exposures: str
    """Fingerprint of the rows of the input."""
    source: str
    """Name of the input for messages, such as ``J12.micrographs``."""
    saved: bool = False
    """Whether the output was saved in cryoSPARC; then the job only has to be marked as completed."""
    host: str = ""
    """Name of the machine that began the job."""
    begun: str = ""
    """Time when the job was begun, in UTC."""
    version: int = _VERSION
    """Version of the layout of this record."""

    def write(self, project: Path) -> None:
        """Write the record into the folder of the job."""
        folder = project / self.job
        folder.mkdir(exist_ok=True)
        write_text(folder / RECORD_NAME, to_json(asdict(self)) + "\n")

    def with_output(self) -> JobRecord:
        """Give the record of a job whose output was saved."""
        return replace(self, saved=True)


def new_record(job: str, *, command: str, exposures: str, source: str) -> JobRecord:
    """Describe a job that this process has just made."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return JobRecord(job, command, exposures, source, host=socket.gethostname(), begun=now)


def find_records(project: Path, command: str) -> list[JobRecord]:
    """List the records of a command in a project, the last job first."""
    found = []
    for path in project.glob(f"J*/{RECORD_NAME}"):
        record = _read(path)
        if record is not None and record.command == command and record.job == path.parent.name:
            found.append(record)
    return sorted(found, key=lambda record: int(record.job[1:]), reverse=True)


@contextlib.contextmanager
def only_run_of(project: Path, command: str) -> Iterator[None]:
    """Allow only one run of the same command in the block.

    Raises
    ------
    OutputBusyError
        Another run of this command is alive.
    """
    with Claims() as claims:
        claims.take_or_fail(project / f".cryoplug_{command[:16]}.claim", "the External job of this command")
        yield


def fingerprint(content: Mapping[str, Any] | bytes) -> str:
    """Give a short fingerprint of the content."""
    payload = content if isinstance(content, bytes) else json.dumps(content, sort_keys=True).encode()
    return hashlib.sha256(payload).hexdigest()


def _read(path: Path) -> JobRecord | None:
    names = {item.name for item in fields(JobRecord)}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        record = JobRecord(**content) if isinstance(content, dict) and set(content) <= names else None
    except (OSError, ValueError, TypeError):
        return None  # not ours, or from a disk that was full
    usable = record is not None and record.version == _VERSION and record.job[1:].isdecimal()
    return record if usable else None
