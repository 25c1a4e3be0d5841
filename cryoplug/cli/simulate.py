"""``cryoplug simulate``: make micrographs with a known truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cryoplug.cli.options import (
    CryoplugCommand,
    device_option,
    json_option,
    output_option,
    overwrite_option,
    pixel_size_option,
    seed_option,
    spherical_aberration_option,
    voltage_option,
)
from cryoplug.cli.output import echo_result, printable_name, say_next
from cryoplug.cli.progress import file_progress


@click.command(cls=CryoplugCommand)
@output_option("Output folder.")
@click.option("--count", type=int, default=6, show_default=True, help="Number of micrographs.")
@click.option("--size", type=int, default=2048, show_default=True, help="Side of a micrograph in pixels.")
@pixel_size_option("Pixel size in angstrom.", default=2.6)
@click.option(
    "--dose", type=float, default=40.0, show_default=True, help="Electrons per square angstrom, whole exposure."
)
@click.option(
    "--defocus",
    type=(float, float),
    default=(0.8, 2.5),
    show_default=True,
    metavar="LOW HIGH",
    help="Range of underfocus in micrometres.",
)
@click.option("--particles", type=int, default=None, help="Particles on each micrograph.  [default: by its area]")
@click.option(
    "--specimen",
    type=click.Choice(["shapes", "random"]),
    help="What to invent without --map and --model: five simple shapes, or random molecules.  [default: shapes]",
)
@click.option(
    "--kinds",
    type=int,
    help="With --specimen random: number of molecules, mixed on each micrograph.  [default: 5]",
)
@click.option(
    "--map",
    "maps",
    type=click.Path(dir_okay=False, path_type=Path),
    multiple=True,
    help="Density map (MRC, CCP4) of a molecule; may be given several times.",
)
@click.option(
    "--map-threshold",
    "thresholds",
    type=float,
    multiple=True,
    help="Density above which a voxel belongs to the molecule; once for each --map.  [default: mean plus one sigma]",
)
@click.option(
    "--model",
    "models",
    type=click.Path(dir_okay=False, path_type=Path),
    multiple=True,
    help="Structure (PDB, mmCIF; needs cryoplug[simulate]), its first biological assembly; may be given several times.",
)
@voltage_option("Acceleration voltage in kilovolts.", default=300.0)
@spherical_aberration_option("Spherical aberration in millimetres.", default=2.7)
@click.option(
    "--amplitude-contrast", type=float, default=0.1, show_default=True, help="Part of the contrast from lost electrons."
)
@click.option(
    "--astigmatism",
    type=(float, float),
    default=(0.0, 0.0),
    show_default=True,
    metavar="LOW HIGH",
    help="Range of the difference of the two defoci in angstrom.",
)
@click.option(
    "--phase-shift",
    type=(float, float),
    default=(0.0, 0.0),
    show_default=True,
    metavar="LOW HIGH",
    help="Range of a phase plate's shift in degrees; 0 0: no plate.",
)
@click.option(
    "--ice-thickness", type=float, default=350.0, show_default=True, help="Mean thickness of the ice in angstrom."
)
@click.option(
    "--ice-grain",
    type=float,
    default=0.012,
    show_default=True,
    help="Rms phase of the grain of the ice, in radians.",
)
@click.option(
    "--dirt/--no-dirt",
    default=False,
    show_default=True,
    help="Add carbon, gold, crystals, cracks or frost to half of the micrographs.",
)
@click.option(
    "--detector",
    type=click.Choice(["counting", "coincidence", "integrating", "interpolated", "cropped"]),
    default="counting",
    show_default=True,
    help="Camera, and processing of its frames; this decides the colour of the noise.",
)
@device_option("cpu")
@seed_option("Random seed; micrograph n depends only on the seed and n.")
@overwrite_option
@json_option
def simulate(output: Path, as_json: bool, **fields: Any) -> int:
    """Make micrographs with a known truth.

    cryoplug writes OUTPUT/noisy and its halves OUTPUT/even and OUTPUT/odd (noisy = even + odd, noise independent).
    OUTPUT/clean has the expected counts without noise, OUTPUT/particles_only those of the particles in even ice.
    OUTPUT/micrographs.star is RELION 3.1's, with the true CTF. OUTPUT/noisy/mic_0001_truth.star and so on say where the
    particles lie, how they are turned and what they are; OUTPUT/coordinates.star lists these files.

    Particles are spheres, shells, rods, rings and clusters; or random molecules; or the molecules of maps and structures.
    They lie at their own heights in uneven ice; the contrast is that of weak phase objects.

    Example: cryoplug simulate -o simulated --count 6 --size 2048 --pixel-size 2.6 --dose 40 --defocus 0.8 2.5
    """
    from cryoplug.reports.html import counted
    from cryoplug.workflows import simulate as workflow

    request = workflow.simulate_request(output=output, **fields)
    with file_progress("simulate", as_json=as_json) as show:
        batch = workflow.simulate(request, show, expect=show.expect)
    star = batch.outputs[0]
    summary = {"output": output, "star": star, **batch.details}
    count = counted(request.count, "micrograph")
    text = f"{printable_name(star)}: {count}, {request.settings.counts_per_pixel:.1f} counts per pixel"
    echo_result(summary, as_json=as_json, type="simulation", text=text)
    say_next("simulate", "convert", "--pairs", "halves", star, "-o", output / "store")
    return batch.exit_code
