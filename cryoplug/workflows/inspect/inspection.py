"""The record of an inspection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryoplug.core.pixel_size import said
from cryoplug.core.results import Finding


@dataclass(frozen=True)
class Inspection:
    """What a path holds and what is wrong with it."""

    path: Path
    """Path as the user named it; for a file inside a store or checkpoint, the folder."""
    kind: str
    """``micrograph``, ``star``, ``store``, ``checkpoint``, ``run``, ``runs``, ``system``, ``missing`` or ``unusable``."""
    summary: dict[str, Any] = field(default_factory=dict)
    """Description in plain JSON types; names of quantities end with their unit."""
    findings: tuple[Finding, ...] = ()
    """Everything that is wrong or unusual."""

    @property
    def wrong(self) -> bool:
        """Whether any finding is an error or a warning; notes do not count."""
        return any(item.severity != "note" for item in self.findings)


@dataclass(frozen=True)
class InspectedFolder:
    """What was inspected in a folder, and what was not."""

    path: Path
    """Path as the user named it, or a path below that."""
    files: int
    """Number of inspected files directly in this folder."""
    wrong: int
    """Number of these files with errors or warnings."""
    passed_over: dict[str, int]
    """Number of files of other kinds, by ending; ``hidden`` counts hidden files."""
    not_entered: tuple[str, ...]
    """Names of subfolders that were not searched, sorted: hidden ones, and links to a folder that was already searched."""
    companions: int = 0
    """Number of these files that only accompany a micrograph; `convert` and `denoise` leave them out of a folder."""
    without_pixel_size: int = 0
    """Number of these files that are images without a pixel size."""


def lacks_pixel_size(summary: Mapping[str, Any]) -> bool:
    """Tell from the summary of an image whether the file does not state its pixel size."""
    return "shape" in summary and said(summary.get("pixel_size_angstrom")) is None
