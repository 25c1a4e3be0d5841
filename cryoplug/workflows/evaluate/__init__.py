"""Micrographs and a checkpoint, or denoised files, in; how good they are out."""

from cryoplug.workflows.evaluate.rehearsal import rehearse
from cryoplug.workflows.evaluate.request import EvaluateRequest
from cryoplug.workflows.evaluate.workflow import EvaluationResult, evaluate

__all__ = [
    "EvaluateRequest",
    "EvaluationResult",
    "evaluate",
    "rehearse",
]
