"""The tally of a night: how many micrographs are done, which failed, how fast it goes."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HOUR_S = 3600.0


class Tally:
    """Counts the records that ``cryoplug denoise --json`` writes, one for each micrograph.

    A micrograph counts once, however often it comes: what was said last of it holds.
    """

    def __init__(self, night: str) -> None:
        self.night = night
        self.failed: dict[str, str] = {}
        """Micrographs that failed, and why."""
        self._status: dict[str, str] = {}
        self._done_at: deque[float] = deque()
        self._seconds = 0.0
        self._computed = 0

    def take(self, record: Mapping[str, Any]) -> None:
        """Take in a record; one that is about no micrograph (a STAR file) is passed over."""
        if "status" not in record or "input" not in record:
            return
        name, status = str(record["input"]), str(record["status"])
        self._status[name] = status
        self.failed.pop(name, None)
        if status == "failed":
            self.failed[name] = str(record.get("message") or "no reason given")
        elif status == "done":
            self._done_at.append(time.monotonic())
            self._seconds += float(record.get("seconds") or 0.0)
            self._computed += 1

    def summary(self) -> dict[str, Any]:
        """Give the numbers: micrographs, those done in the last hour, and seconds for each."""
        while self._done_at and time.monotonic() - self._done_at[0] > HOUR_S:
            self._done_at.popleft()
        return {
            "night": self.night,
            "finished": len(self._status) - len(self.failed),
            "failed": len(self.failed),
            "last_hour": len(self._done_at),
            "seconds_each": round(self._seconds / self._computed, 3) if self._computed else None,
            "failures": self.failed,
        }

    def line(self) -> str:
        """Say the numbers on one line."""
        found = self.summary()
        each = "" if found["seconds_each"] is None else f", {found['seconds_each']:.2f} s each"
        counts = f"{found['finished']} finished, {found['failed']} failed, {found['last_hour']} in the last hour"
        return f"{self.night}: {counts}{each}"

    def write(self, path: Path) -> None:
        """Write the numbers as JSON, for a dashboard; a reader never sees half a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(json.dumps(self.summary(), indent=1) + "\n", encoding="utf-8")
        partial.replace(path)
