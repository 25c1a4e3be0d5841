"""Describe this machine for the networks: devices, versions, and the kernels that would run."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

from cryoplug.workflows.inspect.inspection import Inspection


def inspect_system() -> Inspection:
    """Return a record of versions and devices, with the kernels of cryo_cnn on each device and the reason for them."""
    import torch

    from cryoplug.kernels.dispatch import choose_for_device

    devices = {"cpu": _sentence(choose_for_device(torch.device("cpu")))}
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        device = torch.device("cuda", index)
        name = f"cuda:{index} {torch.cuda.get_device_name(device)}"
        devices[name] = _sentence(choose_for_device(device))
    try:
        triton = metadata.version("triton")
    except metadata.PackageNotFoundError:
        triton = None
    summary = {"torch": torch.__version__, "cuda": torch.version.cuda, "triton": triton, "kernels": devices}
    return Inspection(Path("system"), "system", summary)


def _sentence(choice: Any) -> str:
    return f"{choice.kernels}: {choice.reason}"
