"""The previews of a run: each is made when its micrograph is finished, from pixels in memory or from the files."""

from __future__ import annotations

from pathlib import Path

from cryoplug.core.thumbnail import BeforeAfter
from cryoplug.disk.atomic import storage_errors
from cryoplug.errors import InputError
from cryoplug.outputs.planning import PlannedOutput
from cryoplug.outputs.previews import Preview, preview_name, preview_of, preview_of_files, write_preview


class Previews:
    """Makes previews below an output folder.

    Parameters
    ----------
    folder
        The output folder.
    wanted
        Whether to make previews. If not, an old preview is removed when its micrograph is denoised again.
    halves
        Whether exposures are denoised by their halves; the raw image may then be the sum of two files.
    stated_angstrom
        Pixel size of all micrographs, as the user states it.
    target
        What is written, ``image`` or ``particles``.
    """

    def __init__(
        self, folder: Path, *, wanted: bool, halves: bool, stated_angstrom: float | None, target: str = "image"
    ) -> None:
        self._folder = folder
        self._wanted = wanted
        self._halves = halves
        self._stated = stated_angstrom
        self._target = target

    def path_of(self, target: Path) -> Path:
        """Give the path of the picture of an output."""
        return self._folder / preview_name(target.relative_to(self._folder))

    def is_there(self, item: PlannedOutput) -> bool:
        """Tell whether the picture exists and is newer than the micrograph."""
        try:
            return self.path_of(item.target).stat().st_mtime_ns >= item.target.stat().st_mtime_ns
        except OSError:
            return False

    def make(
        self, item: PlannedOutput, both: BeforeAfter | None = None, pixel_size_angstrom: float | None = None
    ) -> str:
        """Make the picture of a micrograph that has just been written.

        Parameters
        ----------
        item
            The micrograph.
        both
            Thumbnails of its pixels, if they are in memory; None: the files are read.
        pixel_size_angstrom
            Pixel size of the raw micrograph in angstrom, given with `both`; None when unknown.

        Returns
        -------
        str
            Empty; or, if the raw file can no longer be read, the reason why there is no picture.

        Raises
        ------
        StorageError
            The picture cannot be written.
        """
        path = self.path_of(item.target)
        if not self._wanted:
            with storage_errors(path):
                path.unlink(missing_ok=True)
            return ""
        try:
            if both is None:
                preview = self._preview(item)
            else:
                preview = preview_of(both, pixel_size_angstrom, target=self._target)
        except InputError as error:
            return f"no preview: {error}"
        write_preview(path, preview)
        return ""

    def _preview(self, item: PlannedOutput) -> Preview:
        return preview_of_files(
            raw_files(item, halves=self._halves),
            item.target,
            stated_angstrom=self._stated,
            listed_angstrom=item.micrograph.pixel_size_angstrom,
            section=item.micrograph.section,
            target=self._target,
        )


def raw_files(item: PlannedOutput, *, halves: bool) -> tuple[Path, ...]:
    """Give the files whose sum is the raw micrograph: the micrograph, or both halves if there is no other file."""
    micrograph = item.micrograph
    sides = (micrograph.even, micrograph.odd)
    if halves and micrograph.path in sides:
        return tuple(path for path in sides if path is not None)
    return (micrograph.path,)
