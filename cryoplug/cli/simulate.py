"""``cryoplug simulate``: make micrographs with a known truth."""

from __future__ import annotations

from pathlib import Path

import click

from cryoplug.cli.options import CryoplugCommand, json_option, overwrite_option
from cryoplug.cli.output import echo_result, printable_name
from cryoplug.cli.progress import file_progress


@click.command(cls=CryoplugCommand)
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="Output folder.")
@click.option("--count", type=int, default=6, show_default=True, help="Number of micrographs.")
@click.option("--size", type=int, default=2048, show_default=True, help="Side of a micrograph in pixels.")
@click.option("--pixel-size", type=float, default=2.6, show_default=True, help="Sampling in angstrom.")
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
@click.option("--particles", type=int, default=None, help="Particles on each micrograph [default: by its area].")
@click.option(
    "--ice-grain",
    type=float,
    default=0.012,
    show_default=True,
    help="Rms phase of the grain of the ice, in radians.",
)
@click.option(
    "--map",
    "density",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Density map (MRC, CCP4) of the molecule [default: five invented shapes].",
)
@click.option(
    "--map-threshold", type=float, help="Density that belongs to the molecule [default: above mean plus one sigma]."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Micrograph n follows from the seed and n alone.")
@overwrite_option
@json_option
@click.pass_context
def simulate(
    ctx: click.Context,
    output: Path,
    count: int,
    size: int,
    pixel_size: float,
    dose: float,
    defocus: tuple[float, float],
    particles: int | None,
    ice_grain: float,
    density: Path | None,
    map_threshold: float | None,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Make micrographs with a known truth.

    Writes OUTPUT/noisy, its halves OUTPUT/even and OUTPUT/odd (noisy = even + odd, noise independent), the expected
    counts without noise OUTPUT/clean, those of the particles in even ice OUTPUT/particles_only, and
    OUTPUT/micrographs.star. A map's molecule, or spheres, shells, rods, rings and clusters, in uneven ice; weak-phase
    CTF at 300 kV, Cs 2.7 mm, amplitude contrast 0.1; counting detector, Poisson noise.

    Example: cryoplug simulate -o simulated --count 6 --size 2048 --pixel-size 2.6 --dose 40 --defocus 0.8 2.5
    """
    from cryoplug.core.results import FileResult
    from cryoplug.simulation.micrograph import SimulationSettings
    from cryoplug.workflows import simulate as workflow

    settings = SimulationSettings(
        size_px=size,
        pixel_size_angstrom=pixel_size,
        dose_e_per_angstrom2=dose,
        defocus_um=defocus,
        particles=particles,
        seed=seed,
        ice_grain_rad=ice_grain,
        density=None if density is None else workflow.read_density(density, map_threshold),
    )

    request = workflow.SimulateRequest(output=output, count=count, settings=settings, overwrite=overwrite)
    with file_progress("simulate") as show:

        def tell(result: FileResult) -> None:
            echo_result(result, as_json=as_json)
            show(result)

        batch = workflow.simulate(request, tell)
    star = batch.outputs[0]
    summary = {"output": output, "star": star, **batch.details}
    text = f"{printable_name(star)}: {count} micrographs, {settings.counts_per_pixel:.1f} counts per pixel"
    echo_result(summary, as_json=as_json, text=text)
    ctx.exit(batch.exit_code)
