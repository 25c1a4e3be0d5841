"""``cryoplug denoise``: apply a checkpoint to micrographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cryoplug.cli.checkpoints import checkpoint_option
from cryoplug.cli.completion import complete_paths
from cryoplug.cli.denoised import summarize
from cryoplug.cli.options import (
    CryoplugCommand,
    apply_options,
    dry_run_option,
    even_option,
    json_option,
    odd_option,
    output_option,
    overwrite_option,
    pixel_size_option,
    report_option,
    spherical_aberration_option,
    star_option,
    voltage_option,
)
from cryoplug.cli.output import say
from cryoplug.cli.planned import echo_plan
from cryoplug.cli.progress import file_progress


class Numbers(click.ParamType):
    """Whole numbers from 0, separated by commas, as in ``0,1``."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Give the numbers in the order in which the user wrote them."""
        if isinstance(value, tuple):
            return value
        texts = [str(item).strip() for item in (value if isinstance(value, list) else str(value).split(","))]
        if not all(text.isascii() and text.isdigit() for text in texts):
            self.fail(f"{value!r} (allowed: a number from 0, or several as in 0,1)", param, ctx)
        return tuple(map(int, texts))


class ShardType(click.ParamType):
    """A part of the micrographs, as in ``0/4``."""

    name = "shard"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Give the part."""
        from cryoplug.core.shard import Shard

        return value if isinstance(value, Shard) else Shard.parse(str(value))


@click.command(cls=CryoplugCommand)
@click.argument("inputs", metavar="INPUT...", nargs=-1, shell_complete=complete_paths)
@checkpoint_option(
    "The network: general (the model that comes with cryoplug), a run folder (its best epoch), an epoch_NNNN folder, or a "
    "folder of .bin files of the founding program.",
    default="general",
)
@output_option("Folder for the denoised MRC files.")
@star_option("STAR file to write at the end, without the micrographs that failed.")
@voltage_option("Voltage to write into a STAR file of plain files; RELION needs it.", name="voltage_kv", metavar="KV")
@spherical_aberration_option(
    "Spherical aberration to write there; RELION needs it, too.", name="spherical_aberration_mm", metavar="MM"
)
@click.option(
    "--halves",
    is_flag=True,
    help="Use the even and odd half of each exposure as well as their sum. Halves are X_EVN and X_ODD, in folders even/ and "
    "odd/, or as the STAR file says.",
)
@even_option("With --halves: the even halves, if they are elsewhere.")
@odd_option("With --halves: the odd halves, if they are elsewhere.")
@pixel_size_option()
@apply_options
@click.option(
    "--gpu",
    type=Numbers(),
    default=(),
    metavar="N[,N...]",
    help="Use GPU N of CUDA_VISIBLE_DEVICES, from 0, like --device cuda:N. Several GPUs get processes of their own.",
)
@click.option(
    "--processes",
    type=int,
    metavar="N",
    help="Processes that share each GPU.  [default: up to 4, one for each 500 micrographs, 4 cores and 16 GiB of GPU memory]",
)
@click.option(
    "--shard",
    type=ShardType(),
    metavar="I/N",
    help="Denoise only part I of N, from 0; cryoplug merge joins the parts.  [default: as Slurm's arrays and tasks or torchrun "
    "say; else all]",
)
@click.option("--float16", is_flag=True, help="Write float16 (MRC mode 12): half the bytes, 3 digits.")
@click.option("--watch", is_flag=True, help="Keep looking for new micrographs, until --idle-exit or a signal.")
@click.option(
    "--poll", type=float, default=15.0, show_default=True, metavar="S", help="With --watch: seconds between looks."
)
@click.option(
    "--settle",
    type=float,
    default=60.0,
    show_default=True,
    metavar="S",
    help="With --watch: take a file when its size and time have not changed for S seconds.",
)
@click.option("--idle-exit", type=float, metavar="S", help="With --watch: end when nothing happened for S seconds.")
@click.option(
    "--previews/--no-previews",
    default=True,
    show_default=True,
    help="Write a picture of each micrograph: raw, denoised, and what was removed.",
)
@report_option(
    "Page of the run for your browser; --watch keeps it up to date.  [default: report.html in the output folder; none "
    "with --no-previews]"
)
@overwrite_option
@dry_run_option
@json_option
def denoise(
    output: Path, dry_run: bool, poll: float, settle: float, idle_exit: float | None, as_json: bool, **fields: Any
) -> int:
    """Denoise micrographs: files, folders, patterns, a RELION STAR file or a cryoSPARC dataset.

    Use the result for looking and picking; extract particles from the raw micrographs. It is float32 MRC in the grey values
    of the input. Files that an earlier run finished are skipped. denoise.jsonl in the output folder gets a line for each
    micrograph.

    Without --checkpoint, the general model denoises; it comes with cryoplug. It needs the pixel size and sees 2 to 5 A/px;
    cryoplug Fourier-crops finer micrographs to 2.6 for it. If you have a folder called general in the working directory,
    write ./general.

    For picking, --target particles gives what is not ice, at the grey level of the micrograph. --highpass 1000 removes
    gradients and ice that thickens. --lowpass 20 removes detail that no picker needs. --output-angpix 5 writes a coarser
    grid, with its pixel size in the header and the STAR file. These last three need to know the pixel size.

    With --star, cryoplug writes a STAR file: rlnMicrographName is the denoised file, cryoplugMicrographNameRaw the raw one.
    For a cryoSPARC dataset it writes micrographs_denoised.cs (or particles_denoised.cs) into the output folder, with
    micrograph_blob_denoised beside the raw blob.

    With --watch, cryoplug looks at folders, patterns and STAR files again and again. They may still be missing or growing.

    A network trained on a store of convert --angpix works at that pixel size. cryoplug Fourier-crops each micrograph to it
    and pads the result back, so the result has no finer detail. --merge-highres A takes detail beyond A from the raw micrograph.

    With --halves, the even half, the odd half and their sum go through the network. The result is
    (f(even) + f(odd) + f(sum)) / 2 in the grey values of the micrograph, and takes three times as long. cryoplug looks for
    halves beside the micrograph (X_EVN, X_ODD) and in folders even/ and odd/ within or beside its folder. If they are
    elsewhere, give --even and --odd; INPUT may then be left out.

    In folders and patterns, cryoplug leaves out files that only accompany a micrograph (halves, X_DW, X_noDW, X_PS, masks).

    Stopping (Ctrl-C, SIGTERM) discards only the micrograph being processed; run the same command to continue. SIGUSR1 is
    ignored, because finished files are already saved.

    Several processes may share an output folder, also from several machines: each micrograph is done by one of them. On a
    cluster, --shard 0/4 to 3/4 are four jobs of one list. cryoplug merge then writes the STAR file, the page and one
    journal. In a Slurm array, or under srun or torchrun, each task takes its part by itself; --shard 0/1 is all of them.

    Example: cryoplug denoise Micrographs/*.mrc -o denoised

    Example: cryoplug denoise Micrographs/*.mrc -o picking --target particles --highpass 1000

    Example: cryoplug denoise MotionCorr/job002/corrected_micrographs.star -o Denoised --star Denoised/micrographs.star
    """
    from cryoplug.machine.launch import chosen_shard
    from cryoplug.workflows.denoise import DenoiseRequest
    from cryoplug.workflows.denoise import denoise as run

    fields["shard"] = chosen_shard(fields["shard"], watch=fields["watch"], note=lambda text: say(f"denoise: {text}"))
    request = DenoiseRequest(output=output, poll_s=poll, settle_s=settle, idle_exit_s=idle_exit, **fields)
    if dry_run:
        from cryoplug.workflows.denoise import rehearse

        return echo_plan(
            "denoise", lambda show, note: rehearse(request, show, note, expect=show.expect), as_json=as_json
        )
    with file_progress("denoise", as_json=as_json) as show:
        batch = run(request, show, lambda text: say(f"denoise: {text}"), expect=show.expect, starts_processes=True)
    summarize(batch, output, as_json=as_json)
    return batch.exit_code
