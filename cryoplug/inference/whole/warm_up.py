"""Load the kernels that measure and crop a micrograph while the network is built: each takes the driver milliseconds at first."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from cryoplug.errors import CryoplugError
from cryoplug.machine.devices import only, resolve_device

if TYPE_CHECKING:
    import torch


def begin_warm_up(device: str) -> threading.Thread | None:
    """Measure and crop a few pixels on a GPU, in a thread; whatever goes wrong, the first micrograph will say it better.

    Parameters
    ----------
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Returns
    -------
    Thread or None
        For tests; None where there is no GPU.
    """
    with contextlib.suppress(CryoplugError):
        resolved = resolve_device(device)
        if resolved.type == "cuda":
            thread = threading.Thread(target=_warm_up, args=(resolved,), name="cryoplug-warm-up", daemon=True)
            thread.start()
            return thread
    return None


def _warm_up(device: torch.device) -> None:
    with contextlib.suppress(CryoplugError, RuntimeError):
        warm_up(device)


def warm_up(device: torch.device) -> None:
    """Do to a few pixels what is done to each micrograph before the network and after it."""
    import torch

    from cryoplug.inference.whole.pixels import DevicePixels, repair, written_numbers
    from cryoplug.inference.whole.regrid import resample_image

    with torch.inference_mode(), only(device):
        pixels = torch.rand(96, 128, device=device)
        repair(pixels)
        measured = DevicePixels(resample_image(pixels, (48, 64)), Path("<warm-up>"))
        measured.statistics()
        measured.quantiles([0.5])
        written_numbers(pixels, pixels)
