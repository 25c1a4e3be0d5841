"""Run a convolutional network over bands of rows, one band a thread, in bounded memory, forward and backward.

A band is read together with the neighbouring rows within the receptive field. So its output rows and their gradients are
those of the whole image; zero padding acts only at the image's own border. Bands are independent: each runs on one thread.
Sums are taken in the order of the bands, so the result does not depend on the number of threads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from cryoplug.errors import UsageError
from cryoplug.kernels.losses import loss_slope, loss_sum

Item = TypeVar("Item")
Result = TypeVar("Result")

BANDS_PER_STEP = 32
"""Bands of a batch: they keep up to so many cores busy, with little idle time at the end of a step. It is not the number of
cores, because sums are taken band by band, and a run may go on on another machine."""
LEAST_BAND_PIXELS = 128 * 1024
"""Least pixels that a band keeps; so a small batch has fewer bands. cryo_cnn in batches of 8 x 1024 x 1024 on two cores: 6.7
images/s in bands of 64 rows, 7.6 of 128, 8.0 of 256, 8.3 of 512 (benchmarks/cpu_training.py --bands)."""
MOST_BAND_VALUES = 75_000_000
"""Most output values of all layers together in a band: 300 MB; the backward pass needs less."""


@dataclass(frozen=True)
class Band:
    """The rows to read, and the rows of the result to keep; all are rows of the image."""

    read_start: int
    """First row read; a multiple of the network's size multiple."""
    read_stop: int
    """One past the last row read."""
    start: int
    """First row kept."""
    stop: int
    """One past the last row kept."""


def plan_bands(height: int, *, receptive_field_px: int, band_rows: int, size_multiple: int = 1) -> tuple[Band, ...]:
    """Cut `height` rows into bands; every row is kept exactly once.

    Parameters
    ----------
    height
        Rows of the image, at least 1.
    receptive_field_px
        Extra rows on each side, rounded up to a multiple of `size_multiple` and clipped at the image border.
    band_rows
        Rows kept per band, rounded up to a multiple of `size_multiple`; the last band may be shorter.
    size_multiple
        Product of the network's pooling strides: bands start and end on multiples of it, or at the image's end.
    """
    if height < 1 or band_rows < 1 or receptive_field_px < 0 or size_multiple < 1:
        raise UsageError(
            f"bands: height {height}, band_rows {band_rows}, size_multiple {size_multiple} (allowed: 1 or more), "
            f"receptive_field_px {receptive_field_px} (allowed: 0 or more); correct the call"
        )
    step = -(-band_rows // size_multiple) * size_multiple
    halo = -(-receptive_field_px // size_multiple) * size_multiple
    return tuple(
        Band(max(0, start - halo), min(height, start + step + halo), start, min(height, start + step))
        for start in range(0, height, step)
    )


def default_band_rows(module: nn.Module, shape: Sequence[int], *, receptive_field_px: int) -> int:
    """Choose the height of a band for a batch ``(b, c, y, x)``: high, but enough bands, and few extra rows."""
    values_per_pixel = sum(layer.out_channels for layer in module.modules() if isinstance(layer, nn.Conv2d))
    batch, _, height, width = shape
    pixels = max(LEAST_BAND_PIXELS, batch * height * width // BANDS_PER_STEP)
    pixels = min(pixels, MOST_BAND_VALUES // max(1, values_per_pixel))
    return max(8, 4 * receptive_field_px, pixels // width)


@contextlib.contextmanager
def band_workers(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Give a pool that runs one band per thread; meanwhile torch uses one thread for each band.

    If each layer were split over the cores, they would wait for one another at every layer.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="cryoplug-band") as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


def mean_loss(
    module: nn.Module,
    noisy: torch.Tensor,
    clean: torch.Tensor,
    *,
    receptive_field_px: int,
    band_rows: int,
    size_multiple: int = 1,
    pool: ThreadPoolExecutor | None = None,
    loss: str = "mse",
    bf16: bool = False,
) -> float:
    """Return the mean loss of ``module(noisy)`` against `clean`, both ``(b, 1, y, x)``, without gradients."""
    units = _units(noisy, receptive_field_px=receptive_field_px, band_rows=band_rows, size_multiple=size_multiple)

    def compute(unit: tuple[int, Band]) -> float:
        with torch.inference_mode():
            return loss_sum(_difference(module, noisy, clean, unit, bf16)[1], loss)

    return sum(_in_order(pool, compute, units)) / clean.numel()


def loss_and_gradients(
    module: nn.Module,
    noisy: torch.Tensor,
    clean: torch.Tensor,
    *,
    receptive_field_px: int,
    band_rows: int,
    size_multiple: int = 1,
    pool: ThreadPoolExecutor | None = None,
    loss: str = "mse",
    bf16: bool = False,
) -> tuple[float, list[torch.Tensor]]:
    """Return the mean loss and its gradient by every parameter, computed band by band.

    Parameters
    ----------
    module, receptive_field_px, band_rows, size_multiple, pool
        The network maps ``(b, c, y, x)`` to ``(b, c', y, x)``, and a pixel depends only on pixels within
        `receptive_field_px`. On the CPU it is fastest in ``torch.channels_last``.
    noisy, clean
        ``(b, 1, y, x)``, equal shapes.
    loss
        ``mse``, ``l1`` or ``charbonnier``; see `cryoplug.kernels.losses`.
    bf16
        Whether layers compute in bfloat16, as torch's autocast chooses; weights, loss and gradients stay float32.

    Returns
    -------
    tuple
        The loss, and gradients in the order of ``module.parameters()``. They equal those of the whole batch to rounding, and
        are bit for bit the same for every number of threads.
    """
    units = _units(noisy, receptive_field_px=receptive_field_px, band_rows=band_rows, size_multiple=size_multiple)
    parameters = list(module.parameters())
    scale = 1.0 / clean.numel()

    def compute(unit: tuple[int, Band]) -> tuple[float, Sequence[torch.Tensor]]:
        with torch.enable_grad():
            output, difference = _difference(module, noisy, clean, unit, bf16)
        part, band = loss_sum(difference, loss), unit[1]
        slope = torch.zeros_like(output)
        slope[:, :, band.start - band.read_start : band.stop - band.read_start] = loss_slope(
            difference, loss, scale=scale
        )
        return part, torch.autograd.grad(output, parameters, slope)

    total = 0.0
    gradients: list[torch.Tensor] = []
    for part, parts in _in_order(pool, compute, units):
        total += part
        if gradients:
            for gradient, addend in zip(gradients, parts, strict=True):
                gradient += addend
        else:
            gradients = [gradient.clone() for gradient in parts]
    return total / clean.numel(), gradients


def _difference(
    module: nn.Module, noisy: torch.Tensor, clean: torch.Tensor, unit: tuple[int, Band], bf16: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    index, band = unit
    # Said in each thread, and without a cache of rounded weights, which must not outlive the step.
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16, cache_enabled=False):
        output = module(_rows(noisy[index : index + 1], band)).to(noisy.dtype)
    kept = output.detach()[:, :, band.start - band.read_start : band.stop - band.read_start]
    return output, kept - clean[index : index + 1, :, band.start : band.stop]


def _rows(images: torch.Tensor, band: Band) -> torch.Tensor:
    return images[:, :, band.read_start : band.read_stop].contiguous()


def _units(
    noisy: torch.Tensor, *, receptive_field_px: int, band_rows: int, size_multiple: int
) -> list[tuple[int, Band]]:
    bands = plan_bands(
        noisy.shape[2], receptive_field_px=receptive_field_px, band_rows=band_rows, size_multiple=size_multiple
    )
    return [(index, band) for index in range(noisy.shape[0]) for band in bands]


def _in_order(
    pool: ThreadPoolExecutor | None, compute: Callable[[Item], Result], items: Sequence[Item]
) -> Iterator[Result]:
    return map(compute, items) if pool is None else pool.map(compute, items)
