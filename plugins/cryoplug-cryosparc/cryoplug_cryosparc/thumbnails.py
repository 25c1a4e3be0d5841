"""Thumbnails of denoised micrographs, which cryoSPARC shows when exposures are curated and picks are inspected.

Their names are those of cryoSPARC's own: ``thumbnails/NAME_thumb_@1x.png`` and ``@2x``. The first row of the micrograph is
the lowest of the picture: a public program that draws picks onto cryoSPARC's thumbnails has to turn them over first.
"""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cryoplug.core.results import to_json
from cryoplug.core.thumbnail import thumbnail_of
from cryoplug.disk.atomic import storage_errors, write_bytes
from cryoplug.formats.registry import open_micrograph
from cryoplug.outputs.pictures import grey_bytes, png

FOLDER = "thumbnails"
"""Folder of the thumbnails inside the job's folder."""
SLOTS = {"1x": "micrograph_thumbnail_blob_1x", "2x": "micrograph_thumbnail_blob_2x"}
"""Slots of an exposure."""
DTYPE = "thumbnail_blob"
"""Type of these slots."""
_LIST_NAME = "cryoplug.jsonl"
_DARKEST, _BRIGHTEST = 0.5, 99.5
"""Percentiles of the pixels that become black and white."""


@dataclass(frozen=True)
class Thumbnail:
    """The two pictures of a micrograph."""

    micrograph: str
    """Path of the denoised micrograph below the folder of results."""
    shape: tuple[int, int]
    """Shape ``(y, x)`` of the larger picture, in pixels."""
    step: int
    """Number of micrograph pixels along one pixel of the larger picture."""
    vmin: float
    """Grey value that is drawn black."""
    vmax: float
    """Grey value that is drawn white."""

    def path(self, size: str) -> str:
        """Give the path of a picture, ``1x`` or ``2x``, from the folder of the job."""
        stem = self.micrograph.removesuffix(".mrc")
        return f"{FOLDER}/{stem}_thumb_@{size}.png"


class Thumbnails:
    """Makes the thumbnails of a job, and finds those of earlier runs.

    Parameters
    ----------
    job_folder
        Folder of the External job.
    results
        Folder of the denoised micrographs.
    """

    def __init__(self, job_folder: Path, results: Path) -> None:
        self._job_folder = job_folder
        self._results = results
        self._list = job_folder / FOLDER / _LIST_NAME
        self._known = {item.micrograph: item for item in _read(self._list)}
        self._lock = threading.Lock()

    def make(self, micrograph: Path) -> Thumbnail:
        """Make both pictures of a denoised micrograph.

        Raises
        ------
        InputError
            The micrograph cannot be read.
        StorageError
            The pictures cannot be written.
        """
        with open_micrograph(micrograph) as source:
            small = thumbnail_of(source)
        pixels = small.pixels[::-1]
        finite = pixels[np.isfinite(pixels)]
        low, high = np.percentile(finite, (_DARKEST, _BRIGHTEST)) if finite.size else (0.0, 1.0)
        name = micrograph.relative_to(self._results).as_posix()
        made = Thumbnail(name, (pixels.shape[0], pixels.shape[1]), max(small.steps), float(low), float(high))
        half = _halved(pixels)
        for size, image in (("2x", pixels), ("1x", half)):
            write_bytes(self._job_folder / made.path(size), png(grey_bytes(image, made.vmin, made.vmax)))
        with self._lock, storage_errors(self._list), self._list.open("a", encoding="utf-8") as stream:
            stream.write(to_json(asdict(made)) + "\n")
        self._known[name] = made
        return made

    def of(self, micrograph: Path) -> Thumbnail:
        """Give the thumbnail of a micrograph; make it if no earlier run has."""
        found = self._known.get(micrograph.relative_to(self._results).as_posix())
        if found is not None and all((self._job_folder / found.path(size)).is_file() for size in SLOTS):
            return found
        return self.make(micrograph)

    def columns(self, size: str, found: Thumbnail) -> dict[str, Any]:
        """Give the columns of the slot of a size, by name; paths start from the project's folder."""
        factor = 2 if size == "1x" else 1
        return {
            "path": f"{self._job_folder.name}/{found.path(size)}",
            "idx": 0,
            "shape": tuple(max(1, side // factor) for side in found.shape),
            "format": "PNG",
            "binfactor": found.step * factor,
            "micrograph_path": f"{self._job_folder.name}/{self._results.name}/{found.micrograph}",
            "vmin": found.vmin,
            "vmax": found.vmax,
        }


def _halved(pixels: Any) -> Any:
    """Average blocks of 2 by 2 pixels; an odd last row or column is dropped."""
    rows, columns = (max(1, side // 2) for side in pixels.shape)
    cut = pixels[: 2 * rows, : 2 * columns]
    return cut.reshape(rows, cut.shape[0] // rows, columns, cut.shape[1] // columns).mean(axis=(1, 3), dtype=np.float32)


def _read(path: Path) -> list[Thumbnail]:
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            content = json.loads(line)
            found.append(Thumbnail(**{**content, "shape": tuple(content["shape"])}))
        except (ValueError, TypeError, KeyError):
            continue  # half a line, of a run that was killed
    return found
