"""Describe each path and everything that is wrong with it; nothing is changed, and a bad path does not stop the others."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryoplug.core.results import Finding
from cryoplug.errors import InputError, StorageError, UsageError, not_allowed
from cryoplug.inputs.companions import companions
from cryoplug.models.shipped import is_general
from cryoplug.reports.page_name import page_name_problems
from cryoplug.store.pairs import HDF5_SUFFIXES
from cryoplug.store.raw import MANIFEST_NAME, partial_name
from cryoplug.workflows.inspect.files import inspect_cs, inspect_micrograph, inspect_star
from cryoplug.workflows.inspect.folders import FolderPart, is_image, look_into, runs_below
from cryoplug.workflows.inspect.general import inspect_general
from cryoplug.workflows.inspect.inspection import InspectedFolder, Inspection, lacks_pixel_size
from cryoplug.workflows.inspect.runs import inspect_checkpoint, inspect_run, inspect_runs, is_checkpoint, is_run
from cryoplug.workflows.inspect.several import several_at_once
from cryoplug.workflows.inspect.stores import PAIR_BINS, inspect_store, is_store

__all__ = ["InspectRequest", "InspectResult", "Inspection", "inspect", "inspect_path"]


@dataclass(frozen=True)
class InspectRequest:
    """The paths to inspect, and how."""

    paths: tuple[Path, ...]
    """Micrographs, STAR files, stores, bare bins, checkpoints, run folders, or folders of these at any depth."""
    patch_size: int = 1024
    """Side in pixels of the square patches in bare bins; a store with a manifest knows its own."""
    verify: bool = False
    """Read every patch of a store, even of a large one, and compare it with its checksum."""
    quick: bool = False
    """Read only the headers of micrographs, stacks and movies."""
    system: bool = False
    """Describe this machine first: devices, versions and kernels."""
    report: Path | None = None
    """Path of the page to write (HTML); None: no page."""
    keep: bool = True
    """Keep all records for the result. Thousands need memory; `progress` gets each of them anyway."""

    def __post_init__(self) -> None:
        """Refuse patches without pixels."""
        if self.patch_size < 1:
            raise UsageError(not_allowed("--patch-size", self.patch_size, "1 or more"))
        for problem in page_name_problems(self.report):
            raise UsageError(problem)


@dataclass(frozen=True)
class InspectResult:
    """The findings at every path."""

    inspections: tuple[Inspection, ...] = field(default_factory=tuple)
    """One record per path, in the order of the request; a folder gives one record per path in it."""
    inspected: int = 0
    """Number of inspected paths."""
    wrong: int = 0
    """Number of paths with errors or warnings."""

    @property
    def exit_code(self) -> int:
        """1 when any finding is an error or a warning, else 0; notes do not count."""
        return int(self.wrong > 0 or any(item.wrong for item in self.inspections))


def inspect(
    request: InspectRequest,
    progress: Callable[[Inspection], None] | None = None,
    folder_done: Callable[[InspectedFolder], None] | None = None,
) -> InspectResult:
    """Inspect every path of a request.

    Parameters
    ----------
    request
        The paths.
    progress
        Called with each record as soon as it is ready.
    folder_done
        Called after the files directly in each folder.
    """
    found: list[Inspection] = []
    inspected = wrong = unsized = 0
    page = None
    if request.report is not None:
        from cryoplug.workflows.inspect.page import InspectPage

        page = InspectPage(request.report, request.patch_size)

    def take(item: Inspection) -> None:
        nonlocal inspected, wrong, unsized
        inspected += 1
        wrong += item.wrong
        unsized += lacks_pixel_size(item.summary)
        if request.keep:
            found.append(item)
        if progress is not None:
            progress(item)
        if page is not None:
            page.take(item)

    if request.system:
        from cryoplug.workflows.inspect.system import inspect_system

        take(inspect_system())
    look = functools.partial(inspect_path, patch_size=request.patch_size, verify=request.verify, quick=request.quick)
    before = 0, 0

    def remember() -> None:
        nonlocal before
        before = wrong, unsized

    def tell(part: FolderPart, companions_there: int) -> None:
        if folder_done is not None:
            folder_done(
                InspectedFolder(
                    part.path,
                    files=len(part.images),
                    wrong=wrong - before[0],
                    passed_over=part.others,
                    not_entered=part.not_entered,
                    companions=companions_there,
                    without_pixel_size=unsized - before[1],
                )
            )

    with several_at_once(look, take) as several:
        for path in request.paths:
            parts = list(look_into(path))
            aside = companions(name for part in parts for name in part.images)
            if not any(part.images or part.whole for part in parts):
                several.other(path)  # says that nothing is there
            for part in parts:
                several.then(remember)
                for name in part.images if not part.whole else (part.path,):
                    (several.image if is_image(name) and not request.quick else several.other)(name)
                if part.anything and not part.whole:
                    several.then(functools.partial(tell, part, sum(name in aside for name in part.images)))
    if page is not None:
        page.write()
    return InspectResult(tuple(found), inspected, wrong)


def inspect_path(path: Path, *, patch_size: int = 1024, verify: bool = False, quick: bool = False) -> Inspection:
    """Inspect one path; every problem becomes a finding, and nothing is raised.

    Parameters
    ----------
    path
        A file or a folder.
    patch_size
        Side in pixels of the patches in bare bins.
    verify
        Compare every patch of a store with its checksum.
    quick
        Read only the headers of micrographs, stacks and movies.
    """
    try:
        return _inspection(path, functools.partial(inspect_store, patch_size=patch_size, verify=verify), quick)
    except (InputError, StorageError) as error:
        return Inspection(path, "unusable", {}, (Finding("error", "path", _without_path(error, path)),))
    except OSError as error:
        message = f"{error.strerror or error}; check the permissions and the disk"
        return Inspection(path, "unusable", {}, (Finding("error", "path", message),))


def _inspection(path: Path, store: Callable[[Path], Inspection], quick: bool) -> Inspection:
    if is_general(path):
        return inspect_general(path)
    is_hdf5 = path.suffix.lower() in HDF5_SUFFIXES and not path.is_dir()
    if is_hdf5 and (path.is_file() or partial_name(path.parent, path.name).is_file()):
        return store(path)  # an unfinished one too: it says what to do
    if not os.path.lexists(path):
        return Inspection(path, "missing", {}, (Finding("error", "path", "no such file or folder; check the name"),))
    if not path.exists():
        message = f"a symbolic link to {path.readlink()}, which is not there; mount or restore its target"
        return Inspection(path, "missing", {}, (Finding("error", "path", message),))
    if path.is_dir():
        return _folder(path, store)
    if not path.is_file():
        message = "neither a file nor a folder (a device, pipe or socket); give a file"
        return Inspection(path, "unusable", {}, (Finding("error", "path", message),))
    if path.suffix.lower() == ".star":
        return inspect_star(path)
    if path.suffix.lower() == ".cs":
        return inspect_cs(path)
    if path.name == MANIFEST_NAME or path.name in PAIR_BINS:
        return store(path.parent)
    if is_checkpoint(path):
        return inspect_checkpoint(path)
    if path.suffix.lower() == ".bin":
        message = (
            f"a .bin file of another name (known: {', '.join(sorted(PAIR_BINS))}, conv*_weights.bin, conv*_bias.bin); "
            "give the folder of a store or of a checkpoint"
        )
        return Inspection(path, "unusable", {"size_bytes": path.stat().st_size}, (Finding("error", "path", message),))
    return inspect_micrograph(path, quick=quick)


def _folder(path: Path, store: Callable[[Path], Inspection]) -> Inspection:
    if is_store(path):
        return store(path)
    if is_checkpoint(path):
        return inspect_checkpoint(path)
    if is_run(path):
        return inspect_run(path)
    if runs_below(path):
        return inspect_runs(path, runs_below(path))
    message = (
        "holds no micrograph, STAR file, store (dataset.json, *_train.bin), checkpoint (conv*_weights.bin, "
        "model.safetensors) or run (epoch_NNNN); give the path of one of these"
    )
    return Inspection(path, "unusable", {}, (Finding("error", "path", message),))


def _without_path(error: Exception, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")
