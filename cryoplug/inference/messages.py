"""What travels through the pipeline: jobs go in, bands pass from thread to thread, results come out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryoplug.core.micrograph import ImageF32
from cryoplug.core.normalization import Normalization
from cryoplug.core.pixel_size import PixelSize, pixel_size_of_exposure
from cryoplug.core.results import FileResult
from cryoplug.core.statistics import PixelStatistics
from cryoplug.core.tiling import Tile
from cryoplug.errors import InputError, ShapeError, StorageError, UsageError
from cryoplug.formats.mrc import MrcHeader
from cryoplug.inference.regrid import GridPlan


@dataclass(frozen=True)
class DenoiseJob:
    """One micrograph to denoise."""

    source: Path
    """The file to read."""
    target: Path
    """The MRC file to write; replaced when it exists."""
    pixel_size_angstrom: float | None = None
    """What the list says of its sampling: STAR file or dataset."""
    section: int | None = None
    """Which image of a stack, from 1; None: the file holds one."""
    is_stack: bool = False
    """Every section of the file is an image, whatever else it looks like: a list names sections of it."""
    last_section: int = 0
    """Highest number of a listed section, where `is_stack`: the file must have so many."""
    halves: tuple[Path, Path] | None = None
    """Even and odd half of the exposure, for `cryoplug.inference.halves`; `source` may be one of them."""
    stated_angstrom: float | None = None
    """What the user says of its sampling."""

    def check_sections(self, count: int) -> None:
        """Raise `ShapeError` if a list names a section that the file does not have: its rows would name nothing."""
        if self.last_section > count:
            raise ShapeError(
                f"{self.source}: section {self.last_section} is listed, but the file has {count}; is it the right stack?"
            )

    def known_pixel_size(self, *headers: float | None) -> PixelSize:
        """Decide on its sampling, given what headers say: of `source`, then of the halves."""
        return pixel_size_of_exposure(self.stated_angstrom, (self.pixel_size_angstrom,), headers)[0]


@dataclass(frozen=True)
class DenoiseResult(FileResult):
    """What became of one micrograph, with the numbers that its line in a journal needs."""

    shape: tuple[int, int] | None = None
    """``(y, x)``; None when it could not be opened."""
    sections: int = 1
    """Images of a stack."""
    pixel_size_angstrom: float | None = None
    """Sampling that was written; None when unknown."""
    pixel_size: PixelSize | None = None
    """That of the micrograph: who says so, and who says something else; None when it failed."""
    sigma_in: float | None = None
    """Standard deviation of the micrograph."""
    sigma_out: float | None = None
    """Standard deviation of what was written."""
    hot_pixels: int = 0
    """How many were repaired before the network saw them."""
    mean_shift: float = 0.0
    """What was added to the network's result so that it keeps the mean of the micrograph, in grey values."""


@dataclass(frozen=True)
class Begin:
    """A micrograph was opened and measured; its bands follow."""

    job: DenoiseJob
    """What is worked on."""
    started: float
    """When, by `time.perf_counter`."""
    shape: tuple[int, int]
    """``(y, x)``."""
    template: MrcHeader | None
    """Header to carry over; None when the source is no MRC."""
    pixel_size_angstrom: float | None
    """Sampling to write."""
    pixel_size: PixelSize
    """That of the micrograph, and who says so."""
    to_grey_values: Normalization
    """What is undone when the bands are written; see `cryoplug.inference.target.to_grey_values`."""
    grid: GridPlan | None = None
    """How the bands come back to `shape`; None: they are on it."""
    raw: ImageF32 | None = None
    """The micrograph, where `grid` needs it once more."""
    sections: int = 1
    """Of a stack, whose images come as `Sections`."""


@dataclass(frozen=True)
class Rows:
    """One band, normalised."""

    band: Tile
    """Where it lies."""
    pixels: ImageF32
    """Of ``band.read`` before the network, of ``band.paste`` after it."""


@dataclass(frozen=True)
class Sections:
    """Some images of a stack, in order: as they are in the file, and after the network denoised in grey values."""

    job: DenoiseJob
    """What is worked on."""
    first: int
    """Number of the first one, from 1."""
    pixels: ImageF32
    """``(n, y, x)``."""
    grid: GridPlan | None = None
    """The grid of the images and that of the network; None when they are denoised already."""
    remarks: tuple[str, ...] = ()
    """What the user should know, one text for each image that there is something to say about."""
    kept: tuple[tuple[int, str], ...] = ()
    """Numbers of those that no network can use, and why: they stay as they are."""
    hot_pixels: int = 0
    """How many were repaired before the network saw them."""


@dataclass(frozen=True)
class End:
    """All bands of a micrograph have been sent."""

    message: str
    """Warnings about it."""
    sigma_in: float
    """Its standard deviation, without hot pixels."""
    seen: PixelStatistics | None = None
    """Of what the network saw, whose mean its output is still to get; None: it is left as it is."""
    hot_pixels: int = 0
    """How many were repaired."""
    mean_shift: float = 0.0
    """What was added already so that the mean is kept, in grey values."""
    sigma: float = 0.0
    """Deviation of what the network saw, where there is no `seen`."""
    no_particles: bool = False
    """Whether particles are written that the raw pixels show no sign of."""

    @property
    def sigma_seen(self) -> float:
        """Deviation of what the network saw; 0 where it does not count."""
        return self.sigma if self.seen is None else self.seen.std


@dataclass(frozen=True)
class Failed:
    """A micrograph could not be read; it comes instead of `Begin`, or of `End`."""

    job: DenoiseJob
    """What was worked on."""
    started: float
    """When, by `time.perf_counter`."""
    error: InputError | StorageError | UsageError
    """Why."""


Message = Begin | Rows | Sections | End | Failed
