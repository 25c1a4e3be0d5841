"""train: training pairs in, the best checkpoint out."""

from cryoplug.workflows.train.rehearsal import rehearse
from cryoplug.workflows.train.request import TrainRequest
from cryoplug.workflows.train.result import TrainResult
from cryoplug.workflows.train.workflow import train

__all__ = [
    "TrainRequest",
    "TrainResult",
    "rehearse",
    "train",
]
