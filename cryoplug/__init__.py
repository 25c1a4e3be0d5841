"""cryoplug: denoise cryo-EM micrographs.

The commands as functions: `denoise`, `evaluate`, `simulate`. To read and write: `open_micrograph`, `open_store`, `read_star`,
`write_mrc`. Public names are resolved when they are first used, so that importing cryoplug costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryoplug.core.results import FileResult
    from cryoplug.errors import CryoplugError
    from cryoplug.formats.mrc import write_mrc
    from cryoplug.formats.registry import open_micrograph
    from cryoplug.formats.star import read_star, write_star
    from cryoplug.formats.star_frames import star_frames, star_from_frames
    from cryoplug.inference.denoiser import Denoiser
    from cryoplug.models.checkpoint import load_checkpoint
    from cryoplug.store.pairs import open_store
    from cryoplug.verbs.applied import Applied
    from cryoplug.verbs.denoise import denoise
    from cryoplug.verbs.evaluate import Evaluation, evaluate
    from cryoplug.verbs.outcome import Outcome
    from cryoplug.verbs.simulate import simulate

__version__ = "0.1.0"

_HOMES = {
    "Applied": "cryoplug.verbs.applied",
    "CryoplugError": "cryoplug.errors",
    "Denoiser": "cryoplug.inference.denoiser",
    "Evaluation": "cryoplug.verbs.evaluate",
    "FileResult": "cryoplug.core.results",
    "Outcome": "cryoplug.verbs.outcome",
    "denoise": "cryoplug.verbs.denoise",
    "evaluate": "cryoplug.verbs.evaluate",
    "load_checkpoint": "cryoplug.models.checkpoint",
    "open_micrograph": "cryoplug.formats.registry",
    "open_store": "cryoplug.store.pairs",
    "read_star": "cryoplug.formats.star",
    "simulate": "cryoplug.verbs.simulate",
    "star_frames": "cryoplug.formats.star_frames",
    "star_from_frames": "cryoplug.formats.star_frames",
    "write_mrc": "cryoplug.formats.mrc",
    "write_star": "cryoplug.formats.star",
}

__all__ = [
    "Applied",
    "CryoplugError",
    "Denoiser",
    "Evaluation",
    "FileResult",
    "Outcome",
    "__version__",
    "denoise",
    "evaluate",
    "load_checkpoint",
    "open_micrograph",
    "open_store",
    "read_star",
    "simulate",
    "star_frames",
    "star_from_frames",
    "write_mrc",
    "write_star",
]


if not TYPE_CHECKING:  # or a type checker would take every name for one that is there

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'cryoplug' has no attribute {name!r}")
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
