"""The evaluation at the end of a training: the kept checkpoint on held-out patches, written into checkpoint.json."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryoplug.core.micrograph import ImageF32
from cryoplug.core.normalization import Normalization
from cryoplug.core.results import to_json
from cryoplug.errors import DeviceError, InputError, Stopped
from cryoplug.machine.interrupts import Interrupts
from cryoplug.metrics.judging import LEAST_SIDE_PX, Images, Judgement, judge
from cryoplug.metrics.response import FrequencyResponse
from cryoplug.models.checkpoint import Checkpoint, add_details, load_checkpoint
from cryoplug.reports.evaluation import Summary, summarize
from cryoplug.reports.evaluation_record import FIELD, evaluation_record, mean_curves, recorded_verdict, thinned
from cryoplug.reports.training_page import RESPONSE_FIELD, Example
from cryoplug.store.pairs import PairStore
from cryoplug.workflows.train.result import Judged

if TYPE_CHECKING:
    from cryoplug.training.config import TrainConfig

MOST_PATCHES = 16
MOST_EXAMPLES = 3
"""Most pairs on the page of the run."""
MOST_SIDE_PX = 512
"""Largest side to evaluate, in pixels; of a larger patch the middle is taken."""
MOST_SECONDS = 10.0
"""Seconds after which no further patch is begun; two are always evaluated."""


def evaluation_of_kept(
    epoch_folder: Path,
    store: PairStore,
    held_out: np.ndarray,
    config: TrainConfig,
    *,
    interrupts: Interrupts,
    examples: list[Example],
) -> Judged:
    """Measure the kept checkpoint, unless an earlier run did, and write the figures into its ``checkpoint.json``.

    Weights stay unchanged. If nothing can be measured, the result says why; the run does not fail.

    Parameters
    ----------
    epoch_folder
        The kept checkpoint.
    store, held_out
        The pairs, and the numbers of the held-out ones, ascending.
    config
        Settings of the run: device, threads, augmentation.
    interrupts
        Signals, looked at between two patches.
    examples
        List to which the first few measured pairs are added, with the output of the network.

    Raises
    ------
    Stopped
        A signal came; the training is finished, and the same command does the evaluation later.
    """
    kept = load_checkpoint(epoch_folder)
    if FIELD in kept.details:
        verdict = recorded_verdict(kept.details)
        return Judged(verdict=verdict, why_not="" if verdict else f"{epoch_folder}: its figures cannot be read")
    if not held_out.size:
        return Judged(why_not="nothing was held out (--val-split 0)")
    if min(store.patch_shape) < LEAST_SIDE_PX:
        shape = f"patches of {store.patch_shape} (y, x)"
        return Judged(why_not=f"{shape}; at least {LEAST_SIDE_PX} pixels a side are needed")
    chosen = held_out[np.unique(np.linspace(0, len(held_out) - 1, MOST_PATCHES).round().astype(int))]
    try:
        summary, curves = _measure(kept, store, chosen, config, interrupts=interrupts, examples=examples)
    except (DeviceError, InputError) as error:
        return Judged(why_not=str(error))
    if summary is None:
        return Judged(why_not="none of the held-out patches could be measured")
    record = evaluation_record(summary, curves)
    add_details(epoch_folder, **{FIELD: record})
    return Judged(summary, recorded_verdict({FIELD: json.loads(to_json(record))}))


def _judge_of(store: PairStore, config: TrainConfig) -> str:
    """Say by what the held-out patches are judged.

    ``halves``: by the other half. ``single``: by the exposure with noise drawn for it. ``truth``: by the clean side, which
    counts as truth.
    """
    from cryoplug.training.choice import pairs_are_halves

    if store.manifest is not None and store.manifest.pairs == "single":
        return "single"
    return "halves" if pairs_are_halves(store, config) else "truth"


def _measure(
    kept: Checkpoint,
    store: PairStore,
    chosen: np.ndarray,
    config: TrainConfig,
    *,
    interrupts: Interrupts,
    examples: list[Example],
) -> tuple[Summary | None, dict[str, Any]]:
    from cryoplug.inference.denoiser import Denoiser

    kind = _judge_of(store, config)
    denoiser = Denoiser(
        kept,
        device=config.device,
        normalize="none",
        bare=False,  # patches are normalised already, and what else denoise does belongs to the result
        angpix=0.0,
        tta="off",
        threads=config.thread_count,
    )
    found: list[Judgement] = []
    response = FrequencyResponse()
    micrographs: set[int] = set()
    halves = kind in ("halves", "single")
    recorrupt = _recorrupter(store, config) if kind == "single" else None
    begun = time.monotonic()
    for index in chosen:
        if interrupts.stop_signal is not None:
            raise Stopped(
                interrupts.stop_signal,
                "the training is finished and safe; the same command does the evaluation",
            )
        if len(found) >= 2 and time.monotonic() - begun > MOST_SECONDS:
            break
        pair = _read(store, int(index), recorrupt)
        # A patch of a masked border is constant, and a filter cannot be fitted to it.
        if min(float(np.ptp(pair.noisy)), float(np.ptp(pair.other))) == 0:
            continue
        images = Images(clean=pair.other, noisy=pair.noisy) if not halves else Images(even=pair.noisy)
        made = denoiser.denoise(pair.noisy)
        if halves:
            images.odd, images.denoised_even = pair.rescaled(pair.other), made
            # The target of a single exposure is far noisier than anything that the network has seen.
            if kind == "halves":
                images.denoised_odd = pair.rescaled(denoiser.denoise(pair.other))
        else:
            images.denoised = made
        response.add(pair.noisy, made)
        if len(examples) < MOST_EXAMPLES:
            examples.append(Example(pair.noisy, pair.rescaled(pair.other), made))
        # A network whose sides were never exchanged has learnt to denoise the first one alone.
        direction = "auto" if config.augment == "halves" and kind == "halves" else "even"
        found.append(judge(images, direction=direction, denoise=denoiser.denoise))
        micrograph = store.micrograph_of(int(index))
        if micrograph is not None:
            micrographs.add(micrograph)
    if not found:
        return None, {}
    truth = [one.truth for one in found if one.truth is not None]
    by_halves = [one.halves for one in found if one.halves is not None]
    noise = [one.hallucination for one in found if one.hallucination is not None]
    summary = summarize(truth, by_halves, hallucination=noise, micrographs=len(micrographs), patches=len(found))
    frequency, gain = (thinned(curve) for curve in response.curve())
    return summary, {**mean_curves(truth, by_halves), RESPONSE_FIELD: {"frequency": frequency, "gain": gain}}


@dataclass(frozen=True)
class _Pair:
    """One held-out pair, ``(y, x)``; each side in the units of its own normalization."""

    noisy: ImageF32
    """Input of the network."""
    other: ImageF32
    """The truth, or the other half."""
    scale: float
    """Factor: ``scale * other + offset`` is in the units of `noisy`."""
    offset: float
    """See `scale`."""

    def rescaled(self, image: ImageF32) -> ImageF32:
        """Bring the other half, raw or denoised, to the units of `noisy`, because errors need one scale."""
        return np.float32(self.scale) * image + np.float32(self.offset)


def _recorrupter(store: PairStore, config: TrainConfig) -> Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]:
    """Give a function that makes two images with independent noise from a crop of a single exposure."""
    import torch

    from cryoplug.workflows.train.single import recorruption_of

    recorruption = recorruption_of(store, config, torch.device("cpu"))

    def recorrupt(crop: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray]:
        batch = torch.from_numpy(crop[None])
        recorruption.prepare(None, shape=batch.shape, images=[store.crop_of(index).image], part=index)
        inputs, targets = recorruption.mix(batch, batch)
        return inputs[0].numpy(), targets[0].numpy()

    return recorrupt


def _read(
    store: PairStore, index: int, recorrupt: Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]] | None
) -> _Pair:
    sides = [np.empty((1, *store.patch_shape), np.float32) for _ in range(2)]
    store.read([index], *sides)
    if recorrupt is not None:
        sides = list(recorrupt(sides[0], index))
    cut = tuple(
        slice((side - min(side, MOST_SIDE_PX)) // 2, (side + min(side, MOST_SIDE_PX)) // 2)
        for side in store.patch_shape
    )
    noisy, other = (np.ascontiguousarray(side[0][cut]) for side in sides)
    micrograph = store.micrograph_of(index)
    entry = None if store.manifest is None or micrograph is None else store.manifest.micrographs[micrograph]
    if entry is None or entry.clean_normalization is None:
        return _Pair(noisy, other, 1.0, 0.0)
    mine, its = Normalization.from_dict(entry.normalization), Normalization.from_dict(entry.clean_normalization)
    return _Pair(noisy, other, its.scale / mine.scale, (its.offset - mine.offset) / mine.scale)
