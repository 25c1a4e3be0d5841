"""The command ``cryoplug brightness``: the mean grey value of micrographs."""

from __future__ import annotations

from pathlib import Path

import click
from cryoplug.cli.options import CryoplugCommand, json_option
from cryoplug.cli.output import echo_result


@click.command("brightness", cls=CryoplugCommand)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@json_option
def brightness(paths: tuple[Path, ...], as_json: bool) -> None:
    """Print the mean grey value of each micrograph.

    Example: cryoplug brightness mics/*.mrc
    """
    # Imported here and not at the top, so that `cryoplug --help` stays fast.
    from cryoplug.core.statistics import scan_pixels
    from cryoplug.formats.registry import open_micrograph

    for path in paths:
        with open_micrograph(path) as source:
            mean = scan_pixels(source).mean
        echo_result({"path": path, "mean": mean}, as_json=as_json, text=f"{path}: mean {mean:.6g}")
