"""``cryoplug denoise``: apply a checkpoint to micrographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cryoplug.cli.checkpoints import checkpoint_option
from cryoplug.cli.options import (
    CryoplugCommand,
    apply_options,
    even_option,
    json_option,
    odd_option,
    output_option,
    overwrite_option,
    pixel_size_option,
    spherical_aberration_option,
    star_option,
    voltage_option,
)
from cryoplug.cli.output import echo_result, printable_name, say
from cryoplug.cli.progress import file_progress
from cryoplug.core.results import BatchResult, FileResult


class Numbers(click.ParamType):
    """Numbers from 0 with commas between them, as in ``0,1``."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Give them in order."""
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
@click.argument("inputs", metavar="INPUT...", nargs=-1)
@checkpoint_option(
    "general (the model that comes with cryoplug), run folder (its best epoch), epoch_NNNN folder, or a founding folder "
    "of .bin files.",
    default="general",
)
@output_option("Folder for the denoised MRC files.")
@star_option("STAR file to write last; failed rows are left out.")
@voltage_option("For a STAR file of plain files, which RELION reads only with it.", name="voltage_kv", metavar="KV")
@spherical_aberration_option("Spherical aberration, for the same.", name="spherical_aberration_mm", metavar="MM")
@click.option(
    "--halves",
    is_flag=True,
    help="Denoise each exposure by its even and odd half (X_EVN and X_ODD, folders even/ and odd/, or as the STAR file says) "
    "and their sum.",
)
@even_option("With --halves: the even halves, where they are elsewhere.")
@odd_option("With --halves: the odd halves, where they are elsewhere.")
@pixel_size_option()
@apply_options
@click.option(
    "--gpu",
    type=Numbers(),
    default=(),
    metavar="N[,N...]",
    help="GPU N of CUDA_VISIBLE_DEVICES, from 0: --device cuda:N. Several: a process for each.",
)
@click.option(
    "--shard",
    type=ShardType(),
    metavar="I/N",
    help="Only part I of N, from 0: cryoplug merge joins them.  [default: as Slurm's arrays and tasks or torchrun say; else "
    "all]",
)
@click.option("--float16", is_flag=True, help="Write float16 (MRC mode 12): half the bytes, 3 digits.")
@click.option("--watch", is_flag=True, help="Go on looking for new micrographs; end by --idle-exit or a signal.")
@click.option(
    "--poll", type=float, default=15.0, show_default=True, metavar="S", help="Watching: seconds between looks."
)
@click.option(
    "--settle",
    type=float,
    default=60.0,
    show_default=True,
    metavar="S",
    help="Watching: take a file when its size and time have stood still so long.",
)
@click.option("--idle-exit", type=float, metavar="S", help="Watching: end when nothing happened for S seconds.")
@click.option(
    "--previews/--no-previews",
    default=True,
    show_default=True,
    help="Write a picture of each micrograph: raw, denoised, and what was removed.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Page of the run, to be opened in a browser; with --watch kept up to date.  [default: report.html in the output "
    "folder; none with --no-previews]",
)
@overwrite_option
@json_option
def denoise(output: Path, poll: float, settle: float, idle_exit: float | None, as_json: bool, **fields: Any) -> int:
    """Denoise micrographs: files, folders, patterns, a RELION STAR file or a cryoSPARC dataset.

    The network runs on tiles that overlap by its receptive field, which gives what the whole image at once gives.
    Output is float32 MRC in the input's grey-scale units, for looking and picking: extract particles from raw files.
    Files that an earlier run finished are skipped. With --star, rlnMicrographName becomes the denoised file and
    cryoplugMicrographNameRaw keeps the raw one. Of a cryoSPARC dataset, micrographs_denoised.cs (or particles_denoised.cs)
    in the output folder has every column, uid included, and micrograph_blob_denoised beside the raw blob. denoise.jsonl in
    the output folder gets a line for each micrograph.

    Without --checkpoint the general model denoises them, which comes with cryoplug: it needs the pixel size and sees 2 to 5
    A/px, finer micrographs cropped to 2.6. --target particles gives what is not ice instead of the whole image, at the
    grey level of the micrograph. A folder called general in the working directory is ./general.

    A checkpoint of a store that convert --angpix made works at that pixel size: each micrograph is Fourier-cropped to it
    and the result padded back, so it has no detail beyond. --merge-highres A takes the raw one's there.

    For picking, --highpass 1000 removes ice that thickens and gradients, --lowpass 20 what no picker needs, and
    --output-angpix 5 writes a coarser grid; header and STAR file say its pixel size. They need the micrograph's.

    With --halves, the even and the odd half of each exposure go through the network as well as their sum:
    (f(even) + f(odd) + f(sum)) / 2 in the grey values of the micrograph, in three times the time. Halves lie beside the
    micrograph (X_EVN, X_ODD), in folders even/ and odd/ within or beside its folder, or where --even and --odd say; with
    these two, INPUT may be left out.

    In folders and patterns, files that only accompany a micrograph (halves, X_DW, X_noDW, X_PS, masks) are left out.

    Several processes may share an output folder, also from several machines: each micrograph is done by one of them.
    SIGTERM and SIGINT drop the file in work; SIGUSR1 ends nothing, for all that is finished is on the disk already.
    On a cluster, --shard 0/4 to 3/4 are four jobs of one list; cryoplug merge then writes the STAR file, the page and one
    journal. In a Slurm array, or under srun or torchrun, each task takes its part by itself; --shard 0/1 is all of them.
    With --watch, folders, patterns and STAR files are looked at again and again, and may still be missing or growing.

    Example: cryoplug denoise MotionCorr/job002/corrected_micrographs.star -o Denoised --star Denoised/micrographs.star
    """
    from cryoplug.workflows.denoise import DenoiseRequest
    from cryoplug.workflows.denoise import denoise as run

    if fields["shard"] is None and not fields["watch"]:
        from cryoplug.machine.launch import shard_of_launcher

        if (found := shard_of_launcher()) is not None:
            fields["shard"], source = found
            say(f"denoise: shard {found[0]} of the micrographs, because {source} says so; --shard 0/1 does all of them")
    if fields["shard"] is not None and fields["shard"].count == 1:
        fields["shard"] = None
    request = DenoiseRequest(output=output, poll_s=poll, settle_s=settle, idle_exit_s=idle_exit, **fields)
    with file_progress("denoise") as show:

        def report(result: FileResult) -> None:
            show(result)
            if as_json:
                echo_result(result, as_json=True)

        batch = run(request, report, lambda text: say(f"denoise: {text}"))
    summarize(batch, output, as_json=as_json)
    return batch.exit_code


def summarize(batch: BatchResult, output: Path, *, as_json: bool) -> None:
    """Print what became of a run: counts, and the files that belong to all micrographs."""
    counts = {status: sum(item.status == status for item in batch.files) for status in ("done", "skipped", "failed")}
    text = ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "nothing to do"
    if not as_json:
        echo_result(batch, as_json=False, text=f"{text} -> {printable_name(output)}")
    for star in batch.outputs:
        left_out = batch.details.get("left_out", [])
        kind = "dataset" if star.suffix.lower() == ".cs" else "star"
        record = {kind: star, "left_out": left_out}
        words = "STAR" if kind == "star" else "cryoSPARC dataset"
        echo_result(record, as_json=as_json, text=f"{words} -> {printable_name(star)}")
        if left_out:
            say(f"denoise: {len(left_out)} failed micrographs are not in {printable_name(star)}")
    if (page := batch.details.get("report")) is not None:
        say(f"denoise: open in a browser: {printable_name(page)}")
