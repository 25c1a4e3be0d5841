"""The command ``cryoplug evaluate``: how good a checkpoint or denoised files are, with truth or with halves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cryoplug.cli.checkpoints import checkpoint_option
from cryoplug.cli.completion import complete_paths
from cryoplug.cli.next_step import given_options, say_how_to_denoise
from cryoplug.cli.options import (
    CryoplugCommand,
    accept_unproven_option,
    applied_names,
    apply_options,
    clean_option,
    dry_run_option,
    even_option,
    json_option,
    odd_option,
    output_option,
    overwrite_option,
    pixel_size_option,
    require_better_than_option,
)
from cryoplug.cli.output import echo_result, printable_name, say
from cryoplug.cli.planned import echo_plan
from cryoplug.cli.progress import file_progress


@click.command(cls=CryoplugCommand)
@click.argument("inputs", metavar="[INPUT]...", nargs=-1, shell_complete=complete_paths)
@checkpoint_option(
    "The network: general, or a run folder, an epoch_NNNN folder or a founding folder.  [default: general, without --denoised]"
)
@click.option(
    "--denoised",
    multiple=True,
    metavar="PATH",
    shell_complete=complete_paths,
    help="Judge these denoised files, of any program: of INPUT with --clean, else of the even halves. May be repeated.",
)
@click.option(
    "--denoised-odd",
    multiple=True,
    metavar="PATH",
    shell_complete=complete_paths,
    help="Denoised odd halves; with them B and N are known separately.",
)
@clean_option("The truth of each INPUT; may be repeated.")
@even_option("Even halves, instead of those beside INPUT.")
@odd_option("Odd halves.")
@output_option("Folder for records, table and figures.")
@require_better_than_option(
    "Exit with 1 unless it is better than this, by more than two standard errors of the paired difference; with one "
    "micrograph, by any amount."
)
@click.option(
    "--direction",
    type=click.Choice(["auto", "even", "odd", "both"]),
    default="auto",
    show_default=True,
    help="Half to denoise; the other one judges it. auto: both when equally noisy, else the less noisy one.",
)
@pixel_size_option()
@apply_options
@accept_unproven_option("Take halves without common signal, too; else they are refused.")
@overwrite_option
@dry_run_option
@json_option
def evaluate(output: Path, dry_run: bool, as_json: bool, **fields: Any) -> int:
    """Say how good a denoiser is, with the best simple filters beside it on the same data.

    The first line says whether it is better than the raw micrograph and than the best Gaussian blur, and by how many
    decibels. Then come what to do next, and the table. If --require-better-than is not met, the exit code is 1.

    With --clean, the table has MSE, PSNR, SSIM, correlation, and SNR = var(truth) / error after the best a*x+b. It also says
    where the FRC with the truth falls below 0.5 and 0.143.

    Without truth, cryoplug measures with the raw halves Re, Ro and the denoised ones De, Do:
    signal S = cov(Re, Ro), noise left N = var(De) - cov(De, Do), bias B = cov(De, Do) + S - 2 cov(De, Ro).
    The mean squared error to the unknown truth is B + N. De must come from Re alone: if the sum of both halves was
    denoised, the result knows the noise of Ro. Halves are X_EVN and X_ODD beside INPUT, those that a STAR file names, or
    --even and --odd. Both must have the same scale.

    Pure noise with the measured spectrum is denoised too: what comes out was made up. Four simple methods stand beside the
    denoiser, all fitted on the same data: the identity, the best a*x+b, the best Gaussian and the Wiener filter. With
    --denoised, --tile says where the other program had its tile borders.

    Example: cryoplug evaluate --checkpoint saved_models/cryo_cnn Micrographs/*_EVN.mrc -o evaluation
    --require-better-than gaussian
    """
    from cryoplug.metrics.verdict import BETTER
    from cryoplug.reports.evaluation import table
    from cryoplug.workflows.evaluate import EvaluateRequest
    from cryoplug.workflows.evaluate import evaluate as run

    request = EvaluateRequest(output=output, **fields)
    if dry_run:
        from cryoplug.workflows.evaluate import rehearse

        return echo_plan(
            "evaluate", lambda show, note: rehearse(request, show, note, expect=show.expect), as_json=as_json
        )
    # What was measured has a record of its own.
    with file_progress("evaluate", as_json=as_json, recorded=("failed",)) as show:
        result = run(
            request,
            show,
            lambda text: say(f"evaluate: {text}"),
            lambda record: echo_result({**record, **show.totals}, as_json=as_json, type="micrograph"),
            expect=show.expect,
        )
    if result.summary is not None:
        record = {"output": output, **result.details, "words": result.words, "summary": result.summary}
        text = "\n".join([*result.words, "", table(result.summary)])
        echo_result({**record, "failed": len(result.failed)}, as_json=as_json, type="evaluation", text=text)
        say(f"evaluate: {', '.join(path.name for path in result.outputs)} -> {printable_name(output)}")
        say(f"evaluate: open in a browser: {printable_name(result.page)}")
        verdict = result.summary.verdict
        if request.applied is not None and verdict is not None and verdict.worst == BETTER and result.to_denoise:
            options = given_options(click.get_current_context(), applied_names())
            say_how_to_denoise("evaluate", result.to_denoise, request.applied, options=options)
    return result.exit_code
