"""The STAR file that `denoise` writes: checked before the work, written after it, and with ``--watch`` again and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from cryoplug.core.pixel_size import known_pixel_size
from cryoplug.disk.atomic import remove_leftovers
from cryoplug.disk.file_state import FileState, file_state
from cryoplug.errors import FormatError, UsageError
from cryoplug.formats.mrc import read_header
from cryoplug.formats.mrc_extended import read_acquisition
from cryoplug.formats.star import StarFile, image_table, read_star
from cryoplug.inputs.discovered import DiscoveredMicrograph, split_section
from cryoplug.inputs.discovery import discover
from cryoplug.outputs.planning import RECORD_FOLDER, PlannedOutput, check_no_input
from cryoplug.outputs.star_pixel_size import with_written_sizes
from cryoplug.outputs.star_rows import (
    DenoisedMicrograph,
    check_star_can_name,
    check_star_is_ours,
    shown_path,
    star_from_files,
    star_from_star,
    write_own_star,
)

COORDINATE_FILES = "rlnMicrographCoordinates"
"""Column with a file of coordinates for each micrograph, as pickers write it."""
_TRIES = 3


class OutputStar:
    """The STAR file of one run.

    Parameters
    ----------
    path
        Where to write it; nothing is written yet.
    folder
        Output folder of the run.
    inputs
        Inputs as the user named them.
    overwrite
        Whether to replace a file of the same name that no earlier run wrote.
    voltage_kv, spherical_aberration_mm
        Values of the microscope, if the user gives them.
    pixel_size_angstrom
        Pixel size that the user states for all micrographs; None takes that of the list, else that of the files.
    resampled
        Whether the denoised files have another pixel size than the micrographs.
    note
        Called with remarks for the user.

    Raises
    ------
    UsageError
        The file exists, and no earlier run wrote it.
    """

    def __init__(
        self,
        path: Path,
        *,
        folder: Path,
        inputs: Sequence[str],
        overwrite: bool = False,
        voltage_kv: float | None = None,
        spherical_aberration_mm: float | None = None,
        pixel_size_angstrom: float | None = None,
        resampled: bool = False,
        only_look: bool = False,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.path = path
        self._record = folder / RECORD_FOLDER / f"{path.name}.sha256"
        self._rows: dict[Path, DenoisedMicrograph] = {}
        self._voltage_kv, self._cs_mm = voltage_kv, spherical_aberration_mm
        self._stated = pixel_size_angstrom
        self._note, self._has_noted = note, False
        self._pixel_sizes: dict[Path, float | None] = {}
        self._resampled = resampled
        self._renewed = 0
        self._written: tuple[tuple[Path, ...], FileState | None, int] = ((), None, 0)
        check_no_input([path], [Path(text) for text in inputs if "\0" not in text])
        check_star_is_ours(path, self._record, overwrite=overwrite)
        for written in () if only_look else (path, self._record):
            remove_leftovers(written)

    def check(self, planned: Sequence[PlannedOutput]) -> None:
        """Raise `UsageError` if the STAR file cannot be made from these micrographs, or would overwrite one of them."""
        micrographs = [item.micrograph for item in planned]
        source = self._source(micrographs)
        if source is not None and (self._voltage_kv or self._cs_mm):
            raise UsageError(
                f"--voltage and --cs: {source} has these already; they are for a STAR file that is made from plain files"
            )
        check_no_input([self.path], [item.path for item in micrographs] + ([source] if source else []))
        names = [path for item in planned for path in (item.target, item.micrograph.path)]
        check_star_can_name(self.path, names, is_new=source is None)

    def write(self, done: Sequence[PlannedOutput]) -> bool:
        """Write the file with these micrographs, atomically; return whether there was anything new to write.

        Raises
        ------
        FormatError
            The STAR file from which it is made cannot be read (any more), or changes all the time.
        """
        source = self._source([item.micrograph for item in done])
        made_of = tuple(item.target for item in done), None if source is None else file_state(source), self._renewed
        if not done or made_of == self._written:
            return False
        star = self._from_files(done) if source is None else self._from_star(source, done)
        write_own_star(self.path, self._record, star)
        self._written = made_of
        return True

    def renew(self, target: Path) -> None:
        """Forget what is known of a denoised file that was just written, perhaps again; any thread may call."""
        self._rows.pop(target, None)
        self._pixel_sizes.pop(Path(shown_path(target)), None)
        self._renewed += 1

    def _source(self, micrographs: Sequence[DiscoveredMicrograph]) -> Path | None:
        """Return the STAR file that names all micrographs, if there is one."""
        stars = list(dict.fromkeys(item.star_path for item in micrographs))
        if len(stars) > 1:
            named = ", ".join(str(path) for path in stars if path is not None)
            raise UsageError(
                f"--star {self.path}: it is made from one STAR file ({named} and other inputs were named); "
                "give one STAR file alone, or no STAR file"
            )
        return stars[0] if stars else None

    def _from_files(self, done: Sequence[PlannedOutput]) -> StarFile:
        rows = [self._row(item) for item in done]
        if not self._has_noted and any(None in (row.voltage_kv, row.spherical_aberration_mm) for row in rows):
            self._has_noted = True
            self._note(
                f"{self.path}: voltage or spherical aberration is unknown for some micrographs, and RELION 3.1 needs both: "
                "give --voltage and --cs, or import the micrographs in RELION"
            )
        return star_from_files(self.path, rows)

    def _row(self, item: PlannedOutput) -> DenoisedMicrograph:
        found = self._rows.get(item.target)
        if found is None:
            header = read_header(item.target)
            acquisition = read_acquisition(header)
            size = header.pixel_size_angstrom
            if not self._resampled:
                size = known_pixel_size(self._stated, item.micrograph.pixel_size_angstrom, size).angstrom
            found = self._rows[item.target] = DenoisedMicrograph(
                item.shown,
                item.target,
                size,
                voltage_kv=self._voltage_kv or (acquisition.voltage_kv if acquisition else None),
                spherical_aberration_mm=self._cs_mm,
                sections=header.nz,
            )
        return found

    def _from_star(self, source: Path, done: Sequence[PlannedOutput]) -> StarFile:
        """Make the list from the current STAR file, which may have grown, or changed its order since the run began."""
        targets = {_key(item.micrograph): item.target for item in done}
        for _ in range(_TRIES):
            before = file_state(source)
            listed = discover([str(source)])
            star = read_star(source)
            if file_state(source) == before:
                rows: dict[int, Path] = {}
                sections: dict[int, int] = {}
                for item in listed:
                    path, section = _key(item)
                    # A section has a file of its own, or its place in a whole stack.
                    target = targets.get((path, section)) or targets.get((path, None))
                    if item.star_row is not None and target is not None:
                        rows[item.star_row] = target
                        if section is not None and (path, section) not in targets:
                            sections[item.star_row] = section
                made = star_from_star(star, rows, sections, pixel_size_angstrom=self._stated)
                return self._with_written_sizes(made) if self._resampled else made
        raise FormatError(f"{source}: changes while it is read; let nothing write it for a moment, and run again")

    def _with_written_sizes(self, star: StarFile) -> StarFile:
        if not self._has_noted and COORDINATE_FILES in image_table(star).block.columns:
            self._has_noted = True
            self._note(
                f"{self.path}: the coordinate files that it names ({COORDINATE_FILES}) count pixels of the raw micrographs, and "
                "the denoised ones are coarser; use them with the raw micrographs"
            )
        return with_written_sizes(star, self._written_size)

    def _written_size(self, name: str) -> float | None:
        """Give the pixel size of a written file, by its name in the STAR file."""
        path = Path(split_section(name)[1])
        if path not in self._pixel_sizes:
            self._pixel_sizes[path] = read_header(path).pixel_size_angstrom
        return self._pixel_sizes[path]


def _key(item: DiscoveredMicrograph) -> tuple[Path, int | None]:
    return item.path.absolute(), item.section
