"""The commands ``cryoplug relion denoise``, ``train``, ``convert`` and ``share``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from cryoplug.cli.convert import convert as core_convert
from cryoplug.cli.denoise import denoise as core_denoise
from cryoplug.cli.main import guarded
from cryoplug.cli.options import CryoplugCommand, json_option, options_of
from cryoplug.cli.output import echo_result
from cryoplug.cli.train import train as core_train

from cryoplug_relion.arguments import RelionCommand, given_by_user, gpu_option, job_options
from cryoplug_relion.supervisor import job_folder, supervised

SHARE = Path(__file__).parent / "share"

_BY_THE_JOB = {"inputs", "output", "threads"}
_WATCHING = {"watch", "poll", "settle", "idle_exit"}
_OTHER_PAIRS = {"pairs", "clean", "even", "odd", "store_format"}
"""Options of convert that RELION's jobs do not have, because no STAR file of RELION names such files."""
_OTHER_TRAINING = {
    *(
        "data",
        "data_dir",
        "stream",
        "save",
        "checkpoint_dir",
        "resume",
        "val_indices",
        "overwrite",
        "require_better_than",
    ),
}


def _pair_options() -> list[click.Parameter]:
    """Make the options of training pairs."""
    pairs = click.Option(
        ["--pairs"],
        type=click.Choice(["halves", "single", "noise"]),
        default="halves",
        show_default=True,
        help="halves: even and odd, named by the STAR file, beside the micrograph, or of its movie. single: the micrographs "
        "alone, with their measured noise. noise: adds noise to them, the founding recipe.",
    )
    return [pairs, *options_of(core_convert, without={*_BY_THE_JOB, *_OTHER_PAIRS, "overwrite", "as_json"})]


_PAIR_NAMES = tuple(str(item.name) for item in _pair_options())


class JobGroup(click.Group):
    """A group of jobs: each tells RELION how it ended, also after a usage error."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Start the second process as soon as the arguments name a folder; see `cryoplug_relion.supervisor`."""
        folder = job_folder(args)
        if folder is None or extra.get("resilient_parsing"):
            return super().make_context(info_name, args, parent, **extra)

        def work() -> int:
            with super(JobGroup, self).make_context(info_name, list(args), parent, **extra) as context:
                return self.invoke(context)

        debug = parent is not None and bool(parent.params.get("debug"))
        words = [str(info_name), *args]
        raise click.exceptions.Exit(supervised(folder, lambda: guarded(work, words, debug=debug)))


@click.group(cls=JobGroup)
def relion() -> None:
    """Run as an External job of RELION 3.1, 4 or 5.

    In the GUI, give "cryoplug relion denoise" as the executable. Fields of the tab Params become options: the label
    "checkpoint" is --checkpoint; a flag needs no value. When every output is there and was read back, the job's folder
    gets RELION_JOB_EXIT_SUCCESS. At any other end it gets RELION_JOB_EXIT_FAILURE or RELION_JOB_EXIT_ABORTED.
    """


@relion.command(
    "denoise",
    cls=RelionCommand,
    params=[
        *job_options(),
        *options_of(core_denoise, without={*_BY_THE_JOB, *_WATCHING, "star"}),
    ],
)
def denoise(**fields: Any) -> int:
    """Denoise the micrographs of a STAR file that are not finished yet.

    The job writes DIR/micrographs_denoised.star, the denoised micrographs below DIR, and logfile.pdf. The STAR file has
    every table, column and optics group of the input. Paths below X/jobNNN/ stay, so picks fit the raw micrographs.
    Extract particles from the raw ones. If a micrograph fails, run.err names it, and the STAR file leaves it out.

    --output-angpix A writes coarser micrographs, and the optics groups say their pixel size. Picks then count these
    coarser pixels. Multiply them before you extract; docs/relion.md has the command.

    Example: cryoplug relion denoise --o External/job003/ --in_mics CtfFind/job002/micrographs_ctf.star
    --checkpoint External/job001/ --j 4
    """
    from cryoplug_relion.denoising import denoise_job

    return denoise_job(**fields)


@relion.command(
    "convert",
    cls=RelionCommand,
    params=[
        *job_options(),
        *_pair_options(),
        *options_of(core_convert, without={*_BY_THE_JOB, *_OTHER_PAIRS, *_PAIR_NAMES}),
    ],
)
def convert(**fields: Any) -> int:
    """Make training pairs from the micrographs or movies of a STAR file.

    The job writes DIR/store for `cryoplug relion train --data DIR`, and logfile.pdf. It takes halves from
    rlnMicrographNameEven and Odd, else from files X_EVN.mrc and X_ODD.mrc beside X.mrc. If there are none, it sums them
    from the movies that RELION's motion files name. They are not dose-weighted: each half is normalised by itself.

    Example: cryoplug relion convert --o External/job004/ --in_mics MotionCorr/job002/corrected_micrographs.star --j 4
    """
    from cryoplug_relion.packing import convert_job

    return convert_job(**fields)


@relion.command(
    "train",
    cls=RelionCommand,
    params=[
        *job_options(),
        click.Option(
            ["--data"],
            type=click.Path(path_type=Path),
            help="Store or convert job to train on, instead of a STAR file.",
        ),
        gpu_option(),
        *options_of(core_train, without={*_BY_THE_JOB, *_OTHER_TRAINING, *_PAIR_NAMES}),
        *_pair_options(),
    ],
)
@click.pass_context
def train(
    context: click.Context,
    folder: Path,
    in_mics: str | None,
    in_movies: str | None,
    threads: int,
    data: Path | None,
    init: Path | None,
    gpu: int | None,
    device: str,
    max_batches: int,
    model_options: tuple[str, ...],
    recipe: str,
    seed: int,
    as_json: bool,
    no_evaluation: bool,
    **fields: Any,
) -> int:
    """Make training pairs as `convert` does, and train a network on them.

    The job writes the best checkpoint, DIR/MODEL/epoch_NNNN; `denoise --checkpoint DIR` finds it. model.json says what
    it is, and logfile.pdf shows the loss curves. Continue the job to go on where it stopped, also for more epochs.

    Example: cryoplug relion train --o External/job005/ --in_mics MotionCorr/job002/corrected_micrographs.star
    --model unet --minutes 30 --gpu 0 --j 4
    """
    from cryoplug.machine.devices import device_name
    from cryoplug.training.config import parse_model_options

    from cryoplug_relion.training import train_job

    pairs = {name: fields.pop(name) for name in _PAIR_NAMES if name != "seed"}
    return train_job(
        folder,
        in_mics=in_mics,
        in_movies=in_movies,
        data=data,
        init=init,
        as_json=as_json,
        evaluate=not no_evaluation,
        recipe=recipe,
        given=given_by_user(context, fields),
        pairs={**pairs, "seed": seed, "threads": threads},
        config={
            **fields,
            "seed": seed,
            "threads": threads,
            "max_batches": max_batches or None,
            "model_options": parse_model_options(model_options),
            "device": device_name(device, gpu),
        },
    )


@relion.command("share", cls=CryoplugCommand)
@json_option
def share(as_json: bool) -> None:
    """Print the folder of ready-made job files, a queue script and schemes.

    Example: cp -r "$(cryoplug relion share)"/relion5/Schemes .

    Example: cryoplug relion share
    """
    echo_result({"share": SHARE}, as_json=as_json, text=str(SHARE))
