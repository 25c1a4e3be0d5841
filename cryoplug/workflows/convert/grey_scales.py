"""Choose one normalization for all micrographs of a store, by their grey values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from cryoplug.core.grey_scale import GreyScale, measure_grey_scale
from cryoplug.core.micrograph import MicrographSource
from cryoplug.core.pixel_size import known_pixel_size
from cryoplug.errors import CryoplugError
from cryoplug.formats import registry
from cryoplug.inputs.discovered import DiscoveredMicrograph
from cryoplug.inputs.pairing import PairedInput
from cryoplug.workflows.convert.request import AUTO, ConvertRequest

MOST_MICROGRAPHS = 8
"""Most micrographs to look at, spread over the list: one program wrote all of them, so their grey values are alike."""
SAMPLED_BANDS = 64
"""Bands of rows to read of each micrograph, spread over its height."""


def with_normalization(
    request: ConvertRequest, pairs: Sequence[PairedInput], note: Callable[[str], None]
) -> ConvertRequest:
    """Choose the normalization of a request that leaves it open.

    With ``--pairs noise`` it is percentile if the grey values are counts from zero up in every micrograph that is looked at,
    else zscore. Halves and clean partners always take zscore: the clip of percentile would cut off a part of their noise, and
    then learning from a noisy target would not work.

    Parameters
    ----------
    request
        As the user gave it.
    pairs
        Its inputs.
    note
        Called with a sentence: what was chosen, and why.
    """
    if request.normalize not in (None, AUTO) or request.pairs != "noise":
        return replace(request, normalize=request.kind)
    looked_at = 0
    for place in np.unique(np.linspace(0, len(pairs) - 1, min(MOST_MICROGRAPHS, len(pairs))).astype(int)):
        item = pairs[place].noisy
        found = _grey_scale(item, request)
        if found is None:
            continue
        looked_at += 1
        if not found.counts_from_zero:
            note(
                f"normalize: zscore, because {item.path.name} does not hold counts from zero up ({found.words}); give "
                "--normalize percentile if you want the founding recipe"
            )
            return replace(request, normalize="zscore")
    if looked_at:
        note("normalize: percentile, because the grey values are counts from zero up (the founding recipe)")
    return replace(request, normalize="percentile")


def _grey_scale(item: DiscoveredMicrograph, request: ConvertRequest) -> GreyScale | None:
    """Look at a micrograph; None if it cannot be read, because it will fail later by name."""
    try:
        section = {} if item.section is None else {"section": item.section}
        with registry.open_micrograph(item.path, **section) as source:
            known = known_pixel_size(request.pixel_size, item.pixel_size_angstrom, source.pixel_size_angstrom)
            size, angpix = known.angstrom, request.angpix
            block = max(1, round(angpix / size)) if angpix and size else 1
            return measure_grey_scale(_sample(source, block))
    except CryoplugError:
        return None


def _sample(source: MicrographSource, block: int) -> np.ndarray:
    """Give means of blocks of pixels, as large as the pixels after the Fourier crop, in bands over the micrograph."""
    height, width = (side // block for side in source.shape)
    if not height * width:
        block, (height, width) = 1, source.shape
    bands = np.unique(np.linspace(0, height - 1, min(SAMPLED_BANDS, height)).astype(int))
    rows = [source.read_rows(int(band) * block, (int(band) + 1) * block)[:, : width * block] for band in bands]
    return np.stack(rows).reshape(len(bands), block, width, block).mean(axis=(1, 3))
