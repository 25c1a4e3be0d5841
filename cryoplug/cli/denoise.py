"""``cryoplug denoise``: apply a checkpoint to micrographs."""

from __future__ import annotations

from pathlib import Path

import click

from cryoplug.cli.options import CryoplugCommand, json_option, overwrite_option
from cryoplug.cli.output import echo_result, printable_name, say
from cryoplug.cli.progress import file_progress
from cryoplug.core.results import BatchResult, FileResult


@click.command(cls=CryoplugCommand)
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    required=True,
    help="Run folder (its best epoch), epoch_NNNN folder, or a founding folder of .bin files.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder for the denoised MRC files."
)
@click.option("--star", type=click.Path(path_type=Path), help="STAR file to write last; failed rows are left out.")
@click.option(
    "--normalize",
    type=click.Choice(["percentile", "zscore", "none"]),
    help="Instead of the checkpoint's own; none applies the bare network.",
)
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where to compute.")
@click.option("--tile", type=click.IntRange(min=0), default=0, help="Side of a tile in pixels.  [default: automatic]")
@click.option("--threads", type=click.IntRange(min=0), default=0, help="CPU threads.  [default: all cores]")
@overwrite_option
@json_option
def denoise(
    inputs: tuple[str, ...],
    checkpoint: Path,
    output: Path,
    star: Path | None,
    normalize: str | None,
    device: str,
    tile: int,
    threads: int,
    overwrite: bool,
    as_json: bool,
) -> int:
    """Denoise micrographs: files, folders, patterns or a RELION STAR file.

    The network runs on tiles that overlap by its receptive field, which gives what the whole image at once gives.
    Output is float32 MRC in the input's grey-scale units, for looking and picking: extract particles from raw files.
    Files that an earlier run finished are skipped. With --star, rlnMicrographName becomes the denoised file and
    cryoplugMicrographNameRaw keeps the raw one.

    Example: cryoplug denoise MotionCorr/job002/corrected_micrographs.star --checkpoint saved_models/cryo_cnn
    -o Denoised --star Denoised/micrographs.star
    """
    from cryoplug.workflows.denoise import DenoiseRequest
    from cryoplug.workflows.denoise import denoise as run

    request = DenoiseRequest(
        inputs=inputs,
        checkpoint=checkpoint,
        output=output,
        star=star,
        normalize=normalize,
        device=device,
        tile=tile,
        threads=threads,
        overwrite=overwrite,
    )
    with file_progress("denoise") as show:

        def tell(result: FileResult) -> None:
            show(result)
            if as_json:
                echo_result(result, as_json=True)

        batch = run(request, tell)
    _summarize(batch, output, as_json=as_json)
    return batch.exit_code


def _summarize(batch: BatchResult, output: Path, *, as_json: bool) -> None:
    counts = {status: sum(item.status == status for item in batch.files) for status in ("done", "skipped", "failed")}
    text = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    if not as_json:
        echo_result(batch, as_json=False, text=f"{text} -> {printable_name(output)}")
    for star in batch.outputs:
        left_out = batch.details.get("left_out", [])
        record = {"star": star, "left_out": left_out}
        echo_result(record, as_json=as_json, text=f"STAR -> {printable_name(star)}")
        if left_out:
            say(f"denoise: {len(left_out)} failed micrographs are not in {printable_name(star)}")
