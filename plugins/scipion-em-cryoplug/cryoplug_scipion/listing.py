"""Write micrographs of Scipion as a STAR file for cryoplug, and find the micrograph of each record that it returns.

A micrograph is listed by its absolute path; cryoplug names the result after the file. If two files have the same name, or
a STAR file cannot hold the name, the list names a link to the file.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Sequence

from cryoplug_scipion.program import CryoplugError

NAME, EVEN, ODD = "rlnMicrographName", "rlnMicrographNameEven", "rlnMicrographNameOdd"


@dataclass(frozen=True)
class Exposure:
    """One row: an image, with its halves if there are any."""

    id: int
    """Number of the micrograph in its set."""
    image: tuple[int, str]
    """Index in a stack (from 1; 0 for a file with one image) and the file."""
    even: tuple[int, str] | None = None
    odd: tuple[int, str] | None = None


@dataclass(frozen=True)
class Optics:
    """The optics that all micrographs of a set share."""

    pixel_size_angstrom: float
    voltage_kv: float | None = None
    spherical_aberration_mm: float | None = None
    amplitude_contrast: float | None = None

    @staticmethod
    def of(micrographs: Any) -> Optics:
        """Read them from a set of Scipion."""
        size = micrographs.getSamplingRate()
        if not size:
            raise CryoplugError("the micrographs have no pixel size; import them again with their sampling rate")
        of = micrographs.getAcquisition()
        return Optics(size, of.getVoltage(), of.getSphericalAberration(), of.getAmplitudeContrast())


class Listing:
    """A STAR file that grows with a set.

    Parameters
    ----------
    path
        Path of the STAR file.
    links
        Folder for links.
    """

    def __init__(self, path: Path, links: Path) -> None:
        self.path = path
        self._links = links
        self._ids: dict[str, int] = {}
        self._names: dict[int, tuple[str, ...]] = {}
        self._taken: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._names)

    def add(self, exposures: Iterable[Exposure]) -> bool:
        """Add new exposures; return whether there were any."""
        before = len(self._names)
        for item in exposures:
            if item.id in self._names:
                continue
            sides = [side for side in (item.even, item.odd) if side is not None]
            names = (self._name(item.id, item.image, unique=True), *(self._name(item.id, side) for side in sides))
            self._names[item.id] = names
            self._ids[names[0]] = item.id
        return len(self._names) > before

    def write(self, optics: Optics) -> None:
        """Write the file; cryoplug may read it at that moment, and sees either the old or the new file."""
        halves = bool(self._names) and len(next(iter(self._names.values()))) == 3
        columns = [NAME, EVEN, ODD] if halves else [NAME]
        of_optics = {
            "rlnOpticsGroupName": "opticsGroup1",
            "rlnOpticsGroup": 1,
            "rlnMicrographPixelSize": optics.pixel_size_angstrom,
            "rlnVoltage": optics.voltage_kv,
            "rlnSphericalAberration": optics.spherical_aberration_mm,
            "rlnAmplitudeContrast": optics.amplitude_contrast,
        }
        known = {name: str(value) for name, value in of_optics.items() if value is not None}
        text = _table("optics", list(known), [list(known.values())])
        rows = [[*map(_quoted, names), "1"] for names in self._names.values()]
        text += _table("micrographs", [*columns, "rlnOpticsGroup"], rows)
        new = self.path.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        os.replace(new, self.path)

    def id_of(self, record: dict[str, Any]) -> int | None:
        """Give the number of the micrograph that a record of cryoplug concerns; None: no micrograph of this list."""
        return self._ids.get(record.get("input", ""))

    def file_of(self, number: int) -> Path:
        """Give the file or link that lists a micrograph."""
        name = self._names[number][0]
        return Path(name.split("@", 1)[1] if re.match(r"\d{6}@/", name) else name)

    def _name(self, number: int, image: tuple[int, str], *, unique: bool = False) -> str:
        index, file = image
        path = str(Path(file).absolute())
        writable = "\n" not in path and not ('"' in path and "'" in path)
        if (unique and self._taken.setdefault(Path(path).name, path) != path) or not writable:
            path = self._link(number, path)
        return f"{index:06d}@{path}" if index else path

    def _link(self, number: int, path: str) -> str:
        self._links.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"""[\n"']""", "_", Path(path).name)
        link = self._links.absolute() / f"{number:06d}_{name}"
        if not link.is_symlink():
            link.symlink_to(path)
        return str(link)


def _table(name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    heads = "".join(f"_{column} #{number}\n" for number, column in enumerate(columns, start=1))
    return f"data_{name}\n\nloop_\n{heads}" + "".join(" ".join(row) + "\n" for row in rows) + "\n"


def _quoted(text: str) -> str:
    mark = "'" if '"' in text else '"'
    return f"{mark}{text}{mark}"
