"""Write simulated micrographs: noisy images, their halves, the truth, the places of the particles, and RELION's lists."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cryoplug.core.outlook import Expect, Outlook, unwatched
from cryoplug.core.results import BatchResult, FileResult
from cryoplug.disk.atomic import write_text
from cryoplug.disk.output_folder import refuse_file
from cryoplug.errors import CryoplugError, FormatError, UsageError, not_allowed
from cryoplug.formats.mrc import MrcMovie, read_header, write_mrc
from cryoplug.formats.star import write_star
from cryoplug.machine.devices import device_errors, device_problems, resolve_device
from cryoplug.simulation.density_map import DensityMap, particle_from_map
from cryoplug.simulation.micrograph import SimulatedMicrograph, simulate_micrograph
from cryoplug.simulation.optics import Optics
from cryoplug.simulation.settings import SIMULATOR, SimulationSettings
from cryoplug.simulation.specimen import ParticleModel
from cryoplug.simulation.structures import particle_from_structure, read_structure
from cryoplug.workflows.simulate.star import SUFFIX, coordinate_list, coordinate_star, micrograph_star

KINDS = ("noisy", "even", "odd", "clean", "particles_only")
"""The folders of an output; each gets one image of each micrograph."""

LISTS = ("micrographs.star", "coordinates.star")
"""The files beside the folders: RELION's list of micrographs, and for RELION 4 and later that of their coordinates."""
JOB_LIST = f"coords_suffix{SUFFIX}"
"""File that RELION 3.1 takes for the result of a picking job; only in an output with the name of a RELION job."""
_JOB = re.compile(r"(.*/)?[^/]+/job\d{3,}")

MAX_COUNT = 100_000
"""Most micrographs of one call."""


@dataclass(frozen=True)
class SimulateRequest:
    """What to simulate, and where to write it."""

    output: Path
    """Output folder, for a folder of each of `KINDS` and the STAR files; coordinates lie beside the noisy images."""
    count: int = 6
    """Number of micrographs, 1 to 100000."""
    settings: SimulationSettings = field(default_factory=SimulationSettings)
    """Settings of the micrographs."""
    device: str = "cpu"
    """Where to compute: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. On a GPU ice, noise and the label differ."""
    overwrite: bool = False
    """Whether to replace micrographs of other settings or another simulator; else they are an error."""

    def __post_init__(self) -> None:
        """Refuse a count out of range, and an unknown device."""
        problems = list(device_problems(self.device))
        if not 1 <= self.count <= MAX_COUNT:
            problems.append(not_allowed("--count", self.count, f"1 to {MAX_COUNT}"))
        if problems:
            raise UsageError("; ".join(problems))


def simulate(
    request: SimulateRequest,
    progress: Callable[[FileResult], None] = lambda result: None,
    *,
    expect: Expect = unwatched,
) -> BatchResult:
    """Make the micrographs one by one, and list them in a STAR file.

    A micrograph is skipped if all its files exist and have the label of the same settings and simulator, so a call that was
    stopped goes on where it was. Micrograph n depends only on the settings and n, so a larger count adds to the existing ones.

    Parameters
    ----------
    request
        The request.
    progress
        Called with the result of each micrograph.
    expect
        Called with the number of micrographs.

    Returns
    -------
    BatchResult
        One result for each micrograph, named by its noisy image; `outputs` holds the STAR file.

    Raises
    ------
    UsageError
        The output is a file, or holds micrographs of other settings or another simulator and `overwrite` is not set; nothing
        was written.
    StorageError
        The system refused to write.
    """
    refuse_file(request.output)
    device = resolve_device(request.device)
    request = dataclasses.replace(request, device=device.type)
    finished = [_is_finished(request, index) for index in range(request.count)]
    if not request.overwrite:
        _refuse_foreign(request, finished)
    results = []
    expect(Outlook(request.count))
    for index in range(request.count):
        started = time.perf_counter()
        noisy = _path(request, "noisy", index)
        if finished[index] and not request.overwrite:
            result = FileResult(noisy, "skipped", noisy, "already there, made with the same settings")
        else:
            with device_errors():
                micrograph = simulate_micrograph(request.settings, index, device=device)
            _write(request, index, micrograph)
            message = _missing_particles(request.settings.particles, len(micrograph.particles))
            result = FileResult(noisy, "done", noisy, message, seconds=time.perf_counter() - started)
        results.append(result)
        progress(result)
    optics = [request.settings.optics_of(index) for index in range(request.count)]
    stars = _write_lists(request, optics)
    details = {
        "settings": request.settings.digest(),
        "defocus_um": [round(lens.defocus_um, 4) for lens in optics],
        "counts_per_pixel": request.settings.counts_per_pixel,
    }
    return BatchResult(tuple(results), stars, details)


def chosen_specimen(asked: str | None, *, given: bool) -> str:
    """Return the kind of invented particles; raise an error if molecules are given, too."""
    if asked and given:
        raise UsageError(f"--specimen {asked}: molecules are given by --map or --model; leave out one or the other")
    return asked or "shapes"


def chosen_kinds(asked: int | None, *, specimen: str) -> int:
    """Return the number of random molecules; raise an error if there are none to choose."""
    if asked is not None and specimen != "random":
        raise UsageError(f"--kinds {asked}: this is the number of random molecules; give --specimen random with it")
    return SimulationSettings.kinds if asked is None else asked


def read_molecules(
    maps: Sequence[Path], models: Sequence[Path], *, thresholds: Sequence[float] = ()
) -> tuple[ParticleModel, ...]:
    """Make particles from density maps and structures; see `read_density` and `read_structure`.

    Raises
    ------
    UsageError
        There are thresholds, but not one for each map; or gemmi is missing.
    InputError
        A file is missing, or holds no molecule.
    """
    if thresholds and len(thresholds) != len(maps):
        raise UsageError(f"--map-threshold: {len(thresholds)} for {len(maps)} maps; give one for each map, or none")
    levels: Sequence[float | None] = thresholds or [None] * len(maps)
    of_maps = [particle_from_map(read_density(path, level)) for path, level in zip(maps, levels, strict=True)]
    return (*of_maps, *(particle_from_structure(read_structure(path)) for path in models))


def read_density(path: Path, threshold: float | None = None) -> DensityMap:
    """Read a density map in MRC or CCP4 format.

    Parameters
    ----------
    path
        The map; its voxels must be cubes. Axes in another order, as the header says, are sorted.
    threshold
        Density above which a voxel belongs to the molecule; None takes mean plus one standard deviation.

    Raises
    ------
    FormatError
        It cannot be read, holds no volume, or the size of its voxels is not known.
    """
    with MrcMovie(path) as volume:
        if volume.frame_count < 2:
            raise FormatError(f"{path}: one section, an image and not a volume; give a density map")
        if volume.pixel_size_angstrom is None:
            raise FormatError(f"{path}: the header has no voxel size; set it (cell lengths over mx, my, mz)")
        voxels = np.stack([volume.read_frame(index) for index in range(volume.frame_count)])
        record = read_header(path).record
        axes = [int(record[name]) for name in ("maps", "mapr", "mapc")]
        if sorted(axes) == [1, 2, 3]:
            voxels = np.ascontiguousarray(voxels.transpose([axes.index(axis) for axis in (3, 2, 1)]))
        return DensityMap(voxels, volume.pixel_size_angstrom, threshold, name=path.stem)


def _missing_particles(asked: int | None, listed: int) -> str:
    if asked is None or asked == listed:
        return ""
    return f"{listed} of {asked} particles can be seen; the others found no place, or dirt hides them"


def _write_lists(request: SimulateRequest, optics: list[Optics]) -> tuple[Path, ...]:
    """Write the list of micrographs, and the lists of their coordinates."""
    names = [str(_path(request, "noisy", index)) for index in range(request.count)]
    coordinates = [str(_coordinates(request, index)) for index in range(request.count)]
    micrographs, listed = (request.output / name for name in LISTS)
    write_star(micrographs, micrograph_star(request.settings, optics, names, micrographs))
    write_star(listed, coordinate_list(names, coordinates, listed))
    if _is_job(request):
        write_text(request.output / JOB_LIST, f"{micrographs}\n")
    return micrographs, listed


def _path(request: SimulateRequest, kind: str, index: int) -> Path:
    return request.output / kind / f"mic_{index + 1:04d}.mrc"


def _coordinates(request: SimulateRequest, index: int) -> Path:
    noisy = _path(request, "noisy", index)
    return noisy.with_name(noisy.stem + SUFFIX)


def _is_job(request: SimulateRequest) -> bool:
    return _JOB.fullmatch(request.output.as_posix()) is not None


def _label(request: SimulateRequest, kind: str, index: int) -> str:
    device = "" if request.device == "cpu" else f"{request.device} "
    return f"cryoplug simulator {SIMULATOR} settings {request.settings.digest()} {device}{kind} {index + 1}"


def _write(request: SimulateRequest, index: int, micrograph: SimulatedMicrograph) -> None:
    pixel = request.settings.pixel_size_angstrom
    for kind in KINDS:
        pixels: npt.NDArray[np.float32] = getattr(micrograph, kind)
        write_mrc(_path(request, kind, index), pixels, pixel_size_angstrom=pixel, label=_label(request, kind, index))
    path = _coordinates(request, index)
    write_star(path, coordinate_star(micrograph.particles, _label(request, "particles", index), path))


def _is_finished(request: SimulateRequest, index: int) -> bool:
    images = all(_carries_label(_path(request, kind, index), _label(request, kind, index)) for kind in KINDS)
    return images and _is_star_of(_coordinates(request, index), _label(request, "particles", index))


def _is_star_of(path: Path, label: str) -> bool:
    try:
        with path.open("rb") as stream:
            return label.encode() in stream.read(4096)
    except OSError:
        return False


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
    """Raise an error if this call would replace files that it did not make."""
    foreign = [
        path
        for index, done in enumerate(finished)
        if not done
        for kind in KINDS
        if (path := _path(request, kind, index)).exists() and not _carries_label(path, _label(request, kind, index))
    ]
    foreign += [
        path
        for index, done in enumerate(finished)
        if not done
        and (path := _coordinates(request, index)).exists()
        and not _is_star_of(path, _label(request, "particles", index))
    ]
    if not any(finished):
        lists = (*LISTS, JOB_LIST) if _is_job(request) else LISTS
        foreign += [path for name in lists if (path := request.output / name).exists()]
    if foreign:
        raise UsageError(
            f"{foreign[0]}: is there ({len(foreign)} such files), but not from these settings and this simulator "
            f"(number {SIMULATOR}); choose another output, or replace them with --overwrite"
        )
