"""The record that an inspection leaves."""

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
    """As the user named it; a file inside a store or checkpoint stands for its folder."""
    kind: str
    """``micrograph``, ``star``, ``store``, ``checkpoint``, ``run``, ``runs``, ``system``, ``missing`` or ``unusable``."""
    summary: dict[str, Any] = field(default_factory=dict)
    """What it is, in plain JSON types; a unit ends each name that needs one."""
    findings: tuple[Finding, ...] = ()
    """Everything that is wrong or unusual, not the first of it only."""

    @property
    def wrong(self) -> bool:
        """Whether something is wrong: any error or warning; notes do not count."""
        return any(item.severity != "note" for item in self.findings)


@dataclass(frozen=True)
class InspectedFolder:
    """What was looked at in a folder, and what was not."""

    path: Path
    """As the user named it, or below that."""
    files: int
    """Files directly in it that were looked at."""
    wrong: int
    """Those with errors or warnings."""
    passed_over: dict[str, int]
    """How many files of other kinds there are, by ending; ``hidden`` ones together."""
    not_entered: tuple[str, ...]
    """Names of folders in it that were not looked into, sorted: hidden ones, and links to one that was looked into already."""
    companions: int = 0
    """Of the files: those that only accompany a micrograph, which `convert` and `denoise` leave out of a folder."""
    without_pixel_size: int = 0
    """Of the files: images that do not state their pixel size."""


def lacks_pixel_size(summary: Mapping[str, Any]) -> bool:
    """Tell from what was found of an image that nothing in the file states its pixel size."""
    return "shape" in summary and said(summary.get("pixel_size_angstrom")) is None
