"""Compare the headers of a micrograph's files with one another as the files are opened."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from cryoplug.core.micrograph import MicrographSource
from cryoplug.core.pixel_size import PixelSize, pixel_size_of_exposure
from cryoplug.errors import ShapeError
from cryoplug.formats.registry import open_micrograph
from cryoplug.inputs.discovered import DiscoveredMicrograph
from cryoplug.inputs.pair_proof import PairProof
from cryoplug.metrics.judging import LEAST_SIDE_PX
from cryoplug.workflows.evaluate.inputs import Subject


class Headers:
    """The common shape and pixel size of all files of one micrograph.

    Parameters
    ----------
    stated_angstrom
        Pixel size in angstrom that the user states; None: list and header give it.
    """

    def __init__(self, stated_angstrom: float | None) -> None:
        self.first: Path | None = None
        """The file that was opened first."""
        self.shape: tuple[int, int] = (0, 0)
        """Shape ``(y, x)`` of the first file, in pixels."""
        self._stated = stated_angstrom
        self._listed: list[float | None] = []
        self._headers: list[float | None] = []

    @contextlib.contextmanager
    def opened(self, item: DiscoveredMicrograph) -> Iterator[MicrographSource]:
        """Open one more file.

        Raises
        ------
        ShapeError
            Its shape differs from the first file's, or it is too small to measure.
        InputError
            It cannot be read.
        """
        with open_item(item) as source:
            if self.first is None:
                self.first, self.shape = item.path, source.shape
                if min(source.shape) < LEAST_SIDE_PX:
                    raise ShapeError(f"{item.path}: shape {source.shape}; at least {LEAST_SIDE_PX} pixels a side count")
            if source.shape != self.shape:
                raise ShapeError(
                    f"{item.path}: shape {source.shape} but {self.first} has {self.shape}; both must be equal"
                )
            self._listed.append(item.pixel_size_angstrom)
            self._headers.append(source.pixel_size_angstrom)
            yield source

    @property
    def pixel_size(self) -> PixelSize:
        """The pixel size of the opened files, and its source."""
        return pixel_size_of_exposure(self._stated, self._listed, self._headers)[0]


def open_item(item: DiscoveredMicrograph) -> MicrographSource:
    """Open a file, or one section of a stack."""
    return open_micrograph(item.path) if item.section is None else open_micrograph(item.path, section=item.section)


@contextlib.contextmanager
def open_halves(
    subject: Subject, proof: PairProof, stated_angstrom: float | None
) -> Iterator[tuple[MicrographSource, MicrographSource, PixelSize]]:
    """Open the halves of a micrograph, compare their headers, and give the halves with their pixel size.

    Raises
    ------
    PairingError
        They differ in shape or pixel size.
    """
    assert subject.even is not None and subject.odd is not None
    with open_item(subject.even) as even, open_item(subject.odd) as odd:
        headers = even.pixel_size_angstrom, odd.pixel_size_angstrom
        listed = subject.even.pixel_size_angstrom, subject.odd.pixel_size_angstrom
        known, sizes = pixel_size_of_exposure(stated_angstrom, listed, headers)
        proof.check_files(even, odd, sizes)
        yield even, odd, known
