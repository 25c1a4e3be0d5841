"""Make the request of ``simulate`` from its options, for the command line and for Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryoplug.simulation.settings import SimulationSettings
from cryoplug.workflows.simulate.workflow import SimulateRequest, chosen_kinds, chosen_specimen, read_molecules


def simulate_request(
    *,
    output: Path,
    count: int,
    size: int,
    pixel_size: float,
    dose: float,
    defocus: tuple[float, float],
    particles: int | None,
    specimen: str | None,
    kinds: int | None,
    maps: Sequence[Path],
    thresholds: Sequence[float],
    models: Sequence[Path],
    voltage: float,
    cs: float,
    amplitude_contrast: float,
    astigmatism: tuple[float, float],
    phase_shift: tuple[float, float],
    ice_thickness: float,
    ice_grain: float,
    dirt: bool,
    detector: str,
    device: str,
    seed: int,
    overwrite: bool,
) -> SimulateRequest:
    """Read the molecules and check everything. Options are those of the command, and fields of `SimulationSettings`."""
    chosen = chosen_specimen(specimen, given=bool(maps or models))
    settings = SimulationSettings(
        size_px=size,
        pixel_size_angstrom=pixel_size,
        dose_e_per_angstrom2=dose,
        defocus_um=defocus,
        particles=particles,
        seed=seed,
        voltage_kv=voltage,
        spherical_aberration_mm=cs,
        amplitude_contrast=amplitude_contrast,
        astigmatism_angstrom=astigmatism,
        phase_shift_deg=phase_shift,
        ice_grain_rad=ice_grain,
        ice_thickness_angstrom=ice_thickness,
        specimen=chosen,
        kinds=chosen_kinds(kinds, specimen=chosen),
        molecules=read_molecules(maps, models, thresholds=thresholds),
        detector=detector,
        dirt=dirt,
    )
    return SimulateRequest(output=output, count=count, settings=settings, device=device, overwrite=overwrite)
