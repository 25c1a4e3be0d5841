"""simulate: a seed and ranges in, micrographs with a known truth out."""

from cryoplug.workflows.simulate.options import simulate_request
from cryoplug.workflows.simulate.workflow import (
    KINDS,
    LISTS,
    SimulateRequest,
    chosen_specimen,
    read_density,
    read_molecules,
    simulate,
)

__all__ = [
    "KINDS",
    "LISTS",
    "SimulateRequest",
    "chosen_specimen",
    "read_density",
    "read_molecules",
    "simulate",
    "simulate_request",
]
