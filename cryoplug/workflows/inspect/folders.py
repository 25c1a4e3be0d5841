"""List the contents of a folder and its subfolders: micrographs, lists, stores, runs, and files that are skipped."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryoplug.inputs.discovered import searched_endings
from cryoplug.models.shipped import is_general
from cryoplug.workflows.inspect.runs import is_checkpoint, is_run
from cryoplug.workflows.inspect.stores import is_store

_LISTS = (".star", ".cs")


@dataclass(frozen=True)
class FolderPart:
    """One folder without its subfolders, or one path that is inspected as a whole."""

    path: Path
    """Path as the user named it, or a path below that."""
    whole: bool = False
    """Whether the path is inspected as a whole: a store, checkpoint, run, plain file, or unreadable folder."""
    images: tuple[Path, ...] = ()
    """Micrographs, STAR files and datasets directly in this folder, sorted."""
    others: dict[str, int] = field(default_factory=dict)
    """Number of other files, by ending; ``hidden`` counts hidden files and everything that is neither file nor folder."""
    not_entered: tuple[str, ...] = ()
    """Names of subfolders that are not searched: hidden ones, and links to a folder that was already searched."""

    @property
    def anything(self) -> bool:
        """Whether the folder holds anything except subfolders."""
        return bool(self.images or self.others or self.not_entered)


def look_into(path: Path) -> Iterator[FolderPart]:
    """Give a folder, then its subfolders, each once and sorted by name, in the order of `convert` and `denoise`.

    Parameters
    ----------
    path
        Any path; what is not a plain folder is given as a whole.
    """
    yield from _look_into(path, set())


def _look_into(path: Path, seen: set[tuple[int, int]]) -> Iterator[FolderPart]:
    # A plain folder stands for what lies in it; a store or a run stays whole.
    if is_general(path):
        yield FolderPart(path, whole=True)
        return
    try:
        if not path.is_dir() or _is_one_thing(path):
            yield FolderPart(path, whole=True)
            return
        status = path.stat()
        seen.add((status.st_dev, status.st_ino))
        images: list[Path] = []
        folders: list[str] = []
        not_entered: list[str] = []
        others = Counter[str]()
        known = (*searched_endings(), *_LISTS)
        with os.scandir(path) as entries:
            for entry in entries:
                hidden = entry.name.startswith(".")
                if _is_folder(entry):
                    status = entry.stat()
                    again = (status.st_dev, status.st_ino) in seen
                    (not_entered if hidden or again else folders).append(entry.name)
                elif hidden:
                    others["hidden"] += 1
                elif entry.name.lower().endswith(known):
                    images.append(path / entry.name)
                else:
                    others[Path(entry.name).suffix.lower() or "without ending"] += 1
    except OSError:
        yield FolderPart(path, whole=True)
        return
    yield FolderPart(path, False, tuple(sorted(images)), dict(sorted(others.items())), tuple(sorted(not_entered)))
    for name in sorted(folders):
        below = path / name
        status = below.stat()
        if (status.st_dev, status.st_ino) not in seen:  # a link may lead to one that was looked into meanwhile
            yield from _look_into(below, seen)


def is_image(path: Path) -> bool:
    """Tell whether a path is a file whose ending is that of a micrograph, stack or movie."""
    return path.name.lower().endswith(tuple(searched_endings())) and path.is_file()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # such as a link to itself, which is wrong for itself and not the folder's fault


def _is_one_thing(path: Path) -> bool:
    """Tell whether a folder is a store, a checkpoint or a run, or holds only runs."""
    if is_store(path) or is_checkpoint(path) or is_run(path):
        return True
    runs = runs_below(path)
    if not runs:
        return False
    tops = {run.relative_to(path).parts[0] for run in runs}
    endings = (*searched_endings(), *_LISTS)
    return all(
        item.name in tops or item.name.startswith(".") if item.is_dir() else not item.name.lower().endswith(endings)
        for item in path.iterdir()
    )


def runs_below(path: Path) -> list[Path]:
    """Give the runs and checkpoints directly in a folder, or in its subfolder ``saved_models``."""
    folders = sorted(item for item in path.iterdir() if item.is_dir() and not item.name.startswith("."))
    runs = [item for item in folders if is_run(item) or is_checkpoint(item)]
    parents = [item for item in folders if item.name == "saved_models"] if not runs else []
    return runs or [run for parent in parents for run in runs_below(parent)]
