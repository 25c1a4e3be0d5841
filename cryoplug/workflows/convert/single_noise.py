"""Measure the noise of single exposures while they are converted, and refuse those whose noise cannot be measured."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from cryoplug.core.micrograph import MicrographSource
from cryoplug.core.normalization import Normalization, check_usable
from cryoplug.core.statistics import scan_pixels
from cryoplug.errors import PixelError, ShapeError
from cryoplug.metrics.micrograph_noise import MicrographNoise
from cryoplug.metrics.noise_power import (
    JUDGED_FROM,
    JUDGED_TO,
    NoiseLaw,
    block_side,
    block_spectrum,
    counted_law,
    fit_noise_law,
)
from cryoplug.metrics.noise_shape import NoiseShape, measure_shape

MOST_BLOCKS_A_SIDE = 12
"""Most blocks of 512 pixels to measure, in each direction: 38 million pixels in all."""
WHAT_TO_DO = (
    "train on halves (--pairs halves), denoise with the general model, or give --accept-unproven to take it anyway"
)


def measure_law(source: MicrographSource, *, pixel_size_angstrom: float | None, part: float) -> NoiseLaw:
    """Measure the noise of a micrograph on its own grid.

    Parameters
    ----------
    source
        The micrograph as it is in the file.
    pixel_size_angstrom
        Its pixel size; None if unknown.
    part
        Side of the network's grid over that of the micrograph's own grid.

    Raises
    ------
    ShapeError
        It is too small to measure.
    PixelError
        Pixels are not finite, or all equal.
    """
    side = block_side(source.shape)
    if side == 0:
        raise ShapeError(
            f"{source.path}: {source.shape[0]}x{source.shape[1]} pixels (y, x); to measure the noise of a single exposure, "
            "128 or more a side are needed; leave it out"
        )
    statistics = scan_pixels(source)
    check_usable(source, statistics)
    whole = statistics.minimum >= 0

    def watched() -> Iterator[np.ndarray]:
        nonlocal whole
        for block in _blocks(source, side):
            whole = whole and bool((block == np.rint(block)).all())
            yield block

    spectrum = block_spectrum(watched(), shape=source.shape)
    counted = counted_law(spectrum, mean=statistics.mean, whole_numbers=whole)
    judged = JUDGED_FROM * part, JUDGED_TO * part
    return counted or fit_noise_law(spectrum, pixel_size_angstrom=pixel_size_angstrom, judged=judged)


def describe_noise(
    law: NoiseLaw, network: MicrographSource, normalization: Normalization, *, part: float
) -> MicrographNoise:
    """Bring a law to the network's grid, and measure there the properties that a spectrum does not show.

    Parameters
    ----------
    law
        From `measure_law`.
    network
        The micrograph on the network's grid.
    normalization
        The normalization fitted to it; its scale is used.
    part
        Side of the network's grid over that of the micrograph's own.
    """
    bare = MicrographNoise.of(law, part=part, scale=normalization.scale)
    side = block_side(network.shape)
    if side == 0:
        return bare
    blocks = (normalization.apply(block) for block in _blocks(network, side))
    shape = measure_shape(blocks, np.array(bare.power), cropped=part < 1)
    if law.source == "counts":
        # Known better than it can be measured: a pixel of the finer grid collects so many counts.
        mean = float(law.power[0])
        counts = mean / (part * shape.oversampling) ** 2
        shape = NoiseShape(1 / math.sqrt(counts), normalization.scale / mean, shape.oversampling)
    return MicrographNoise.of(law, part=part, scale=normalization.scale, shape=shape)


def check_trust(noise: MicrographNoise, source: MicrographSource, *, accept_unproven: bool) -> list[str]:
    """Raise an error if the noise of a micrograph cannot be trusted; if the user accepts that, give a remark.

    Raises
    ------
    PixelError
        The noise cannot be trusted.
    """
    if noise.trusted:
        return []
    if not accept_unproven:
        raise PixelError(f"{source.path}: {noise.problem}; {WHAT_TO_DO}")
    return [f"taken although its noise is not known well ({noise.problem}): compare the result with a Gaussian"]


def _blocks(source: MicrographSource, side: int) -> Iterator[np.ndarray]:
    """Give blocks that overlap by half; in large micrographs they lie farther apart, so that there are not too many."""
    starts = [_starts(length, side) for length in source.shape]
    for y in starts[0]:
        rows = source.read_rows(y, y + side)
        for x in starts[1]:
            yield np.ascontiguousarray(rows[:, x : x + side])


def _starts(length: int, side: int) -> list[int]:
    count = min(2 * (length - side) // side + 1, MOST_BLOCKS_A_SIDE)
    return sorted({int(start) for start in np.linspace(0, length - side, count)})
