"""Inspect any path: say what it is and what is wrong with it."""

from cryoplug.workflows.inspect.inspection import Inspection
from cryoplug.workflows.inspect.workflow import InspectRequest, InspectResult, inspect, inspect_path

__all__ = [
    "InspectRequest",
    "InspectResult",
    "Inspection",
    "inspect",
    "inspect_path",
]
