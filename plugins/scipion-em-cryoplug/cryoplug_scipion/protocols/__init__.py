"""The protocols: denoise, train, evaluate."""

from .protocol_denoise import CryoplugProtDenoise
from .protocol_evaluate import CryoplugProtEvaluate
from .protocol_train import CryoplugProtTrain

__all__ = ["CryoplugProtDenoise", "CryoplugProtEvaluate", "CryoplugProtTrain"]
