"""The command ``cryoplug convert``: micrographs in, training pairs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from cryoplug.cli.completion import complete_paths
from cryoplug.cli.next_step import say_how_to_train
from cryoplug.cli.options import (
    CryoplugCommand,
    accept_unproven_option,
    angpix_option,
    clean_option,
    dry_run_option,
    even_option,
    json_option,
    normalize_option,
    odd_option,
    output_option,
    overwrite_option,
    patch_size_option,
    pixel_size_option,
    seed_option,
)
from cryoplug.cli.output import echo_result, printable_name, say
from cryoplug.cli.planned import echo_plan
from cryoplug.cli.progress import FileProgress, file_progress
from cryoplug.core.results import BatchResult

if TYPE_CHECKING:
    from cryoplug.core.plan import Plan

_WORTH_TELLING = 0.01


INSTEAD_OF_NOISE = (
    "without --pairs it is the founding recipe, which usually ends below the raw micrograph; "
    "give --pairs halves, or --pairs single if there are no halves"
)
"""Said to users who did not choose how pairs are made."""


@click.command("convert", cls=CryoplugCommand)
@click.argument("inputs", metavar="INPUT...", nargs=-1, shell_complete=complete_paths)
@output_option("Folder of the store (or a .h5 file).")
@click.option(
    "--pairs",
    type=click.Choice(["noise", "clean", "halves", "single"]),
    default="noise",
    show_default=True,
    help="Where pairs come from. halves: even and odd halves of INPUT. single: INPUT alone, with its measured noise. clean: a "
    "clean file for each INPUT. noise: artificial noise added to INPUT, the founding recipe.",
)
@clean_option("Clean micrographs for --pairs clean; may be repeated.")
@even_option("Even halves, the noisy side; may be repeated.")
@odd_option("Odd halves, the clean side; may be repeated.")
@click.option(
    "--gain",
    type=click.Path(path_type=Path),
    help="Gain reference (.gain, MRC); cryoplug multiplies the frames of movies by it.",
)
@click.option(
    "--defects",
    type=click.Path(path_type=Path),
    help="Bad pixels of movies: lines x y w h, or an image that is 0 at good pixels.",
)
@accept_unproven_option("Take pairs without common signal (thin ice), and single exposures with doubtful noise.")
@click.option(
    "--format",
    "store_format",
    type=click.Choice(["bin", "hdf5"]),
    default="bin",
    show_default=True,
    help="bin: bare bins with a manifest beside them. hdf5: one HDF5 file.",
)
@click.option(
    "--store",
    type=click.Choice(["patches", "whole"]),
    default="patches",
    show_default=True,
    help="Keep patches, or each micrograph whole and once; training then cuts patches anywhere in it.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="Type of a stored pixel; float16 takes half the bytes.",
)
@patch_size_option(
    "Side of a patch in pixels.  [default: 1024, with --store whole 256; in small micrographs what fits]"
)
@click.option(
    "--stride",
    type=click.IntRange(min=1),
    help="Pixels from one patch to the next; whole micrographs have none.  [default: half a patch]",
)
@pixel_size_option()
@angpix_option("Fourier-crop to this pixel size in angstrom first, both halves alike.")
@normalize_option(
    "How grey values are scaled. auto: percentile for --pairs noise where pixels are counts from zero up; else zscore.",
    choices=["auto", "percentile", "zscore", "robust"],
    default="auto",
)
@click.option(
    "--test-split",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="Part of the micrographs kept for testing.",
)
@seed_option("Random seed of split and noise.")
@overwrite_option
@dry_run_option
@json_option
@click.pass_context
def convert(
    context: click.Context,
    inputs: tuple[str, ...],
    output: Path,
    pairs: str,
    clean: tuple[str, ...],
    even: tuple[str, ...],
    odd: tuple[str, ...],
    gain: Path | None,
    defects: Path | None,
    accept_unproven: bool,
    store_format: str,
    store: str,
    dtype: str,
    patch_size: int | None,
    stride: int | None,
    pixel_size: float | None,
    angpix: float | None,
    normalize: str,
    test_split: float,
    seed: int,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Pack micrographs into a store of noisy/clean training patches.

    INPUT is any number of files, folders, globs and RELION STAR files. If the command was killed, run it again: it goes on
    where it stopped.

    If you have movies or halves, take --pairs halves. If you have only micrographs, take --pairs single.

    With --pairs halves, INPUT is movies or micrographs. Micrographs need their halves beside them (X_EVN.mrc and
    X_ODD.mrc), or named by rlnMicrographNameEven and Odd. From a movie, cryoplug sums the odd (1, 3, ...) and the even
    frames. It multiplies raw frames by the gain, and replaces defects (and gain 0) by the mean of their neighbours. It shifts
    frames as RELION's motion STAR file says: the one beside the movie, or the one that a corrected_micrographs.star names.
    If halves cannot be proven to belong together, that exposure fails by name and the others go on. In stacks and tilt series
    with halves, every section is a pair.

    With --pairs single, the store holds each micrograph once, with the spectrum, the skewness and the slope of its noise.
    Where pixels are counts, the noise is what Poisson says; else cryoplug fits it beyond the signal and continues it below.
    Places where the general model sees no particles confirm the noise, correct it, or give a warning (3 s on two cores).
    Training adds noise like it. If noise and signal cannot be separated, the micrograph fails, with the reason. Start from
    micrographs as motion correction leaves them, not filtered, and let --angpix crop them. Train then with --init general.

    --pairs noise, the default, is the founding program's recipe. It adds artificial noise to a micrograph that is noisy
    already, and usually ends below the raw one. A micrograph p becomes clean = clip(p / P95, 0, 1), where P95 is the 95th
    percentile of its positive pixels, and noisy = clip(Poisson(100 clean) / 100 + N(0, 0.05), 0, 1). That suits counts from
    zero up. For any other grey scale, such as after background subtraction, --normalize auto takes zscore: -3 to 3 standard
    deviations then stand for 0 to 1.

    In folders and patterns, cryoplug leaves out files that only accompany a micrograph (X_DW, X_noDW, X_PS, masks; halves
    unless you ask for them), and says how many. One exposure never has patches on both sides of the split.

    With --angpix, the network sees farther and learns from less noise. denoise then crops every micrograph to that pixel
    size and brings the result back to its own grid. Patches and stride count cropped pixels.

    Example: cryoplug convert --pairs halves MotionCorr/job002/corrected_micrographs.star --angpix 2.6 --store whole -o dataset

    Example: cryoplug convert --pairs single Micrographs/*.mrc --angpix 2.6 --store whole -o dataset

    Example: cryoplug convert --pairs halves Movies --gain gain.mrc -o dataset
    """
    from cryoplug.workflows.convert import ConvertRequest
    from cryoplug.workflows.convert import convert as run

    request = ConvertRequest(
        inputs=inputs,
        output=output,
        pairs=pairs,
        clean=clean,
        even=even,
        odd=odd,
        gain=gain,
        defects=defects,
        accept_unproven=accept_unproven,
        format=store_format,
        store=store,
        dtype=dtype,
        patch_size=patch_size,
        stride=stride,
        pixel_size=pixel_size,
        angpix=angpix,
        normalize=normalize,
        test_split=test_split,
        seed=seed,
        overwrite=overwrite,
    )
    if pairs == "noise" and context.get_parameter_source("pairs") is ParameterSource.DEFAULT:
        say(f"convert: {INSTEAD_OF_NOISE}")
    if dry_run:
        from cryoplug.workflows.convert import rehearse

        def rehearsed(show: FileProgress, note: Callable[[str], None]) -> Plan:
            return rehearse(request, show, note, expect=show.expect)

        context.exit(echo_plan("convert", rehearsed, as_json=as_json))
    with file_progress("convert", as_json=as_json) as show:
        result = run(request, show, lambda text: say(f"convert: {text}"), expect=show.expect)
    echo_result(
        {"store": request.target, **result.details, "failed": len(result.failed)},
        as_json=as_json,
        type="store",
        text=_summary(request.target, result, test_split=test_split),
    )
    if result.outputs:
        say_how_to_train(request.target, pairs)
    context.exit(result.exit_code)


def _summary(target: Path, result: BatchResult, *, test_split: float) -> str:
    from cryoplug.reports.html import counted

    counts = result.details
    left_out = "".join(f"; {text}" for text in _left_out(result, test_split=test_split))
    if not result.outputs:
        return f"nothing written{left_out}"
    speed = f", {counts['patches_per_s']:.1f} patches/s" if counts.get("patches_per_s") else ""
    complete = "already complete: " if counts.get("complete") else ""
    kind = "micrographs, whole" if counts.get("whole") else f"pairs of {counts['patch_size']} px"
    return (
        f"{printable_name(target)}: {complete}{counts['train']} training and {counts['test']} test {kind}, of "
        f"{counted(counts['micrographs'], 'micrograph')}{speed}{left_out}"
    )


def _left_out(result: BatchResult, *, test_split: float) -> Iterator[str]:
    """Say what is not in the store, and why."""
    counts = result.details
    if result.failed:
        yield f"{len(result.failed)} of {len(result.files)} inputs failed"
    if beside := counts.get("companions"):
        yield (
            "1 file that accompanies others left out"
            if beside == 1
            else f"{beside} files that accompany others left out"
        )
    beyond = counts.get("beyond_the_last_patch", 0)
    if beyond >= _WORTH_TELLING:
        yield f"{100 * beyond:.0f} % of the pixels are beyond the last patch of a row or column (a smaller --stride takes them)"
    if test_split > 0 and result.outputs and not counts["test"]:
        why = "those that it took failed" if result.failed else "leaves the only one for training"
        yield f"no test pairs: --test-split takes whole exposures, and {why}"
