"""The records that every checkpoint of a run has besides its weights: normalization, pixel size, data, training."""

from __future__ import annotations

from typing import Any

from cryoplug.models.checkpoint import Checkpoint
from cryoplug.workflows.train import appearance
from cryoplug.workflows.train.identity import software_versions
from cryoplug.workflows.train.opening import Opened


def checkpoint_head(opened: Opened, *, mixed: bool) -> Checkpoint:
    """Give a checkpoint without weights; `mixed` says whether halves are mixed."""
    request, store, start = opened.request, opened.store, opened.start
    manifest = store.manifest
    # Halves that could not be mixed were trained on as they are, and denoise matches noise accordingly.
    training = opened.identity if mixed else {**opened.identity, "mix": 1.0}
    details: dict[str, Any] = {
        "data_fingerprint": opened.identity["data"],
        "training": training,
        "software": software_versions(),
    }
    if request.save and (seen := appearance.appearance_of_store(store, opened.split.train)) is not None:
        details[appearance.FIELD] = seen
    if start is not None:
        details |= start.details(manifest)
    if manifest is not None:
        details["pairs"] = manifest.pairs
        if manifest.angpix is not None:
            details["angpix"] = manifest.angpix
    return Checkpoint(
        request.config.model,
        weights={},
        config=dict(request.config.model_options),
        normalize="percentile" if manifest is None else manifest.normalize,
        pixel_size_angstrom=None if manifest is None else manifest.pixel_size_angstrom,
        details=details,
    )
