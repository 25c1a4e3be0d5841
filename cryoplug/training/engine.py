"""The arithmetic of one step: loss and gradients, on a CPU in bands of rows, on a GPU batch by batch."""

from __future__ import annotations

import abc
import contextlib
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cryoplug.errors import DeviceError
from cryoplug.kernels.bands import band_workers, default_band_rows, loss_and_gradients, mean_loss
from cryoplug.kernels.dispatch import choose_kernels, fused_network
from cryoplug.kernels.losses import mean_loss_of
from cryoplug.machine.allocator import keep_allocator_memory
from cryoplug.machine.devices import OutOfDeviceMemory, device_errors
from cryoplug.models.registry import ModelSpec

if TYPE_CHECKING:
    from cryoplug.kernels.fused import FusedCryoCNN

MOST_RECORDED_PIXELS = 1 << 20
"""Largest batch, in pixels, that is recorded once and replayed; a recording does not share its memory."""


class Engine(abc.ABC):
    """Computes the loss of a network on batches ``(b, 1, y, x)``."""

    kernels = "plain"
    """Kernels that it uses, ``plain`` or ``fused``: see `cryoplug.kernels.dispatch`."""

    def __init__(self, module: nn.Module, *, loss: str = "mse") -> None:
        self.module = module
        self.loss_name = loss

    @contextlib.contextmanager
    def looking(self, look: Callable[[], None]) -> Iterator[None]:
        """Call `look` before each piece of a batch is computed, from any thread; an error from it ends the batch.

        A batch of 8 patches of 1024x1024 through residual_cnn takes 50 s on 2 cores, a piece of it 2 s.
        """
        handle = self.module.register_forward_pre_hook(lambda module, inputs: look())
        try:
            yield
        finally:
            handle.remove()

    @abc.abstractmethod
    def loss_and_gradients(self, noisy: torch.Tensor, clean: torch.Tensor) -> tuple[float, list[torch.Tensor]]:
        """Return the mean loss and its gradient by every parameter."""

    @abc.abstractmethod
    def loss(self, noisy: torch.Tensor, clean: torch.Tensor) -> float:
        """Return the mean loss."""


class BandEngine(Engine):
    """For a CPU: bands of rows, one for each thread; `precision` as for `WholeBatchEngine`."""

    def __init__(
        self, module: nn.Module, spec: ModelSpec, pool: ThreadPoolExecutor, *, loss: str, precision: str = "float32"
    ) -> None:
        super().__init__(module, loss=loss)
        self.precision = precision
        self._spec = spec
        self._pool = pool

    def loss_and_gradients(self, noisy: torch.Tensor, clean: torch.Tensor) -> tuple[float, list[torch.Tensor]]:
        """Return the mean loss and its gradient by every parameter."""
        with memory_errors(self.module, noisy):
            return loss_and_gradients(self.module, noisy, clean, **self._options(noisy))

    def loss(self, noisy: torch.Tensor, clean: torch.Tensor) -> float:
        """Return the mean loss."""
        with memory_errors(self.module, noisy):
            return mean_loss(self.module, noisy, clean, **self._options(noisy))

    def _options(self, noisy: torch.Tensor) -> dict[str, Any]:
        radius = self._spec.receptive_field_px
        return {
            "receptive_field_px": radius,
            "size_multiple": self._spec.size_multiple,
            "band_rows": default_band_rows(self.module, noisy.shape, receptive_field_px=radius),
            "pool": self._pool,
            "loss": self.loss_name,
            "bf16": self.precision == "bf16",
        }


class WholeBatchEngine(Engine):
    """For a GPU, or a network whose layers see the whole image: computes a batch in one piece.

    Parameters
    ----------
    module
        The network, float32.
    loss
        See `cryoplug.kernels.losses`.
    precision
        ``bf16``: layers compute in bfloat16 where torch's autocast says so; weights, sums of the loss and the optimizer
        stay float32. ``float32``: nothing is rounded.
    """

    def __init__(self, module: nn.Module, *, loss: str = "mse", precision: str = "float32") -> None:
        super().__init__(module, loss=loss)
        self.precision = precision
        self._device_type = next((parameter.device.type for parameter in module.parameters()), "cpu")

    @contextlib.contextmanager
    def looking(self, look: Callable[[], None]) -> Iterator[None]:
        """Call `look` only before the batch is computed; on a GPU a batch takes little time."""
        with super().looking(look) if self._device_type == "cpu" else contextlib.nullcontext():
            yield

    def worth_recording(self, noisy: torch.Tensor) -> bool:
        """Say whether a step is so small that launching its kernels one by one may take longer than running them."""
        return noisy.is_cuda and noisy.numel() <= MOST_RECORDED_PIXELS

    def enqueue(self, noisy: torch.Tensor, clean: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the mean loss and its gradient by every parameter, on the device, without waiting for it."""
        self.module.train()
        output = self._forward(noisy)
        loss = mean_loss_of(output, clean, self.loss_name)
        gradients = torch.autograd.grad(loss, list(self.module.parameters()))
        return loss, list(gradients)

    def loss_and_gradients(self, noisy: torch.Tensor, clean: torch.Tensor) -> tuple[float, list[torch.Tensor]]:
        """Return the mean loss and its gradient by every parameter."""
        with memory_errors(self.module, noisy):
            loss, gradients = self.enqueue(noisy, clean)
            return loss.item(), gradients

    def loss(self, noisy: torch.Tensor, clean: torch.Tensor) -> float:
        """Return the mean loss."""
        with memory_errors(self.module, noisy), torch.inference_mode():
            self.module.eval()
            return mean_loss_of(self._forward(noisy), clean, self.loss_name).item()

    def _forward(self, noisy: torch.Tensor) -> torch.Tensor:
        if self.precision == "float32":
            return self.module(noisy)
        # Without its cache of rounded weights, which must not outlive a step that is recorded.
        with torch.autocast(self._device_type, dtype=torch.bfloat16, cache_enabled=False):
            return self.module(noisy).float()


class FusedEngine(WholeBatchEngine):
    """For GPUs on which the fused kernels were tested: hidden values in half precision, sums and weights in float32.

    If half precision overflows (hidden values beyond 65504), the plain layers compute the batch.

    Parameters
    ----------
    module
        `cryo_cnn`.
    batch_size
        Largest batch; 0 takes the size of the first batch.
    """

    kernels = "fused"

    def __init__(self, module: nn.Module, *, batch_size: int = 0) -> None:
        super().__init__(module)
        self._batch_size = batch_size
        self._network: FusedCryoCNN | None = None

    def worth_recording(self, noisy: torch.Tensor) -> bool:
        """Say yes on a GPU, because a dozen small kernels surround the three large ones."""
        return noisy.is_cuda

    def enqueue(self, noisy: torch.Tensor, clean: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the mean squared error and its gradient by every parameter; infinite or NaN after an overflow."""
        network = self._network_for(noisy)
        loss, flat = network.loss_and_gradients(noisy, clean)
        return loss, network.split(flat)

    def loss_and_gradients(self, noisy: torch.Tensor, clean: torch.Tensor) -> tuple[float, list[torch.Tensor]]:
        """Return the mean squared error and its gradient by every parameter."""
        with memory_errors(self.module, noisy):
            loss, gradients = self.enqueue(noisy, clean)
            sums = torch.stack((loss, *(gradient.sum() for gradient in gradients))).tolist()
            if all(map(math.isfinite, sums)):
                return sums[0], gradients
            plain = super().enqueue(noisy, clean)
            return plain[0].item(), plain[1]

    def loss(self, noisy: torch.Tensor, clean: torch.Tensor) -> float:
        """Return the mean squared error."""
        with memory_errors(self.module, noisy), torch.inference_mode():
            value = self._network_for(noisy).loss(noisy, clean).item()
        return value if math.isfinite(value) else super().loss(noisy, clean)

    def _network_for(self, noisy: torch.Tensor) -> FusedCryoCNN:
        if self._network is None or not self._network.fits(noisy):
            self._network, batch = None, max(self._batch_size, noisy.shape[0])
            with torch.inference_mode(False):
                self._network = fused_network(
                    list(self.module.parameters()), batch=batch, height=noisy.shape[2], width=noisy.shape[3]
                )
        return self._network


@contextlib.contextmanager
def open_engine(
    module: nn.Module,
    spec: ModelSpec,
    *,
    device: torch.device,
    threads: int,
    loss: str = "mse",
    precision: str = "float32",
    batch_size: int = 0,
) -> Iterator[Engine]:
    """Move a network to a device, and give the engine that suits both.

    Parameters
    ----------
    module, spec
        The network and its registry entry.
    device
        Where to compute.
    threads
        CPU threads.
    loss
        See `cryoplug.kernels.losses`.
    precision
        From `choose_precision`.
    batch_size
        Largest batch; 0 if unknown.
    """
    with memory_errors(module, None):
        # The fused kernels compute the mean squared error, in a precision of their own.
        fused = loss == "mse" and precision == "float32" and choose_kernels(module, device).kernels == "fused"
        layout = torch.contiguous_format if fused else torch.channels_last
        module.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    if device.type == "cuda":
        with _deterministic_cudnn(), torch.cuda.device(device):
            if fused:
                yield FusedEngine(module, batch_size=batch_size)
            else:
                yield WholeBatchEngine(module, loss=loss, precision=precision)
        return
    keep_allocator_memory()
    if not bands_are_exact(module):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            yield WholeBatchEngine(module, loss=loss, precision=precision)
        finally:
            torch.set_num_threads(before)
        return
    with band_workers(threads) as pool:
        yield BandEngine(module, spec, pool, loss=loss, precision=precision)


def bands_are_exact(module: nn.Module) -> bool:
    """Say whether bands give the same result as the whole image; not with layers that average over batch or image."""
    averaging = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
    return not any(isinstance(layer, averaging) for layer in module.modules())


def choose_precision(asked: str, spec: ModelSpec, device: torch.device) -> str:
    """Return ``float32`` or ``bf16`` for ``--precision``.

    ``auto`` is bf16 on devices that compute in it, for networks that were tested with it on a GPU. On a CPU, `unet` was tested.

    Raises
    ------
    DeviceError
        bf16 was asked for on another device; a CPU that must emulate it is ten times slower.
    """
    able = computes_in_bf16(device)
    if asked == "bf16" and not able:
        raise DeviceError(
            "--precision bf16 needs an NVIDIA GPU of capability 8.0 (Ampere) or later, or a processor with AMX; give float32"
        )
    return "bf16" if asked == "bf16" or (asked == "auto" and able and spec.mixed_precision) else "float32"


def computes_in_bf16(device: torch.device) -> bool:
    """Say whether a device multiplies matrices in bfloat16 faster than in float32: recent NVIDIA GPUs, processors with AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    asked = getattr(torch.cpu, "_is_amx_tile_supported", None)  # no public name yet
    return device.type == "cpu" and asked is not None and bool(asked())


def fingerprint(device: torch.device, *, threads: int | None) -> dict[str, Any]:
    """Return the versions and the machine, on which the last bits of a result depend.

    `threads` is None if the result does not depend on their number.
    """
    record: dict[str, Any] = {"torch": torch.__version__, "device": device.type, "threads": threads}
    if device.type == "cuda":
        record["gpu"] = torch.cuda.get_device_name(device)
        record["cuda"] = torch.version.cuda
        record["cudnn"] = torch.backends.cudnn.version()
    else:
        record["cpu"] = torch.backends.cpu.get_cpu_capability()
    return record


@contextlib.contextmanager
def _deterministic_cudnn() -> Iterator[None]:
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


@contextlib.contextmanager
def memory_errors(module: nn.Module, batch: torch.Tensor | None) -> Iterator[None]:
    """Turn a lack of memory into an error that says what is needed, and what to do; other errors name the GPU.

    Raises
    ------
    DeviceError
        There is too little memory, or the device failed.
    """
    try:
        with device_errors():
            yield
    except OutOfDeviceMemory as error:
        raise _too_little(module, batch, str(error)) from error


def _too_little(module: nn.Module, batch: torch.Tensor | None, found: str) -> DeviceError:
    if batch is None:
        return DeviceError(f"out of memory for the network itself ({found}); free memory, or give --device cpu")
    size, _, height, width = batch.shape
    need = f"a batch of {size} images of {height}x{width} needs about {_batch_bytes(module, batch) / 2**30:.1f} GiB"
    advice = "half the --batch-size" if size > 1 else "smaller patches (convert --patch-size)"
    return DeviceError(f"out of memory: {need} ({found}); give {advice}, or free memory")


def _batch_bytes(module: nn.Module, batch: torch.Tensor) -> float:
    """Estimate the bytes of a step: the output of each convolution, and a part of the gradients.

    Measured on an H100 with residual_cnn and 8 patches of 1024x1024: 13.3 GiB, the estimate is 13.9.
    """
    channels = sum(layer.out_channels for layer in module.modules() if isinstance(layer, nn.Conv2d))
    return batch.numel() * batch.element_size() * (2 + 1.25 * channels)
