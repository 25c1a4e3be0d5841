"""``cryoplug cite``: how to cite cryoplug in a paper."""

from __future__ import annotations

import click

from cryoplug.cli.options import CryoplugCommand, json_option
from cryoplug.cli.output import echo_result


@click.command(cls=CryoplugCommand)
@click.option("--bibtex", is_flag=True, help="Write an entry for BibTeX.")
@json_option
def cite(bibtex: bool, as_json: bool) -> None:
    """Say how to cite cryoplug in a paper.

    Name the version that denoised your micrographs: it stands in the header of each of them, and in denoise.jsonl.

    Example: cryoplug cite --bibtex
    """
    from cryoplug.cli.citation import read_citation

    citation = read_citation()
    text = citation.bibtex() if bibtex else citation.sentence()
    echo_result({"citation": citation, "text": text}, as_json=as_json, type="citation", text=text)
