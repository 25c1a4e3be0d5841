"""Where the results of a run go, and which files must never be overwritten."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cryoplug.disk.atomic import PARTIAL_SUFFIX, advice_on
from cryoplug.disk.claims import CLAIM_SUFFIX
from cryoplug.errors import StorageError, UsageError
from cryoplug.inputs.discovered import STACK_ENDINGS, DiscoveredMicrograph, known_endings, split_ending

RECORD_FOLDER = ".cryoplug"
"""Folder of records, below the output folder. If it is deleted, finished files are not recognised any more."""
_PROBE_BYTES = 4096
_LONGEST_NAME_BYTES = 217
"""Longest name of an output: a file name has at most 255 bytes, and while a record is written, its name is 38 bytes longer."""


@dataclass(frozen=True)
class PlannedOutput:
    """One micrograph and the file that will be made from it."""

    micrograph: DiscoveredMicrograph
    """The micrograph to read."""
    target: Path
    """The file to write."""
    record: Path
    """The small file that says how `target` was made."""

    @property
    def claim(self) -> Path:
        """The file by which a process claims this micrograph while it works on it."""
        return self.record.with_suffix(CLAIM_SUFFIX)

    @property
    def shown(self) -> Path:
        """The micrograph as people name it: ``000012@stack.mrcs`` for a section."""
        return self.micrograph.shown


class OutputPlanner:
    """Chooses the names of results below a folder; micrographs may be added one after another.

    A result has the name of its micrograph with the ending ``.mrc``; a stack keeps its ending (``.mrcs``, ``.st``, ``.ali``).
    If two micrographs differ only in their endings, the one that is not MRC keeps its own ending, too: ``a.tif.mrc``.

    Parameters
    ----------
    folder
        The output folder.
    reserved
        Files that no result may replace: a STAR file, a journal.
    """

    def __init__(self, folder: Path, *, reserved: Iterable[Path] = ()) -> None:
        self._folder = folder
        self._root = Path(os.path.realpath(folder))  # Path.resolve raises RuntimeError for a link to itself
        self._endings = known_endings()
        self._absolute = os.path.abspath(folder)  # noqa: PTH100 -- as text: compared 100,000 times
        self._reserved = {os.path.abspath(path) for path in reserved}  # noqa: PTH100
        self._relatives: set[str] = set()
        self._sources: dict[str, Path] = {}
        self._inputs = _Inputs()
        self._sound_folders: set[Path] = set()

    def add(self, micrographs: Sequence[DiscoveredMicrograph]) -> list[PlannedOutput]:
        """Plan the results of further micrographs.

        Raises
        ------
        UsageError
            A result would overwrite a micrograph or another result, or lie outside the folder.
        """
        self._relatives.update(str(item.relative) for item in micrographs)
        self._inputs.add(item.path for item in micrographs)
        return [self._plan(item) for item in micrographs]

    def _plan(self, item: DiscoveredMicrograph) -> PlannedOutput:
        relative = item.relative
        name = _as_mrc(relative, self._endings)
        if item.section is None:
            name = relative if _is_stack(relative) else _unpacked_stack(relative, self._endings) or name
        if str(name) in self._sources or (name != relative and str(name) in self._relatives):
            name = relative.with_name(relative.name + ".mrc")
        target = self._folder / name
        other = self._sources.get(str(name))
        if other is not None:
            raise UsageError(
                f"{item.path} and {other}: both would be written to {target}; denoise them into two folders"
            )
        if f"{self._absolute}/{name}" in self._reserved:
            raise UsageError(f"{target}: this is the name of a denoised micrograph; choose another name for --star")
        length = len(os.fsencode(name.name))
        if length > _LONGEST_NAME_BYTES:
            raise UsageError(
                f"{item.path}: its output would have a name of {length} bytes (allowed: {_LONGEST_NAME_BYTES}); "
                "make a link with a shorter name to it"
            )
        self._check_inside(target)
        self._inputs.check(target)
        self._sources[str(name)] = item.path
        return PlannedOutput(item, target, self._folder / RECORD_FOLDER / name.with_name(name.name + ".json"))

    def _check_inside(self, target: Path) -> None:
        parent = target.parent
        if parent in self._sound_folders:
            return
        real = Path(os.path.realpath(parent))
        if not real.is_relative_to(self._root) or RECORD_FOLDER in parent.relative_to(self._folder).parts:
            raise UsageError(
                f"{target}: leads outside of the output folder {self._folder} ({real}); "
                "remove the link or choose another output folder"
            )
        self._sound_folders.add(parent)


def without_own_outputs(
    micrographs: Sequence[DiscoveredMicrograph], folder: Path, *, named: Iterable[str]
) -> list[DiscoveredMicrograph]:
    """Leave out results of earlier runs; a search finds them if the output folder lies within a folder of inputs.

    Parameters
    ----------
    micrographs
        The micrographs that were found.
    folder
        The output folder.
    named
        Paths that the user named himself; these are never left out.
    """
    spelled = {Path(text) for text in named}
    root = folder.absolute()
    records = root / RECORD_FOLDER
    if not records.is_dir():
        return list(micrographs)

    def is_own(path: Path) -> bool:
        path = path.absolute()
        if path.is_relative_to(root):
            below = path.relative_to(root)
            return (records / below.with_name(below.name + ".json")).is_file()
        return False

    return [item for item in micrographs if item.path in spelled or not is_own(item.path)]


def check_no_input(targets: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise `UsageError` if a file to be written is one of the inputs, under any name or link."""
    known = _Inputs()
    known.add(inputs)
    for target in targets:
        known.check(target)


def check_writable(folder: Path) -> None:
    """Make the output folder and write a little into it, so that hours of work do not fail at the first result.

    Raises
    ------
    StorageError
        The system refuses: no permission, read-only, full.
    """
    records = folder / RECORD_FOLDER
    try:
        records.mkdir(parents=True, exist_ok=True)
        for place in (folder, records):
            probe = place / f".probe.{os.urandom(6).hex()}{PARTIAL_SUFFIX}"
            try:
                with probe.open("wb") as stream:
                    probe.unlink()  # at once: a run that is killed here leaves nothing
                    stream.write(bytes(_PROBE_BYTES))
                    stream.flush()
                    os.fsync(stream.fileno())
            finally:
                probe.unlink(missing_ok=True)
    except OSError as error:
        advice = advice_on(error)
        raise StorageError(f"{folder}: cannot be written: {error.strerror or error}; {advice}") from error


class _Inputs:
    """All inputs so far, by resolved name, and by the file's number in the system."""

    def __init__(self) -> None:
        self._by_name: dict[str, Path] = {}
        self._by_identity: dict[tuple[int, int], Path] = {}
        self._real_folders: dict[str, str] = {}

    def add(self, paths: Iterable[Path]) -> None:
        for path in dict.fromkeys(paths):
            name, identity = self._known_as(path)
            self._by_name[name] = path
            if identity is not None:
                self._by_identity[identity] = path

    def check(self, target: Path) -> None:
        name, identity = self._known_as(target)
        hit = self._by_name.get(name) or (self._by_identity.get(identity) if identity else None)
        if hit is not None:
            raise UsageError(
                f"{target}: this is the input {hit}; inputs are never overwritten; choose another output folder"
            )

    def _known_as(self, path: Path) -> tuple[str, tuple[int, int] | None]:
        # Each folder is resolved once: resolving 100,000 paths takes 16 s.
        folder, name = os.path.split(path)
        if folder not in self._real_folders:
            self._real_folders[folder] = _real_path(folder)
        try:
            status = os.lstat(path)
            if not stat.S_ISLNK(status.st_mode):
                return f"{self._real_folders[folder]}/{name}", (status.st_dev, status.st_ino)
            status = os.stat(path)
        except FileNotFoundError:
            if not path.is_symlink():
                return f"{self._real_folders[folder]}/{name}", None
            return _real_path(str(path)), None
        except (OSError, ValueError):
            return _real_path(str(path)), None
        return _real_path(str(path)), (status.st_dev, status.st_ino)


def _is_stack(relative: PurePosixPath) -> bool:
    # RELION takes an .mrc for one volume, whatever it holds: what was called a stack stays one.
    return relative.suffix in STACK_ENDINGS


def _unpacked_stack(relative: PurePosixPath, endings: frozenset[str]) -> PurePosixPath | None:
    """Give ``p.mrcs`` for ``p.mrcs.gz``; None for any other name."""
    stem, ending = split_ending(relative.name, endings)
    return relative.with_name(f"{stem}.mrcs") if ending.lower().startswith(".mrcs.") else None


def _as_mrc(relative: PurePosixPath, endings: frozenset[str]) -> PurePosixPath:
    # `mic_1.5A` has no ending that could be dropped.
    stem, _ = split_ending(relative.name, endings)
    return relative if relative.suffix == ".mrc" else relative.with_name(stem + ".mrc")


def _real_path(path: str) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):  # a loop of links, a NUL byte
        return os.path.abspath(path)  # noqa: PTH100 -- as text, like the above
