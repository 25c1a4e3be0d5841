"""The arithmetic of one step: loss and gradients on the CPU in row bands, on a GPU batch by batch."""

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
from cryoplug.kernels.memory import keep_allocator_memory
from cryoplug.models.registry import ModelSpec

if TYPE_CHECKING:
    from cryoplug.kernels.fused import FusedCryoCNN

_STEPS_KEPT = 8
"""Recorded steps: one for each buffer of the loader and each size of a batch."""


class Engine(abc.ABC):
    """Computes the loss of a network on batches ``(b, 1, y, x)``."""

    kernels = "plain"
    """``plain`` or ``fused``: see `cryoplug.kernels.dispatch`."""

    def __init__(self, module: nn.Module, *, loss: str = "mse") -> None:
        self.module = module
        self.loss_name = loss

    @contextlib.contextmanager
    def heeding(self, heed: Callable[[], None]) -> Iterator[None]:
        """Call `heed` before every piece of a batch is computed, from any thread; what it raises ends the batch.

        A batch of 8 patches of 1024x1024 through residual_cnn takes 50 s on 2 cores, a piece of it 2 s.
        """
        handle = self.module.register_forward_pre_hook(lambda module, inputs: heed())
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
    """The CPU: row bands whose activations stay in cache, one band a thread."""

    def __init__(self, module: nn.Module, spec: ModelSpec, pool: ThreadPoolExecutor, *, width: int, loss: str) -> None:
        super().__init__(module, loss=loss)
        self._options: dict[str, Any] = {
            "receptive_field_px": spec.receptive_field_px,
            "size_multiple": spec.size_multiple,
            "band_rows": default_band_rows(width, receptive_field_px=spec.receptive_field_px),
            "pool": pool,
            "loss": loss,
        }

    def loss_and_gradients(self, noisy: torch.Tensor, clean: torch.Tensor) -> tuple[float, list[torch.Tensor]]:
        """Return the mean loss and its gradient by every parameter."""
        with _memory_errors(self.module, noisy):
            return loss_and_gradients(self.module, noisy, clean, **self._options)

    def loss(self, noisy: torch.Tensor, clean: torch.Tensor) -> float:
        """Return the mean loss."""
        with _memory_errors(self.module, noisy):
            return mean_loss(self.module, noisy, clean, **self._options)


class WholeBatchEngine(Engine):
    """A GPU, or a network whose layers look at the whole image: the batch in one piece."""

    def loss_and_gradients(self, noisy: torch.Tensor, clean: torch.Tensor) -> tuple[float, list[torch.Tensor]]:
        """Return the mean loss and its gradient by every parameter."""
        with _memory_errors(self.module, noisy):
            self.module.train()
            loss = mean_loss_of(self.module(noisy), clean, self.loss_name)
            gradients = torch.autograd.grad(loss, list(self.module.parameters()))
            # One wait a step: the loss must be known to be finite before the weights are touched, and the buffers of
            # this batch must be free before the next one is copied into them.
            return loss.item(), list(gradients)

    def loss(self, noisy: torch.Tensor, clean: torch.Tensor) -> float:
        """Return the mean loss."""
        with _memory_errors(self.module, noisy), torch.inference_mode():
            self.module.eval()
            return mean_loss_of(self.module(noisy), clean, self.loss_name).item()


class FusedEngine(WholeBatchEngine):
    """A GPU that the fused kernels were tested on: hidden values in half precision, sums and weights in float32.

    Where half precision overflows (hidden values beyond 65504), a batch is computed by the plain layers.
    """

    kernels = "fused"

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self._network: FusedCryoCNN | None = None
        self._steps: dict[tuple[Any, ...], _Step] = {}

    def loss_and_gradients(self, noisy: torch.Tensor, clean: torch.Tensor) -> tuple[float, list[torch.Tensor]]:
        """Return the mean squared error and its gradient by every parameter."""
        with _memory_errors(self.module, noisy):
            network = self._network_for(noisy)
            # The loader uses few buffers again and again, so that few recorded steps serve a whole run.
            key = (noisy.data_ptr(), clean.data_ptr(), noisy.shape)
            if key not in self._steps and len(self._steps) >= _STEPS_KEPT:
                self._steps.clear()
            step = self._steps.setdefault(key, _Step(network, noisy, clean))
            loss, flat = step()
            value, total = torch.stack((loss, flat.sum())).tolist()
            if math.isfinite(value) and math.isfinite(total):
                return value, network.split(flat)
        return super().loss_and_gradients(noisy, clean)

    def loss(self, noisy: torch.Tensor, clean: torch.Tensor) -> float:
        """Return the mean squared error."""
        with _memory_errors(self.module, noisy), torch.inference_mode():
            value = self._network_for(noisy).loss(noisy, clean).item()
        return value if math.isfinite(value) else super().loss(noisy, clean)

    def _network_for(self, noisy: torch.Tensor) -> FusedCryoCNN:
        if self._network is None or not self._network.fits(noisy):
            self._network, batch = None, noisy.shape[0]
            self._steps.clear()
            with torch.inference_mode(False):
                self._network = fused_network(
                    list(self.module.parameters()), batch=batch, height=noisy.shape[2], width=noisy.shape[3]
                )
        return self._network


class _Step:
    """Loss and gradients of a batch in fixed buffers: launched at first, recorded the second time, then replayed."""

    def __init__(self, network: FusedCryoCNN, noisy: torch.Tensor, clean: torch.Tensor) -> None:
        self._network, self._noisy, self._clean = network, noisy, clean
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> tuple[torch.Tensor, torch.Tensor]:
        self._calls += 1
        if self._calls == 1 or not self._noisy.is_cuda:
            return self._network.loss_and_gradients(self._noisy, self._clean)
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            # The loader's thread goes on copying meanwhile, which a recording that minds all threads would refuse.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._result = self._network.loss_and_gradients(self._noisy, self._clean)
        self._graph.replay()
        return self._result


@contextlib.contextmanager
def open_engine(
    module: nn.Module, spec: ModelSpec, *, device: torch.device, threads: int, width: int, loss: str = "mse"
) -> Iterator[Engine]:
    """Move a network to the device and give the engine that suits it.

    Parameters
    ----------
    module, spec
        The network and its registry entry.
    device
        Where to compute.
    threads
        CPU threads.
    width
        Of the patches, in pixels; decides the height of a band.
    loss
        See `cryoplug.kernels.losses`.
    """
    with _memory_errors(module, None):
        # The fused kernels compute the mean squared error.
        fused = loss == "mse" and choose_kernels(module, device).kernels == "fused"
        layout = torch.contiguous_format if fused else torch.channels_last
        module.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    if device.type == "cuda":
        with _deterministic_cudnn(), torch.cuda.device(device):
            yield FusedEngine(module) if fused else WholeBatchEngine(module, loss=loss)
        return
    keep_allocator_memory()
    if not bands_are_exact(module):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            yield WholeBatchEngine(module, loss=loss)
        finally:
            torch.set_num_threads(before)
        return
    with band_workers(threads) as pool:
        yield BandEngine(module, spec, pool, width=width, loss=loss)


def bands_are_exact(module: nn.Module) -> bool:
    """Say whether a band gives what the whole image gives: not with layers that average over batch or image."""
    averaging = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
    return not any(isinstance(layer, averaging) for layer in module.modules())


def choose_device(name: str) -> torch.device:
    """Return the device that ``--device`` names.

    Raises
    ------
    DeviceError
        The name is not known, or a GPU was asked for that is not there.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda:0" if count else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind != "cuda" or (":" in name and not number.isdecimal()):
        raise DeviceError(f"--device {name!r} is not known (allowed: auto, cpu, cuda, cuda:N); correct it")
    index = int(number or 0)
    if index >= count:
        found = f"{count} found" if count else f"none found by torch {torch.__version__}"
        raise DeviceError(f"--device {name}: there is no such GPU ({found}); give --device cpu or auto")
    return torch.device("cuda", index)


def fingerprint(device: torch.device, *, threads: int | None) -> dict[str, Any]:
    """Return what the last bits of a result depend on: versions and machine.

    `threads` is None where the result does not depend on their number.
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
def _memory_errors(module: nn.Module, batch: torch.Tensor | None) -> Iterator[None]:
    """Turn a refusal of memory into an error that says what is needed, and what to do."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        # What follows is advice on the allocator's settings.
        raise _too_little(module, batch, str(error).split("\n")[0].split(". Including")[0]) from error
    except RuntimeError as error:
        text = str(error).split("\n")[0]
        if (
            "can't allocate memory" in str(error)
            or "CUDA error: out of memory" in text
            or "STATUS_ALLOC_FAILED" in text
        ):
            raise _too_little(module, batch, text) from error
        raise


def _too_little(module: nn.Module, batch: torch.Tensor | None, found: str) -> DeviceError:
    if batch is None:
        return DeviceError(f"out of memory for the network itself ({found}); free memory, or give --device cpu")
    size, _, height, width = batch.shape
    need = f"a batch of {size} patches of {height}x{width} needs about {_batch_bytes(module, batch) / 2**30:.1f} GiB"
    advice = f"--batch-size {size // 2}" if size > 1 else "smaller patches (convert --patch-size)"
    return DeviceError(f"out of memory: {need} ({found}); give {advice}, or free memory")


def _batch_bytes(module: nn.Module, batch: torch.Tensor) -> float:
    """Estimate what a step takes: the output of each convolution, and a part of the gradients.

    Measured on an H100 with residual_cnn and 8 patches of 1024x1024: 13.3 GiB, the estimate is 13.9.
    """
    channels = sum(layer.out_channels for layer in module.modules() if isinstance(layer, nn.Conv2d))
    return batch.numel() * batch.element_size() * (2 + 1.25 * channels)
