"""convert: micrographs in, training pairs out."""

from cryoplug.workflows.convert.inputs import list_inputs
from cryoplug.workflows.convert.rehearsal import rehearse
from cryoplug.workflows.convert.request import ConvertRequest
from cryoplug.workflows.convert.workflow import convert

__all__ = [
    "ConvertRequest",
    "convert",
    "list_inputs",
    "rehearse",
]
