"""STAR files of simulated micrographs: the list with the true CTF, and the true places of the particles.

RELION 3.1 looks for coordinates below a folder, under the path of the micrograph without ``X/jobNNN/``. It finds those of
``Simulate/job001/noisy/mic_0001.mrc`` with ``--coord_dir Simulate/job001/ --coord_suffix _truth.star``, and those of
``simulated/noisy/mic_0001.mrc`` with ``--coord_dir ./``. RELION 4 and later read ``coordinates.star``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cryoplug.formats.star import StarFile
from cryoplug.formats.star_frames import star_from_tables
from cryoplug.simulation.optics import Optics
from cryoplug.simulation.placing import TrueParticle
from cryoplug.simulation.settings import SimulationSettings
from cryoplug.simulation.specimen import FloatArray

SUFFIX = "_truth.star"
"""End of the name of a coordinate file, after the stem of its micrograph."""


def micrograph_star(
    settings: SimulationSettings, optics: Sequence[Optics], names: Sequence[str], path: Path
) -> StarFile:
    """List micrographs in the style of RELION 3.1: one optics group, each micrograph with its true defocus.

    Parameters
    ----------
    settings
        Pixel size and microscope.
    optics
        The lens of each micrograph.
    names
        Paths, beginning with the output folder as the user gave it. RELION reads paths relative to the folder in which it
        runs, so give the output relative to that.
    path
        Path of the list.
    """
    pixel_size = f"{settings.pixel_size_angstrom:.6f}"
    optics_group: dict[str, list[object]] = {
        "rlnOpticsGroupName": ["opticsGroup1"],
        "rlnOpticsGroup": [1],
        "rlnMicrographOriginalPixelSize": [pixel_size],
        "rlnMicrographPixelSize": [pixel_size],
        "rlnVoltage": [settings.voltage_kv],
        "rlnSphericalAberration": [settings.spherical_aberration_mm],
        "rlnAmplitudeContrast": [settings.amplitude_contrast],
    }
    micrographs: dict[str, list[object]] = {
        "rlnMicrographName": list(names),
        "rlnOpticsGroup": [1] * len(names),
        "rlnDefocusU": [f"{lens.defocus_angstrom[0]:.2f}" for lens in optics],
        "rlnDefocusV": [f"{lens.defocus_angstrom[1]:.2f}" for lens in optics],
        "rlnDefocusAngle": [f"{lens.astigmatism_angle_deg:.2f}" for lens in optics],
    }
    if settings.phase_shift_deg != (0.0, 0.0):
        micrographs["rlnPhaseShift"] = [f"{lens.phase_shift_deg:.3f}" for lens in optics]
    return star_from_tables({"optics": optics_group, "micrographs": micrographs}, path)


def coordinate_star(particles: Sequence[TrueParticle], label: str, path: Path) -> StarFile:
    """List the particles of one micrograph in the style of RELION's autopicking, with their true orientations.

    Parameters
    ----------
    particles
        The particles. ``rlnCoordinateX/Y`` count pixels from the first column and the first row of the MRC, whose centres are
        0. The Euler angles are RELION's, and turn the molecule around its centre of mass.
    label
        A comment: how they were made.
    path
        Path of the list.
    """
    angles = [euler_angles(each.rotation) for each in particles]
    table: dict[str, list[object]] = {
        "rlnCoordinateX": [f"{each.x_px:.3f}" for each in particles],
        "rlnCoordinateY": [f"{each.y_px:.3f}" for each in particles],
        "rlnClassNumber": [each.number for each in particles],
        "rlnAngleRot": [f"{rot:.4f}" for rot, _, _ in angles],
        "rlnAngleTilt": [f"{tilt:.4f}" for _, tilt, _ in angles],
        "rlnAnglePsi": [f"{psi:.4f}" for _, _, psi in angles],
        "rlnAutopickFigureOfMerit": [1.0] * len(particles),
        "cryoplugHeightAngstrom": [f"{-each.depth_angstrom:.1f}" for each in particles],
        "cryoplugParticleKind": [each.model.kind for each in particles],
        "cryoplugParticleName": [each.model.name.replace(" ", "_") for each in particles],
    }
    made = star_from_tables({"": table}, path)
    (block,) = made.blocks
    return replace(made, blocks=[replace(block, preamble=[f"# {label}", *block.preamble])])


def coordinate_list(names: Sequence[str], coordinates: Sequence[str], path: Path) -> StarFile:
    """List the coordinate file of each micrograph, in the style of RELION 4 and later."""
    table = {"rlnMicrographName": list(names), "rlnMicrographCoordinates": list(coordinates)}
    return star_from_tables({"coordinate_files": table}, path)


def euler_angles(rotation: FloatArray) -> tuple[float, float, float]:
    """Return RELION's angles rot, tilt and psi in degrees.

    Parameters
    ----------
    rotation
        ``(3, 3)``, turns (z, y, x) of the molecule into the frame of the microscope, with the beam along z.

    Returns
    -------
    tuple of float
        ``A = Rz(psi) Ry(tilt) Rz(rot)`` of the vectors (x, y, z), each R turning the axes rather than the vectors
        (Heymann, Chagoyen and Belnap 2005); tilt in [0, 180], the others in [-180, 180].
    """
    matrix = rotation[::-1, ::-1]
    tilt = np.arctan2(np.hypot(matrix[2, 0], matrix[2, 1]), matrix[2, 2])
    if np.hypot(matrix[2, 0], matrix[2, 1]) > 1e-9:
        rot, psi = np.arctan2(matrix[2, 1], matrix[2, 0]), np.arctan2(matrix[1, 2], -matrix[0, 2])
    else:
        # Seen along its own z axis, only the sum (or difference) of the two counts.
        rot, psi = 0.0, np.arctan2(-matrix[1, 0] if matrix[2, 2] > 0 else matrix[1, 0], matrix[1, 1])
    degrees = np.rad2deg([rot, tilt, psi])
    return float(degrees[0]), float(degrees[1]), float(degrees[2])
