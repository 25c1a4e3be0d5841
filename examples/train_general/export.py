"""Write a trained general model as the checkpoint folder that cryoplug ships."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

if TYPE_CHECKING:
    from train import Plan

ANGPIX, ANGPIX_RANGE = 2.6, (2.0, 5.0)
"""What the network sees: finer micrographs are cropped to the first, others are taken as they are within the range."""


def export_checkpoint(
    folder: Path, weights: dict[str, torch.Tensor], config: dict[str, Any], plan: Plan, step: int
) -> None:
    """Write ``model.safetensors`` in half precision and ``checkpoint.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.half().contiguous() for name, value in weights.items()}, folder / "model.safetensors")
    record = {
        "format_version": 1,
        "model": "unet",
        "config": config,
        "normalize": "robust",
        "pixel_size_angstrom": ANGPIX,
        "angpix": ANGPIX,
        "angpix_range": list(ANGPIX_RANGE),
        "training": {**vars(plan), "steps": step},
    }
    (folder / "checkpoint.json").write_text(json.dumps(record, indent=1) + "\n")
