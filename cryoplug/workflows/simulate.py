"""Write simulated micrographs: noisy, its even and odd halves, the truth, and a RELION 3.1 STAR that lists them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cryoplug.core.results import BatchResult, FileResult
from cryoplug.errors import CryoplugError, FormatError, UsageError
from cryoplug.formats.mrc import MrcMovie, read_header, write_mrc
from cryoplug.formats.star import StarBlock, StarFile, write_star
from cryoplug.simulation.density_map import DensityMap
from cryoplug.simulation.micrograph import SimulatedMicrograph, SimulationSettings, simulate_micrograph

KINDS = ("noisy", "even", "odd", "clean", "particles_only")
"""The folders of an output, one image each per micrograph."""

MAX_COUNT = 100_000
"""Most micrographs of one call."""


@dataclass(frozen=True)
class SimulateRequest:
    """What to simulate and where to write it."""

    output: Path
    """Folder that gets a folder for each of `KINDS`, and ``micrographs.star``."""
    count: int = 6
    """Number of micrographs, 1 to 100000."""
    settings: SimulationSettings = field(default_factory=SimulationSettings)
    """How they look."""
    overwrite: bool = False
    """Replace micrographs that were made with other settings; without it they are refused."""

    def __post_init__(self) -> None:
        """Refuse a count out of range."""
        if not 1 <= self.count <= MAX_COUNT:
            raise UsageError(f"count: {self.count}; allowed 1 to {MAX_COUNT}")


def simulate(request: SimulateRequest, progress: Callable[[FileResult], None] = lambda result: None) -> BatchResult:
    """Make the micrographs one by one and list them in a STAR.

    A micrograph whose files are all there and carry the label of the same settings is skipped, so a call that was
    stopped goes on where it was. Micrograph n depends on the settings and n alone: a larger count adds to the others.

    Parameters
    ----------
    request
        What to make.
    progress
        Called with the result of each micrograph.

    Returns
    -------
    BatchResult
        One result per micrograph, named by its noisy image; `outputs` holds the STAR.

    Raises
    ------
    UsageError
        The output holds micrographs of other settings and `overwrite` is not set; nothing was written.
    StorageError
        The system refused to write.
    """
    finished = [_is_finished(request, index) for index in range(request.count)]
    if not request.overwrite:
        _refuse_foreign(request, finished)
    results, defoci = [], []
    for index in range(request.count):
        started = time.perf_counter()
        noisy = _path(request, "noisy", index)
        defoci.append(request.settings.defocus_of(index))
        if finished[index] and not request.overwrite:
            result = FileResult(noisy, "skipped", noisy, "already there, made with the same settings")
        else:
            _write(request, index, simulate_micrograph(request.settings, index))
            result = FileResult(noisy, "done", noisy, seconds=time.perf_counter() - started)
        results.append(result)
        progress(result)
    star = request.output / "micrographs.star"
    write_star(star, micrograph_star(request, defoci))
    details = {
        "settings": request.settings.digest(),
        "defocus_um": [round(value, 4) for value in defoci],
        "counts_per_pixel": request.settings.counts_per_pixel,
    }
    return BatchResult(tuple(results), (star,), details)


def read_density(path: Path, threshold: float | None = None) -> DensityMap:
    """Read a density map in MRC or CCP4 format.

    Parameters
    ----------
    path
        The map; its voxels must be cubes.
    threshold
        Density above which a voxel belongs to the molecule; None: mean plus one standard deviation.

    Raises
    ------
    FormatError
        It cannot be read, holds no volume, or the size of its voxels is not known.
    """
    with MrcMovie(path) as volume:
        if volume.frame_count < 2:
            raise FormatError(f"{path}: one section, an image and not a volume; give a density map")
        if volume.pixel_size_angstrom is None:
            raise FormatError(f"{path}: the header tells no voxel size; set it (cell lengths over mx, my, mz)")
        voxels = np.stack([volume.read_frame(index) for index in range(volume.frame_count)])
        return DensityMap(voxels, volume.pixel_size_angstrom, threshold, name=path.stem)


def micrograph_star(request: SimulateRequest, defoci_um: list[float]) -> StarFile:
    """List the noisy micrographs as RELION 3.1 does: one optics group, paths as the output was given.

    Parameters
    ----------
    request
        Names and settings. RELION reads paths relative to the folder it runs in, so give `output` relative to that.
    defoci_um
        Underfocus of each micrograph.
    """
    settings = request.settings
    optics = {
        "rlnOpticsGroupName": "opticsGroup1",
        "rlnOpticsGroup": "1",
        "rlnMicrographOriginalPixelSize": f"{settings.pixel_size_angstrom:.6f}",
        "rlnMicrographPixelSize": f"{settings.pixel_size_angstrom:.6f}",
        "rlnVoltage": f"{settings.voltage_kv:.6f}",
        "rlnSphericalAberration": f"{settings.spherical_aberration_mm:.6f}",
        "rlnAmplitudeContrast": f"{settings.amplitude_contrast:.6f}",
    }
    columns = ["rlnMicrographName", "rlnOpticsGroup", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"]
    rows = [
        [str(_path(request, "noisy", index)), "1", f"{defocus * 1e4:.2f}", f"{defocus * 1e4:.2f}", "0.00"]
        for index, defocus in enumerate(defoci_um)
    ]
    return StarFile(
        blocks=[
            StarBlock("optics", True, list(optics), [list(optics.values())], ["# version 30001"]),
            StarBlock("micrographs", True, columns, rows, ["# version 30001"]),
        ],
        path=request.output / "micrographs.star",
    )


def _path(request: SimulateRequest, kind: str, index: int) -> Path:
    return request.output / kind / f"mic_{index + 1:04d}.mrc"


def _label(request: SimulateRequest, kind: str, index: int) -> str:
    return f"cryoplug simulate {request.settings.digest()} {kind} {index + 1}"


def _write(request: SimulateRequest, index: int, micrograph: SimulatedMicrograph) -> None:
    pixel = request.settings.pixel_size_angstrom
    for kind in KINDS:
        pixels: npt.NDArray[np.float32] = getattr(micrograph, kind)
        write_mrc(_path(request, kind, index), pixels, pixel_size_angstrom=pixel, label=_label(request, kind, index))


def _is_finished(request: SimulateRequest, index: int) -> bool:
    return all(_carries_label(_path(request, kind, index), _label(request, kind, index)) for kind in KINDS)


def _carries_label(path: Path, label: str) -> bool:
    if not path.is_file():
        return False
    try:
        record = read_header(path).record
    except CryoplugError:
        return False
    labels = [bytes(line).rstrip(b" \0") for line in record["label"][: int(record["nlabl"])]]
    return any(line.endswith(label.encode()) for line in labels)


def _refuse_foreign(request: SimulateRequest, finished: list[bool]) -> None:
    """Refuse files that this call would replace and did not make itself."""
    foreign = [
        path
        for index, done in enumerate(finished)
        if not done
        for kind in KINDS
        if (path := _path(request, kind, index)).exists() and not _carries_label(path, _label(request, kind, index))
    ]
    star = request.output / "micrographs.star"
    if star.exists() and not any(finished):
        foreign.append(star)
    if foreign:
        raise UsageError(
            f"{foreign[0]}: is there ({len(foreign)} such files) and was not made with these settings; "
            "choose another output, or replace them with --overwrite"
        )
