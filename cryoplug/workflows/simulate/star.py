"""STAR files of simulated micrographs: the list with the true CTF, and where the particles truly lie.

RELION 3.1 looks for coordinates below a folder, under the path of the micrograph without ``X/jobNNN/``: those of
``Simulate/job001/noisy/mic_0001.mrc`` with ``--coord_dir Simulate/job001/ --coord_suffix _truth.star``, those of
``simulated/noisy/mic_0001.mrc`` with ``--coord_dir ./``. RELION 4 and later take ``coordinates.star``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cryoplug.formats.star import StarBlock, StarFile
from cryoplug.simulation.optics import Optics
from cryoplug.simulation.placing import TrueParticle
from cryoplug.simulation.settings import SimulationSettings
from cryoplug.simulation.specimen import FloatArray

VERSION = "# version 30001"
SUFFIX = "_truth.star"
"""What follows the stem of a micrograph in the name of its coordinates."""


def micrograph_star(
    settings: SimulationSettings, optics: Sequence[Optics], names: Sequence[str], path: Path
) -> StarFile:
    """List micrographs as RELION 3.1 does: one optics group, each with its true defocus.

    Parameters
    ----------
    settings
        Pixel size and microscope.
    optics
        The lens of each micrograph.
    names
        Paths as the output was given. RELION reads paths relative to the folder it runs in, so give the output relative to
        that.
    path
        Where the list will lie.
    """
    group = {
        "rlnOpticsGroupName": "opticsGroup1",
        "rlnOpticsGroup": "1",
        "rlnMicrographOriginalPixelSize": f"{settings.pixel_size_angstrom:.6f}",
        "rlnMicrographPixelSize": f"{settings.pixel_size_angstrom:.6f}",
        "rlnVoltage": f"{settings.voltage_kv:.6f}",
        "rlnSphericalAberration": f"{settings.spherical_aberration_mm:.6f}",
        "rlnAmplitudeContrast": f"{settings.amplitude_contrast:.6f}",
    }
    columns = ["rlnMicrographName", "rlnOpticsGroup", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"]
    rows = []
    for name, lens in zip(names, optics, strict=True):
        first, second = lens.defocus_angstrom
        rows.append([name, "1", f"{first:.2f}", f"{second:.2f}", f"{lens.astigmatism_angle_deg:.2f}"])
    if settings.phase_shift_deg != (0.0, 0.0):
        columns.append("rlnPhaseShift")
        for row, lens in zip(rows, optics, strict=True):
            row.append(f"{lens.phase_shift_deg:.3f}")
    return StarFile(
        blocks=[
            StarBlock("optics", True, list(group), [list(group.values())], [VERSION]),
            StarBlock("micrographs", True, columns, rows, [VERSION]),
        ],
        path=path,
    )


def coordinate_star(particles: Sequence[TrueParticle], label: str, path: Path) -> StarFile:
    """List the particles of one micrograph as RELION's autopicking does, with their true orientations.

    Parameters
    ----------
    particles
        Where they lie. ``rlnCoordinateX/Y`` count pixels from the first column and the first row of the MRC, whose centres
        are 0; the Euler angles turn the molecule, centre of mass at the origin, as RELION's do.
    label
        Says what made them; a comment.
    path
        Where the list will lie.
    """
    columns = ["rlnCoordinateX", "rlnCoordinateY", "rlnClassNumber", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
    columns += ["rlnAutopickFigureOfMerit", "cryoplugHeightAngstrom", "cryoplugParticleKind", "cryoplugParticleName"]
    rows = []
    for each in particles:
        angles = [f"{angle:.4f}" for angle in euler_angles(each.rotation)]
        words = [each.model.kind, each.model.name.replace(" ", "_")]
        place = [f"{each.x_px:.3f}", f"{each.y_px:.3f}", str(each.number)]
        rows.append([*place, *angles, "1.000000", f"{each.height_angstrom:.1f}", *words])
    return StarFile(blocks=[StarBlock("", True, columns, rows, [f"# {label}", VERSION])], path=path)


def coordinate_list(names: Sequence[str], coordinates: Sequence[str], path: Path) -> StarFile:
    """List the coordinate file of each micrograph, as RELION 4 and later do."""
    rows = [list(pair) for pair in zip(names, coordinates, strict=True)]
    columns = ["rlnMicrographName", "rlnMicrographCoordinates"]
    return StarFile(blocks=[StarBlock("coordinate_files", True, columns, rows, ["# version 30001"])], path=path)


def euler_angles(rotation: FloatArray) -> tuple[float, float, float]:
    """Return RELION's angles rot, tilt and psi in degrees.

    Parameters
    ----------
    rotation
        ``(3, 3)``, takes (z, y, x) of the molecule to the microscope, the beam along z.

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
