"""Denoise micrographs with a checkpoint."""

from cryoplug.workflows.denoise.rehearsal import rehearse
from cryoplug.workflows.denoise.request import DenoiseRequest
from cryoplug.workflows.denoise.workflow import denoise, merge

__all__ = [
    "DenoiseRequest",
    "denoise",
    "merge",
    "rehearse",
]
