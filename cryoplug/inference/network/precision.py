"""The precision in which a GPU computes the hidden values of a network.

docs/decisions/0014-whole-micrographs-on-gpus.md has the figures behind ``auto``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryoplug.errors import DeviceError, UsageError

if TYPE_CHECKING:
    import torch

    from cryoplug.models.registry import ModelSpec

PRECISIONS = ("auto", "float32", "float16", "bf16")
"""Values of ``--precision``."""
MEASURED_IN_FLOAT16 = ("cryo_cnn", "residual_cnn", "unet")
"""Networks whose results in float16 were compared with those in float32."""
_LEAST_CAPABILITY = {"float16": (7, 0), "bf16": (8, 0)}
"""First NVIDIA generations with matrix units for these types: Volta, Ampere."""


def choose_precision(asked: str, spec: ModelSpec, device: torch.device, *, normalize: str) -> str:
    """Choose ``float32``, ``float16`` or ``bf16``.

    ``auto`` takes float16 if the GPU has matrix units for it, the network was compared in it, and the pixels are normalised.
    (For raw counts around 7000, float16 would round away all contrast.) Sums and weights stay float32 or better.

    Parameters
    ----------
    asked
        One of `PRECISIONS`.
    spec
        The network.
    device
        Where it runs.
    normalize
        Normalization of the pixels before it.

    Raises
    ------
    UsageError
        It is not one of these, or it needs a GPU.
    DeviceError
        The GPU cannot compute in it.
    """
    if asked not in PRECISIONS:
        raise UsageError(f"precision {asked!r} (allowed: {', '.join(PRECISIONS)})")
    if asked == "auto":
        sound = spec.id in MEASURED_IN_FLOAT16 and not spec.uses_whole_image and normalize != "none"
        return "float16" if sound and _has(device, "float16") else "float32"
    if asked != "float32" and device.type != "cuda":
        raise UsageError(f"--precision {asked} is for GPUs; on {device} use auto or float32")
    if asked != "float32" and not _has(device, asked):
        raise DeviceError(f"{device}: this GPU has no units for {asked}; use --precision auto")
    return asked


def _has(device: torch.device, precision: str) -> bool:
    import torch

    return device.type == "cuda" and (
        torch.version.cuda is None or torch.cuda.get_device_capability(device) >= _LEAST_CAPABILITY[precision]
    )
