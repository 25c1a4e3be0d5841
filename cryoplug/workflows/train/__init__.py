"""Training pairs in, the best checkpoint out."""

from cryoplug.workflows.train.workflow import TrainRequest, TrainResult, train

__all__ = [
    "TrainRequest",
    "TrainResult",
    "train",
]
