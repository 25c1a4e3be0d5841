"""Small frozen records that travel from the workflows up to the command line."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

EXIT_PARTIAL = 3
EXIT_NO_USABLE_INPUT = 4


@dataclass(frozen=True)
class FileResult:
    """How one input file ended."""

    input: Path
    """The file as the user named it."""
    status: Literal["done", "skipped", "failed"]
    """``skipped`` means: finished by an earlier run and still valid."""
    output: Path | None = None
    """The file that was written for it, if any."""
    message: str = ""
    """Why it failed or was skipped; if it is done, a warning or nothing."""
    seconds: float = 0.0
    """Wall time spent on it."""
    exit_code: int = 0
    """Exit code of the error class behind a failure; 0 otherwise."""


@dataclass(frozen=True)
class BatchResult:
    """How a list of inputs ended."""

    files: tuple[FileResult, ...]
    """One record per input, in input order."""
    outputs: tuple[Path, ...] = ()
    """Files that belong to the whole batch, such as a STAR file or a store."""
    details: dict[str, Any] = field(default_factory=dict)
    """Further facts for ``--json``; plain JSON types."""

    @property
    def failed(self) -> tuple[FileResult, ...]:
        """The inputs that failed."""
        return tuple(item for item in self.files if item.status == "failed")

    @property
    def exit_code(self) -> int:
        """0 when all is done, 3 when some inputs failed, 4 (or the storage or device code) when none is usable."""
        failed = self.failed
        if not failed:
            return 0 if self.files else EXIT_NO_USABLE_INPUT
        if len(failed) < len(self.files):
            return EXIT_PARTIAL
        codes = {item.exit_code for item in failed}
        return codes.pop() if len(codes) == 1 and 0 not in codes else EXIT_NO_USABLE_INPUT


@dataclass(frozen=True)
class Finding:
    """One thing that is worth knowing about a file."""

    severity: Literal["error", "warning", "note"]
    """``error``: cryoplug cannot use it. ``warning``: something is wrong. ``note``: merely unusual."""
    field: str
    """Where it is: a header field, a column, or a file in the folder."""
    message: str
    """What was found, what is allowed, and what to do."""


def to_json(record: Any) -> str:
    """Write a record (dataclass, dict, list, path, number) as one line of strict JSON; NaN becomes null."""
    return json.dumps(plain(record), ensure_ascii=False, allow_nan=False)


def plain(value: Any) -> Any:
    """Turn a record (dataclass, dict, list, path, number) into plain JSON types; NaN becomes ``None``."""
    # In the order of how often they come: a line of a journal has 30 texts and numbers, and a run has many lines.
    if value is None or type(value) in (str, int, bool):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value).encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    return plain(value.item()) if hasattr(value, "item") else value
