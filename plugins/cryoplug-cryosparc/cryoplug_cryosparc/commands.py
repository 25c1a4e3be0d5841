"""The command ``cryoplug cryosparc denoise``."""

from __future__ import annotations

from typing import Any

import click
from cryoplug.cli.denoise import denoise as core_denoise
from cryoplug.cli.options import CryoplugCommand, options_of

_BY_THE_JOB = {"inputs", "output", "star", "voltage_kv", "spherical_aberration_mm"}
"""Options that the job sets, or that belong to a STAR file."""
_HALVES = {"halves", "even", "odd"}
"""Options for halves; they are left out because no half images of cryoSPARC have been tested, see the README."""
_MANY_RUNS = {"shard", "watch", "poll", "settle", "idle_exit"}
"""Options for several runs or growing lists; an External job has one run and a fixed list."""


@click.group()
def cryosparc() -> None:
    """Run as an External job of cryoSPARC 4.7 or 5.

    Log in first, once: python -m cryosparc.tools login --url URL. For cryoSPARC 4 set CRYOSPARC_LICENSE_ID,
    CRYOSPARC_EMAIL and CRYOSPARC_PASSWORD.
    """


@cryosparc.command(
    "denoise",
    cls=CryoplugCommand,
    params=[
        click.Option(["--project"], required=True, metavar="P", help="Project, as in P3."),
        click.Option(["--workspace"], required=True, metavar="W", help="Workspace for the new job, as in W1."),
        click.Option(
            ["--exposures"],
            required=True,
            metavar="J",
            help="Job whose micrographs are denoised, as in J12; J12.NAME if it has several outputs of exposures.",
        ),
        click.Option(
            ["--url"],
            metavar="URL",
            help="Address of cryoSPARC.  [default: CRYOSPARC_BASE_URL, else where you are logged in]",
        ),
        click.Option(["--title"], default="cryoplug denoise", show_default=True, help="Title of the new job."),
        click.Option(
            ["--thumbnails/--no-thumbnails"],
            default=True,
            show_default=True,
            help="Replace the thumbnails of the exposures by those of the denoised micrographs.",
        ),
        *options_of(core_denoise, without={*_BY_THE_JOB, *_HALVES, *_MANY_RUNS}),
    ],
)
def denoise(**fields: Any) -> int:
    """Denoise the exposures of a job.

    cryoplug makes an External job, connects the exposures, and denoises them into the job's folder. Run it where the
    project's folder is mounted. The output has every slot of the exposures, and micrograph_blob_denoised beside the raw
    micrograph_blob. Pick on the denoised micrographs, and extract particles from the raw ones.

    If the run is stopped, give the same command again: it goes on where it stopped. If micrographs fail, the job's log
    names them, and the output leaves them out. To stop it in cryoSPARC, mark the job as failed.

    Example: cryoplug cryosparc denoise --project P3 --workspace W1 --exposures J12
    """
    from cryoplug_cryosparc.denoising import denoise_exposures

    return denoise_exposures(**fields)
