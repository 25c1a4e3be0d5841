"""Choose between the plain layers and the fused GPU kernels, and say why."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from cryoplug.kernels.fused import FusedCryoCNN

VARIABLE = "CRYOPLUG_KERNELS"
"""Environment variable: ``auto`` or ``plain``."""
TESTED_CAPABILITIES = ((9, 0),)
"""Generations of NVIDIA cards on which the kernels were compared with the plain layers: 9.0 is Hopper (H100, H200)."""
_FUSED_NETWORK = "cryo_cnn"


@dataclass(frozen=True)
class KernelChoice:
    """How a network runs on a device."""

    kernels: str
    """``plain`` (the layers of torch), ``fused`` (those of `cryo_cnn`) or ``blocks`` (those of a U-Net)."""
    reason: str
    """Why, in words."""


def choose_kernels(module: nn.Module, device: torch.device) -> KernelChoice:
    """Choose the kernels for a network on a device.

    The fused kernels compute only `cryo_cnn`; a network claims them by its attribute ``fused_kernels``.
    """
    if getattr(module, "fused_kernels", None) != _FUSED_NETWORK:
        return KernelChoice("plain", f"the fused kernels compute {_FUSED_NETWORK} alone")
    if any(parameter.dtype != torch.float32 for parameter in module.parameters()):
        return KernelChoice("plain", "the weights are not float32")
    return choose_for_device(device)


def choose_blocks(module: nn.Module, device: torch.device) -> KernelChoice:
    """Choose the kernels for a network in half precision: ``blocks`` for a U-Net that `cryoplug.kernels.block_unet` knows."""
    from cryoplug.kernels.block_unet import why_not

    if reason := why_not(module):
        return KernelChoice("plain", f"the kernels on blocks of pixels are not for it: {reason}")
    choice = choose_for_device(device)
    if choice.kernels == "plain":
        return choice
    return KernelChoice("blocks", "a U-Net on a tested GPU; half precision inside, float32 sums")


def choose_for_device(device: torch.device) -> KernelChoice:
    """Choose the kernels for `cryo_cnn` on a device; this does not import Triton."""
    asked = os.environ.get(VARIABLE, "auto")
    if asked == "plain":
        return KernelChoice("plain", f"{VARIABLE}=plain")
    if device.type != "cuda":
        return KernelChoice("plain", "the fused kernels need an NVIDIA GPU")
    if torch.version.cuda is None:
        return KernelChoice("plain", "the fused kernels were not tested on this kind of GPU")
    capability = torch.cuda.get_device_capability(device)
    if capability not in TESTED_CAPABILITIES:
        tested = ", ".join(f"{major}.{minor}" for major, minor in TESTED_CAPABILITIES)
        found = ".".join(map(str, capability))
        return KernelChoice("plain", f"compute capability {found} (tested with the fused kernels: {tested})")
    if importlib.util.find_spec("triton") is None:
        return KernelChoice("plain", "the package triton is not installed")
    if not os.environ.get("CC") and not any(map(shutil.which, ("gcc", "clang"))):
        return KernelChoice("plain", "triton finds no C compiler (gcc or clang, or what CC names)")
    return KernelChoice("fused", "cryo_cnn on a tested GPU; half precision inside, float32 sums and weights")


@functools.cache
def kernels_were_tested(device: torch.device) -> bool:
    """Say whether kernels for single layers may run on a device: its kind was tested, and they can be built here."""
    return choose_for_device(device).kernels == "fused" and _can_be_built(device)


def _can_be_built(device: torch.device) -> bool:
    from cryoplug.kernels import triton_trained

    pixel, four = torch.zeros(1, device=device), torch.zeros(4, device=device)
    try:
        triton_trained.repeat_pixels[(1,)](pixel, four, 1, 1, 1.0, CHANNELS=1, PADDED=16, ROWS=16)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # noqa: BLE001 - an older Triton, a compiler that fails: the layers compute the same
        return False
    return True


def fused_network(parameters: Sequence[torch.Tensor], *, batch: int, height: int, width: int) -> FusedCryoCNN:
    """Give the fused kernels with buffers for images of this shape; call it only if `choose_kernels` said ``fused``."""
    from cryoplug.kernels.fused import FusedCryoCNN

    return FusedCryoCNN(parameters, batch=batch, height=height, width=width)
