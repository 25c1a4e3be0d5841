"""The command ``cryoplug train``: training pairs in, the best checkpoint out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from cryoplug.cli.checkpoints import CheckpointPath
from cryoplug.cli.completion import complete_models
from cryoplug.cli.next_step import say_how_to_denoise
from cryoplug.cli.options import (
    CryoplugCommand,
    device_option,
    dry_run_option,
    json_option,
    overwrite_option,
    patch_size_option,
    precision_option,
    require_better_than_option,
    seed_option,
    threads_option,
)
from cryoplug.cli.output import echo_result, printable_name
from cryoplug.cli.planned import echo_plan
from cryoplug.cli.progress import FileProgress, train_progress
from cryoplug.errors import UsageError
from cryoplug.training.presets import RECIPES

if TYPE_CHECKING:
    from cryoplug.core.plan import Plan
    from cryoplug.training.progress import EpochReport, Event
    from cryoplug.workflows.train import TrainResult


@click.command("train", cls=CryoplugCommand)
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option("--data-dir", type=click.Path(path_type=Path), help="Another way to give DATA.")
@click.option(
    "--stream", is_flag=True, help="Does nothing: training always streams. Scripts of the founding program give it."
)
@click.option(
    "--model",
    default="cryo_cnn",
    show_default=True,
    shell_complete=complete_models,
    help="cryo_cnn, residual_cnn, unet, or one of a plugin.",
)
@click.option(
    "--model-option",
    "model_options",
    multiple=True,
    metavar="NAME=VALUE",
    help="Setting of the model. unet: depth=3, width=32, norm=none or group, stem=1, 2 or 4, skip=input or none, clip=0, "
    "most=0. May be repeated.",
)
@click.option(
    "--recipe",
    type=click.Choice(RECIPES),
    default="auto",
    show_default=True,
    help="Which defaults the options below have. auto: halves or single if the store holds these, else founding.",
)
@click.option("--epochs", type=int, default=5, show_default=True, help="Passes over the training patches.")
@click.option(
    "--minutes", type=float, help="Train for about this many minutes instead of --epochs: as many steps as fit."
)
@click.option("--lr", type=float, default=0.001, show_default=True, help="Adam's learning rate.")
@click.option(
    "--schedule",
    type=click.Choice(["constant", "cosine"]),
    default="constant",
    show_default=True,
    help="How the learning rate changes. cosine: down to 0 at the end of the last epoch.",
)
@click.option(
    "--warmup-steps", type=int, default=0, show_default=True, help="Steps over which the learning rate rises."
)
@click.option(
    "--loss",
    type=click.Choice(["mse", "l1", "charbonnier"]),
    default="mse",
    show_default=True,
    help="Mean of d^2, |d| or sqrt(d^2 + 1e-6), where d = network(noisy) - clean.",
)
@click.option("--clip-norm", type=float, help="Largest norm of a step's gradients.  [default: no limit]")
@click.option(
    "--weight-decay",
    type=float,
    default=0.0,
    show_default=True,
    help="Each step shrinks every weight by the learning rate times this.",
)
@click.option(
    "--ema", type=float, help="Validate and keep a moving average of the weights with this decay, such as 0.999."
)
@click.option("--patience", type=int, help="Stop after this many epochs in a row without a better one.")
@click.option("--batch-size", type=int, default=8, show_default=True, help="Patches a step.")
@patch_size_option("Side of the patches of bare bins.", default=1024)
@click.option(
    "--val-split",
    type=float,
    default=0.1,
    show_default=True,
    help="Part held out for validation: of the micrographs, or of the patches of bare bins. 0 for none.",
)
@click.option("--val-indices", type=click.Path(path_type=Path), help="File of validation patches, one index a line.")
@click.option(
    "--max-batches", type=click.IntRange(min=0), default=0, help="For a quick test: batches an epoch; 0 for all."
)
@click.option("--save", is_flag=True, help="Save the best checkpoint, and the state from which training can go on.")
@click.option(
    "--checkpoint-dir",
    type=click.Path(path_type=Path),
    default=Path("saved_models"),
    show_default=True,
    help="The run folder is CHECKPOINT_DIR/MODEL.",
)
@click.option("--no-evaluation", is_flag=True, help="Leave out the evaluation of the kept checkpoint at the end.")
@require_better_than_option(
    "Exit with 1 unless the evaluation at the end shows that it is better by two standard errors; with one held-out "
    "patch, by any amount. Needs --save."
)
@click.option(
    "--init",
    type=CheckpointPath(),
    help="Start from this checkpoint, or from general, with its network and options; --lr then has other defaults.",
)
@click.option("--resume", is_flag=True, help="Go on with a saved run, also for more --epochs.")
@click.option(
    "--crop-size",
    type=int,
    help="Side of crops of whole micrographs.  [default: 256 of halves and single exposures; else convert's --patch-size]",
)
@click.option(
    "--crops-per-epoch",
    type=int,
    help="Crops of whole micrographs (convert --store whole) in an epoch.  [default: as many as fit in]",
)
@seed_option("Random seed of weights, split, order and augmentation.")
@click.option("--shuffle/--no-shuffle", default=True, show_default=True, help="A new order each epoch.")
@click.option(
    "--augment",
    type=click.Choice(["none", "dihedral", "halves"]),
    default="none",
    show_default=True,
    help="dihedral: turn and mirror each pair at random. halves: exchange even and odd, too.",
)
@click.option(
    "--mix",
    type=float,
    default=1.0,
    show_default=True,
    help="Train on mixtures of halves (--augment halves) or of single exposures; at 0.5 nearly as clean as the sum.",
)
@precision_option(
    "Type of numbers in the layers; weights and loss stay float32. auto: bf16 for unet and residual_cnn, where the device can.",
    choices=["auto", "float32", "bf16"],
)
@click.option(
    "--cache",
    type=click.Choice(["auto", "none", "ram", "gpu"]),
    default="auto",
    show_default=True,
    help="Where the training set stays after the first reading. auto: on the GPU, when it fits.",
)
@device_option()
@threads_option
@click.option(
    "--checkpoint-minutes",
    type=float,
    default=5.0,
    show_default=True,
    help="Minutes between saves of the state from which training can go on.",
)
@overwrite_option
@dry_run_option
@json_option
@click.pass_context
def train(
    context: click.Context,
    data: Path | None,
    data_dir: Path | None,
    stream: bool,
    max_batches: int,
    model_options: tuple[str, ...],
    save: bool,
    checkpoint_dir: Path,
    no_evaluation: bool,
    require_better_than: str | None,
    init: Path | None,
    val_indices: Path | None,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    recipe: str,
    **fields: Any,
) -> None:
    """Train a network on pairs of noisy and clean patches.

    DATA is what cryoplug convert wrote. With --save, the kept checkpoint is evaluated at the end on up to 16 held-out
    patches, in about 10 s, beside the best simple filters. The first line says whether it is better than the raw micrograph
    and than the best Gaussian blur, and what to do next. If nothing could be judged, it says why. checkpoint.json keeps the
    figures, and cryoplug inspect shows them.

    If training was killed, run the same command again: it goes on where it stopped and ends with the same weights, bit for
    bit. With --minutes this holds only while steps keep their speed, because their number follows it.

    Adam minimises mean((network(noisy) - clean)^2), or another --loss. cryoplug keeps the epoch with the lowest validation
    loss. With halves, most of the loss is noise in the target, so small differences mean nothing. cryoplug therefore keeps
    the latest epoch that is not measurably worse than the best one: its loss is higher by no more than the standard error
    of their paired difference over the held-out micrographs.

    A store of halves has defaults of its own: --augment halves --mix 0.5 --schedule cosine --warmup-steps 200 --ema 0.999
    --clip-norm 1. --batch-size is 2 million pixels a step; each pair of halves counts twice, for its two mixtures. The unet
    gets --weight-decay 0.1 and depth=3 width=32 stem=2 skip=none, where no --model-option says otherwise. On a CPU, batches
    have 260 thousand pixels and the unet has width=16. Single exposures have the same defaults, but --augment dihedral.
    cryoplug draws noise z with the spectrum that convert measured. The input is m + a z and the target m - z / a, where a is
    --mix.

    With --init, the network and its options are those of the checkpoint. The defaults are then --lr 0.0001
    --schedule cosine --warmup-steps 50 (not with --recipe founding). With halves and single exposures, a unet has
    --weight-decay 0.01 and --lr 0.001. --init general takes the small general model, which has learnt from the same
    simulated micrographs as the general model. Take it on a CPU, and for short trainings; in five minutes on a fast GPU, a
    unet from nothing comes to much the same. It needs micrographs of 2 to 5 A/px: convert --angpix 2.6.

    On several GPUs or machines, torchrun starts one process each, and these train together. A step takes --batch-size
    patches of every process, so two processes give what one gives with twice the --batch-size. If torchrun starts them
    again (--max-restarts), they go on from the last state.

    Example: cryoplug train dataset/ --init general --minutes 5 --save

    Example: cryoplug train dataset/ --epochs 5 --save --checkpoint-dir saved_models

    Example: torchrun --standalone --nproc-per-node 2 --no-python cryoplug train dataset/ --model unet
    --save
    """
    from cryoplug.metrics.verdict import BETTER
    from cryoplug.reports.evaluation import table
    from cryoplug.training.config import TrainConfig, parse_model_options
    from cryoplug.workflows.train import TrainRequest
    from cryoplug.workflows.train import train as run

    store = training_data(data, data_dir)
    given = frozenset(name for name in fields if context.get_parameter_source(name) is not ParameterSource.DEFAULT)
    if {"epochs", "minutes"} <= given and fields["minutes"] is not None:
        raise UsageError("--epochs and --minutes both say when training ends; give one of them")
    request = TrainRequest(
        store,
        TrainConfig(max_batches=max_batches or None, model_options=parse_model_options(model_options), **fields),
        save=save,
        checkpoint_dir=checkpoint_dir,
        init=init,
        val_indices=val_indices,
        resume=resume,
        overwrite=overwrite,
        evaluate=not no_evaluation,
        recipe=recipe,
        given=given,
        require_better_than=require_better_than,
    )
    if dry_run:
        from cryoplug.workflows.train import rehearse

        def rehearsed(show: FileProgress, note: Callable[[str], None]) -> Plan:
            return rehearse(request, show, note, expect=show.expect)

        context.exit(echo_plan("train", rehearsed, as_json=as_json))
    epochs = None if request.config.minutes is not None else request.config.epochs
    with train_progress() as show:

        def report(event: Event) -> None:
            from cryoplug.training.progress import EpochReport

            show.say(event)
            if as_json and isinstance(event, EpochReport):
                _echo_epoch(event, epochs)

        result = run(request, report, advance=show.advance)
    if result.already_finished and as_json:
        for epoch in result.epochs:
            _echo_epoch(epoch, epochs)
    words = _verdict(result)
    if not as_json:
        kept = f"; kept in {printable_name(result.checkpoint)}" if result.checkpoint else "; not saved"
        last = result.epochs[-1]
        text = (
            f"best epoch {result.best_epoch}: loss {result.best_loss:.8f}{kept}\n"
            f"training loss {result.first_batch_loss:.6f} in the first batch, {last.train_loss:.8f} in epoch {last.epoch}"
        )
        if result.evaluation is not None:
            text = f"{text}\n\n{table(result.evaluation, brief=True, pairs=result.pairs)}"
        echo_result(result, as_json=False, text="\n".join([*words, text]))
    elif result.checkpoint is not None:
        record = {"evaluation": result.evaluation, "checkpoint": result.checkpoint}
        echo_result({**record, "verdict": result.verdict, "words": words}, as_json=True, type="training")
    good = result.verdict is None or result.verdict.worst == BETTER
    if result.checkpoint is not None and good and result.pairs != "noise":
        stated = () if result.stated_angstrom is None else ("--pixel-size", f"{result.stated_angstrom:g}")
        say_how_to_denoise("train", result.inputs, result.checkpoint, options=stated)
    context.exit(result.exit_code)


def training_data(data: Path | None, data_dir: Path | None) -> Path:
    """Return what to train on, given as DATA or with ``--data-dir``; raise an error unless it was given once."""
    if data is not None and data_dir is not None:
        raise UsageError("give the training data once: as DATA or with --data-dir")
    found = data or data_dir
    if found is None:
        raise UsageError("no training data: give the folder or .h5 file that cryoplug convert wrote")
    return found


def _verdict(result: TrainResult) -> list[str]:
    """Give the verdict in words, the first lines of a summary."""
    from cryoplug.reports.words import required_words, verdict_words

    asked = [] if result.required is None else [required_words(result.verdict, result.required)]
    return [*verdict_words(result.verdict, pairs=result.pairs, why_not=result.not_judged), *asked]


def _echo_epoch(report: EpochReport, epochs: int | None) -> None:
    total = {} if epochs is None else {"epochs": epochs}
    echo_result({**report.record(), **total}, as_json=True, type="epoch")
