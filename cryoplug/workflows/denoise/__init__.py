"""Micrographs and a checkpoint in, denoised micrographs out."""

from cryoplug.workflows.denoise.request import DenoiseRequest
from cryoplug.workflows.denoise.workflow import denoise

__all__ = [
    "DenoiseRequest",
    "denoise",
]
