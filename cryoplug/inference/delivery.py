"""How results are written, and which functions are called meanwhile: one record for all roads of denoise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cryoplug.core.thumbnail import BeforeAfter
from cryoplug.inference.messages import DenoiseJob, DenoiseResult


def _nothing(_job: DenoiseJob) -> None:
    """Prepare nothing."""


def _never() -> bool:
    return False


def _silently() -> None:
    """Do nothing: nobody waits for more work."""


@dataclass(frozen=True)
class Delivery:
    """How results are written, and which functions are called meanwhile."""

    finish: Callable[[DenoiseJob, DenoiseResult], None]
    """Called in a writer thread when a file has its final name or has failed; in bands in the order of the jobs, else in the
    order of completion."""
    label: str
    """Text for the label that every written MRC header gets."""
    dtype: str = "float32"
    """``float32`` or ``float16``; with float16, a file fails if its pixels do not fit."""
    begin: Callable[[DenoiseJob], None] = _nothing
    """Called in a writer thread before a file is written."""
    look: Callable[[DenoiseJob, BeforeAfter, float | None], None] | None = None
    """Called in a writer thread before `finish`, with thumbnails of a micrograph that was whole on a device, and its pixel size
    in angstrom. None makes no thumbnails."""
    should_stop: Callable[[], bool] = _never
    """Called by all threads before each tile and each band that is read; True discards everything that is not complete."""
    gave_up: Callable[[], None] = _silently
    """Called from any thread when an error ends the work; jobs that wait for more work should then end."""
