"""The train job: make training pairs from the input, train a network, and keep the best checkpoint with its curves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from cryoplug.core.results import to_json
from cryoplug.disk.atomic import write_text
from cryoplug.errors import StorageError, UsageError
from cryoplug.inference.denoiser import Denoiser
from cryoplug.models.checkpoint import Checkpoint, load_checkpoint
from cryoplug.reports.evaluation import table
from cryoplug.reports.words import verdict_words
from cryoplug.training.config import TrainConfig
from cryoplug.training.progress import EpochReport, Event
from cryoplug.workflows.train import TrainRequest, TrainResult, train
from cryoplug.workflows.train.start import started

from cryoplug_relion import nodes
from cryoplug_relion.inputs import MODEL_NAME
from cryoplug_relion.logfile import FILE_NAME as LOGFILE
from cryoplug_relion.logfile import Logfile, check_logfile
from cryoplug_relion.packing import pack, sample_pairs
from cryoplug_relion.pictures import Image
from cryoplug_relion.release import release_of_job
from cryoplug_relion.supervisor import outputs_are_complete
from cryoplug_relion.talk import Talk


def train_job(
    folder: Path,
    *,
    in_mics: str | None,
    in_movies: str | None,
    data: Path | None,
    init: Path | None,
    as_json: bool,
    evaluate: bool,
    recipe: str,
    given: frozenset[str],
    pairs: dict[str, Any],
    config: dict[str, Any],
) -> int:
    """Make the missing training pairs, train the missing epochs, and write the files that RELION looks for.

    Parameters
    ----------
    folder
        Of the job; the run folder is ``folder/MODEL``.
    in_mics, in_movies
        What RELION gives; none when `data` is given.
    data
        A store that exists, or the folder of the convert job that made it.
    init
        Checkpoint to start from.
    as_json
        Write records to stdout.
    evaluate, recipe, given
        As in `TrainRequest`; the last two fill in the fields that the user did not set.
    pairs
        Further fields of `ConvertRequest`.
    config
        Fields of `TrainConfig`.

    Returns
    -------
    int
        0, or 3 when some micrographs failed; these are named.
    """
    if {"epochs", "minutes"} <= given:
        raise UsageError("--epochs and --minutes both say when training ends; give one of them")
    if data is None:
        packed = pack(folder, in_mics=in_mics, in_movies=in_movies, as_json=as_json, fields=pairs)
        store, lines, exit_code = packed.request.target, packed.lines, packed.batch.exit_code
    elif in_mics or in_movies:
        raise UsageError(f"--data {data} and an input STAR file: give one; --data is the store of a convert job")
    else:
        store = data / "store" if (data / "store").is_dir() else data
        lines, exit_code = [f"store       {store}"], 0
    talk = Talk("train", as_json=as_json)
    request = TrainRequest(
        store,
        TrainConfig(**config),
        save=True,
        checkpoint_dir=folder,
        init=init,
        evaluate=evaluate,
        recipe=recipe,
        given=given,
    )
    # With a checkpoint to start from, the network is its.
    run_folder = folder / started(request)[0].config.model
    request = replace(request, resume=(run_folder / "run.json").is_file())

    def tell(event: Event) -> None:
        talk.note(event.text)
        if isinstance(event, EpochReport):
            talk.record(event.record())

    result = train(request, tell)
    if result.checkpoint is None:
        raise StorageError(f"{run_folder}: no checkpoint was kept; check the disk")
    checkpoint = load_checkpoint(result.checkpoint)
    if result.evaluation is not None:
        talk.record({"evaluation": result.evaluation, "checkpoint": result.checkpoint})
    for line in _evaluation(result):
        talk.note(line)
    talk.note(f"best epoch {result.best_epoch}: loss {result.best_loss:.8f}; give --checkpoint {folder}/ to denoise")
    _write_model(folder, result, checkpoint)
    with Logfile(folder / LOGFILE) as pages:
        pages.text("cryoplug: training", _summary(folder, result, checkpoint, lines))
        pages.losses(
            f"{checkpoint.model_id}: best epoch {result.best_epoch}", [item.record() for item in result.epochs]
        )
        pages.panels("Training pairs, and what the network makes of the input", _panels(store, checkpoint))
    check_logfile(folder / LOGFILE)
    made = [nodes.Node(folder / MODEL_NAME, nodes.PARAMETERS), nodes.Node(folder / LOGFILE, nodes.LOGFILE)]
    nodes.write_nodes(folder, made, release_of_job(folder))
    outputs_are_complete()
    return exit_code


def _write_model(folder: Path, result: TrainResult, checkpoint: Checkpoint) -> None:
    record = {
        "checkpoint": str(result.checkpoint),
        "model": checkpoint.model_id,
        "sha256": checkpoint.sha256,
        "normalize": checkpoint.normalize,
        "pixel_size_angstrom": checkpoint.pixel_size_angstrom,
        "best_epoch": result.best_epoch,
        "best_loss": result.best_loss,
        "to_denoise": f"cryoplug relion denoise --checkpoint {folder}/",
    }
    write_text(folder / MODEL_NAME, to_json(record) + "\n")


def _summary(folder: Path, result: TrainResult, checkpoint: Checkpoint, store: list[str]) -> list[str]:
    size = checkpoint.pixel_size_angstrom
    return [
        f"network     {checkpoint.model_id}, sha256 {checkpoint.sha256[:16]}, normalize {checkpoint.normalize}",
        f"            trained at {'an unknown pixel size' if size is None else f'{size:.4g} Å per pixel'}",
        f"checkpoint  {result.checkpoint}",
        f"            give --checkpoint {folder}/ to cryoplug relion denoise",
        f"epochs      {len(result.epochs)}; best {result.best_epoch} with loss {result.best_loss:.8f}",
        *store,
        "",
        *(item.text for item in result.epochs),
        "",
        *_evaluation(result),
    ]


def _evaluation(result: TrainResult) -> list[str]:
    words = verdict_words(result.verdict, pairs=result.pairs, why_not=result.not_judged)
    return words if result.evaluation is None else [*words, "", *table(result.evaluation, brief=True).splitlines()]


def _panels(store: Path, checkpoint: Checkpoint) -> list[dict[str, Image]]:
    # The pairs are normalised and cropped already.
    denoiser = Denoiser(checkpoint, normalize="none", bare=False, angpix=0.0, device="cpu")
    rows = sample_pairs(store)
    return [{"input": row["input"], "network": denoiser.denoise(row["input"]), **row} for row in rows]
