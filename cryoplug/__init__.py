"""cryoplug: denoise cryo-EM micrographs. Public names are resolved when they are first used."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "CryoplugError": "cryoplug.errors",
    "Denoiser": "cryoplug.inference.denoiser",
    "load_checkpoint": "cryoplug.models.checkpoint",
    "open_micrograph": "cryoplug.formats.registry",
    "open_store": "cryoplug.store.pairs",
    "read_star": "cryoplug.formats.star",
    "star_frames": "cryoplug.formats.star_frames",
    "star_from_frames": "cryoplug.formats.star_frames",
    "write_mrc": "cryoplug.formats.mrc",
    "write_star": "cryoplug.formats.star",
}

__all__ = [
    "CryoplugError",
    "Denoiser",
    "__version__",
    "load_checkpoint",
    "open_micrograph",
    "open_store",
    "read_star",
    "star_frames",
    "star_from_frames",
    "write_mrc",
    "write_star",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cryoplug' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
