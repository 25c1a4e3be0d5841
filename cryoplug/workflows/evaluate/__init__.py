"""Measure how good denoised micrographs are: those of a checkpoint, or files of another program."""

from cryoplug.workflows.evaluate.rehearsal import rehearse
from cryoplug.workflows.evaluate.request import EvaluateRequest
from cryoplug.workflows.evaluate.workflow import EvaluationResult, evaluate

__all__ = [
    "EvaluateRequest",
    "EvaluationResult",
    "evaluate",
    "rehearse",
]
