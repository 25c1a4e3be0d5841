"""How a result is written, and who is told: one record for all roads of denoise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cryoplug.core.thumbnail import BeforeAfter
from cryoplug.inference.messages import DenoiseJob, DenoiseResult


def _nothing(_job: DenoiseJob) -> None:
    """Begin: nothing to prepare."""


def _never() -> bool:
    return False


def _silently() -> None:
    """Give up: nobody waits for more to come."""


@dataclass(frozen=True)
class Delivery:
    """How results are written, and who is told of them."""

    finish: Callable[[DenoiseJob, DenoiseResult], None]
    """Called in a writer thread when a file has its final name or has failed: in bands in the order of the jobs, else of
    completion."""
    label: str
    """Text for the label that every written MRC header gets."""
    dtype: str = "float32"
    """``float32`` or ``float16``; with the latter a file whose pixels do not fit is failed."""
    begin: Callable[[DenoiseJob], None] = _nothing
    """Called in a writer thread before a file is written."""
    look: Callable[[DenoiseJob, BeforeAfter, float | None], None] | None = None
    """Called in a writer thread before `finish`, with thumbnails of a micrograph whose pixels lie on a device as a whole, and
    its pixel size in angstrom. None: nobody wants them."""
    should_stop: Callable[[], bool] = _never
    """Asked by all threads, before each tile and each band that is read; when it says yes, what is not complete is dropped
    without a trace."""
    gave_up: Callable[[], None] = _silently
    """Called from any thread when an error ends the work: jobs that wait for more to come should end then."""
