"""The cryoSPARC dataset that `denoise` writes if its input was a dataset: written last, beside the denoised files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from cryoplug.disk.atomic import atomic_file, storage_errors, write_text
from cryoplug.errors import UsageError
from cryoplug.formats.cs import CsImage, cs_images, image_group
from cryoplug.formats.cs_writer import DenoisedBlob, write_denoised_cs
from cryoplug.formats.mrc import read_header
from cryoplug.inputs.discovered import DiscoveredMicrograph
from cryoplug.inputs.discovery import CS_SUFFIX, discover
from cryoplug.outputs.planning import RECORD_FOLDER, PlannedOutput
from cryoplug.outputs.star_rows import check_star_is_ours

NAMES = {"blob": "particles_denoised.cs"}
"""Name of the dataset, by the columns that named the images."""
USUAL_NAME = "micrographs_denoised.cs"


class OutputDataset:
    """The dataset of one run.

    Parameters
    ----------
    folder
        Output folder.
    source
        The dataset that names the inputs.
    overwrite
        Whether to replace a file of the same name that no earlier run wrote.

    Raises
    ------
    UsageError
        The file exists, and no earlier run wrote it.
    """

    def __init__(self, folder: Path, source: Path, *, overwrite: bool) -> None:
        self._source = source
        self._group = image_group(source)
        self.path = folder / NAMES.get(self._group, USUAL_NAME)
        self._record = folder / RECORD_FOLDER / f"{self.path.name}.sha256"
        if self.path.absolute() == source.absolute():
            raise UsageError(f"{self.path}: is the dataset that was given; choose another output folder")
        check_star_is_ours(self.path, self._record, overwrite=overwrite)

    def write(self, done: Sequence[PlannedOutput]) -> bool:
        """Write the dataset with these images; return whether there were any."""
        targets = {_key(item.micrograph): item.target for item in done}
        images = cs_images(self._source)
        root = _project_of(images, discover([str(self._source)]))
        blobs: list[DenoisedBlob | None] = [None] * len(images)
        of_image: dict[tuple[str, int | None], DenoisedBlob | None] = {}
        sizes: dict[Path, tuple[tuple[int, int], float]] = {}
        for item in discover([str(self._source)]):
            path, section = _key(item)
            alone = targets.get((path, section))
            target = alone or targets.get((path, None))
            if target is None or item.list_row is None:
                continue
            if target not in sizes:
                header = read_header(target)
                sizes[target] = (header.ny, header.nx), header.pixel_size_angstrom or 0.0
            index = 0 if section is None or alone is not None else section - 1
            image = images[item.list_row]
            of_image[image.name, image.section] = DenoisedBlob(_seen_from(root, target), index, *sizes[target])
        for row, image in enumerate(images):
            blobs[row] = of_image.get((image.name, image.section))
        if not any(blobs):
            return False
        group = "micrograph_blob" if self._group == "location" else self._group
        with atomic_file(self.path) as stream, storage_errors(self.path):
            write_denoised_cs(stream, self._source, blobs, group=f"{group}_denoised")
            stream.flush()
            # Before the file has its name: killed in between, the next run still knows it as ours.
            digest = hashlib.sha256(Path(stream.name).read_bytes()).hexdigest()
            old = hashlib.sha256(self.path.read_bytes()).hexdigest() if self.path.is_file() else ""
            write_text(self._record, f"{digest}\n{old}\n")
        return True


def source_dataset(micrographs: Sequence[DiscoveredMicrograph]) -> Path | None:
    """Give the dataset that names all inputs, if there is such a one."""
    lists = {item.list_path for item in micrographs}
    only = lists.pop() if len(lists) == 1 else None
    return only if only is not None and only.suffix.lower() == CS_SUFFIX else None


def _key(item: DiscoveredMicrograph) -> tuple[str, int | None]:
    return os.path.abspath(item.path), item.section  # noqa: PTH100 -- for 100,000 rows


def _project_of(images: Sequence[CsImage], listed: Sequence[DiscoveredMicrograph]) -> str:
    """Give the folder where the paths of the dataset start."""
    for item in listed:
        name, path = images[item.list_row or 0].name, os.path.abspath(item.path)  # noqa: PTH100
        if not name.startswith("/") and path.endswith(f"/{name}"):
            return path[: -len(name)]
    return ""


def _seen_from(root: str, target: Path) -> str:
    absolute = os.path.abspath(target)  # noqa: PTH100
    return absolute.removeprefix(root) if root and absolute.startswith(root) else absolute
