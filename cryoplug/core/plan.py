"""What a run would do: the result of ``--dry-run``."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryoplug.core.results import BatchResult
from cryoplug.errors import StorageError


@dataclass(frozen=True)
class PlannedNetwork:
    """The network that a run would apply or train."""

    model: str
    """Its id in `cryoplug.models.registry`."""
    parameters: int | None
    """How many weights it has; None if a plugin does not say."""
    device: str
    """Where it would compute: ``cpu`` or ``cuda:N``."""

    @property
    def text(self) -> str:
        """Network, size and device in words."""
        size = "" if self.parameters is None else f" ({self.parameters:,} parameters)"
        return f"{self.model}{size} on {self.device}"


@dataclass(frozen=True)
class Plan(BatchResult):
    """What a run would do. `files` holds the inputs that would be skipped or would fail, as the run itself would report them.

    `details` holds facts that only one command has.
    """

    output: Path | None = None
    """Where the run would write; None if it would write nothing."""
    writes: tuple[str, ...] = ()
    """Files in `output` that belong to the whole run, by name."""
    network: PlannedNetwork | None = None
    """The network that would be applied or trained."""
    to_do: tuple[Path, ...] = ()
    """Files that the run would work on."""
    needed_bytes: int | None = None
    """Approximate space that the results take, in bytes; None if unknown."""
    free_bytes: int | None = None
    """Free space at the output, in bytes; None if unknown."""

    @property
    def total(self) -> int:
        """Number of all inputs: to do, skipped and failing."""
        return len(self.files) + len(self.to_do)

    @property
    def exit_code(self) -> int:
        """Exit code of the run, as far as it can be known before."""
        if self.needed_bytes is not None and self.free_bytes is not None and self.needed_bytes > self.free_bytes:
            return StorageError.exit_code
        if self.failed and len(self.failed) < self.total:
            return 3
        return 0 if self.to_do else super().exit_code

    def record(self, command: str) -> dict[str, Any]:
        """Return the line of ``--json``."""
        return {
            "command": command,
            "output": self.output,
            "to_do": len(self.to_do),
            "skipped": len(self.files) - len(self.failed),
            "failed": len(self.failed),
            "total": self.total,
            "needed_bytes": self.needed_bytes,
            "free_bytes": self.free_bytes,
            "writes": self.writes,
            **({} if self.network is None else vars(self.network)),
            **self.details,
        }

    @property
    def text(self) -> str:
        """The line for people."""
        record = self.record("")
        counts = ", ".join(
            f"{record[name]} {words}"
            for name, words in (("to_do", "to do"), ("skipped", "finished before"), ("failed", "would fail"))
            if record[name]
        )
        where = "" if self.output is None else f" -> {self.output}"
        space = ""
        if self.free_bytes is not None:
            needed = "" if self.needed_bytes is None else f"about {size_text(self.needed_bytes)} of "
            space = f"; {needed}{size_text(self.free_bytes)} free"
        if self.exit_code == StorageError.exit_code:
            space += ": not enough; free some, or choose another output"
        return f"nothing was written: {counts or 'nothing to do'}{where}{space}"


def free_space(output: Path) -> int:
    """Say how much space is free where an output would be written, and write nothing.

    Raises
    ------
    StorageError
        Nothing can be written there: no permission, or a file is in the way.
    """
    place = output.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    folder = place if place.is_dir() else place.parent
    if place.is_file() and place != output.absolute():
        raise StorageError(f"{output}: cannot be written: {place} is a file; choose another output")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(f"{output}: cannot be written: no permission in {folder}; choose another output")
    return shutil.disk_usage(folder).free


def size_text(size_bytes: int) -> str:
    """Say a number of bytes in two or three digits: ``38 kB``, ``1.2 GB``."""
    size, unit = float(size_bytes), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "bytes" or size >= 10 else f"{size:.1f} {unit}"
