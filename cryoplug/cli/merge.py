"""``cryoplug merge``: join the shards of a denoise run."""

from __future__ import annotations

from pathlib import Path

import click

from cryoplug.cli.denoised import summarize
from cryoplug.cli.options import CryoplugCommand, json_option, overwrite_option, star_option
from cryoplug.cli.output import say
from cryoplug.cli.progress import file_progress


@click.command(cls=CryoplugCommand)
@click.argument("output", type=click.Path(path_type=Path))
@star_option("STAR file to write.  [default: what the shards were given]")
@overwrite_option
@json_option
def merge(output: Path, star: Path | None, overwrite: bool, as_json: bool) -> int:
    """Join the shards of a denoise run: one STAR file, one journal, one page.

    OUTPUT is the folder that all shards wrote into. Run this when all N jobs of cryoplug denoise --shard I/N have come to
    their end. It writes what belongs to all micrographs, as a run without --shard does. If a shard is missing or did not
    come to its end, cryoplug names it and writes nothing. If micrographs failed, they are not in the STAR file, and the exit
    code is 3.

    Example: cryoplug merge Denoised --star Denoised/micrographs.star
    """
    from cryoplug.workflows.denoise import merge as run

    with file_progress("merge", as_json=as_json) as show:
        batch = run(
            output,
            star=star,
            overwrite=overwrite,
            progress=show,
            note=lambda text: say(f"merge: {text}"),
            expect=show.expect,
        )
    summarize(batch, output, as_json=as_json, command="merge")
    return batch.exit_code
