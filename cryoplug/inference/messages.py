"""The messages of the pipeline: jobs go in, bands pass from thread to thread, results come out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryoplug.core.bad_border import Lines
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
    """Pixel size from the list (STAR file or dataset) in angstrom; None when not listed."""
    section: int | None = None
    """Number of the image in a stack, from 1; None: the file holds one image."""
    is_stack: bool = False
    """Every section of the file is an image, even if it looks like a movie or volume, because a list names its sections."""
    last_section: int = 0
    """With `is_stack`: highest section number in the list; the file must have at least so many sections."""
    halves: tuple[Path, Path] | None = None
    """Even and odd half of the exposure, for `cryoplug.inference.halves`; `source` may be one of them."""
    stated_angstrom: float | None = None
    """Pixel size that the user states in angstrom; None: not stated."""

    def check_sections(self, count: int) -> None:
        """Raise `ShapeError` if a list names a section that the file does not have."""
        if self.last_section > count:
            raise ShapeError(
                f"{self.source}: section {self.last_section} is listed, but the file has {count}; is it the right stack?"
            )

    def known_pixel_size(self, *headers: float | None) -> PixelSize:
        """Choose its pixel size; `headers` are the pixel sizes of `source`, then of the halves."""
        return pixel_size_of_exposure(self.stated_angstrom, (self.pixel_size_angstrom,), headers)[0]


@dataclass(frozen=True)
class DenoiseResult(FileResult):
    """The result of one micrograph, with the numbers for its line in the journal."""

    shape: tuple[int, int] | None = None
    """Shape ``(y, x)`` in pixels; None when it could not be opened."""
    sections: int = 1
    """Number of images in a stack."""
    pixel_size_angstrom: float | None = None
    """Pixel size that was written, in angstrom; None when unknown."""
    pixel_size: PixelSize | None = None
    """Pixel size of the micrograph, its source, and sources that differ; None when it failed."""
    sigma_in: float | None = None
    """Standard deviation of the micrograph."""
    sigma_out: float | None = None
    """Standard deviation of the written pixels."""
    hot_pixels: int = 0
    """Number of hot pixels that were repaired before the network."""
    bad_border: Lines = (0, 0, 0, 0)
    """Number of rows and columns of a bad border that were replaced before the network; in a stack, the most at each side."""
    mean_shift: float = 0.0
    """Value added to the network's result to keep the mean of the micrograph, in grey values."""


@dataclass(frozen=True)
class Begin:
    """The micrograph was opened and measured; its bands follow."""

    job: DenoiseJob
    """The job."""
    started: float
    """Time of the start, by `time.perf_counter`."""
    shape: tuple[int, int]
    """``(y, x)``."""
    template: MrcHeader | None
    """Header to carry over; None when the source is not MRC."""
    pixel_size_angstrom: float | None
    """Pixel size to write in angstrom; None when unknown."""
    pixel_size: PixelSize
    """Pixel size of the micrograph, and its source."""
    to_grey_values: Normalization
    """Normalization to invert when the bands are written; see `cryoplug.inference.target.to_grey_values`."""
    grid: GridPlan | None = None
    """How to bring the bands back to `shape`; None: they already have it."""
    raw: ImageF32 | None = None
    """The micrograph, if `grid` needs it again."""
    sections: int = 1
    """Number of images in a stack; they come as `Sections`."""


@dataclass(frozen=True)
class Rows:
    """One band, normalised."""

    band: Tile
    """Position of the band in the image."""
    pixels: ImageF32
    """Pixels of ``band.read`` before the network, of ``band.paste`` after it."""


@dataclass(frozen=True)
class Sections:
    """Some images of a stack, in order: as in the file; after the network, denoised and in grey values."""

    job: DenoiseJob
    """The job."""
    first: int
    """Number of the first image, from 1."""
    pixels: ImageF32
    """Pixels ``(n, y, x)``."""
    grid: GridPlan | None = None
    """The grids of the images and of the network; None when they are already denoised."""
    remarks: tuple[str, ...] = ()
    """Remarks for the user, one for each image that needs one."""
    kept: tuple[tuple[int, str], ...] = ()
    """Numbers of the images that cannot be denoised, with reasons; they stay as they are."""
    hot_pixels: int = 0
    """Number of hot pixels that were repaired before the network."""
    bad_borders: tuple[Lines, ...] = ()
    """For each image with a bad border, the number of rows and columns that were replaced."""


@dataclass(frozen=True)
class End:
    """All bands of a micrograph have been sent."""

    message: str
    """Warnings about the micrograph."""
    sigma_in: float
    """Standard deviation of the repaired micrograph."""
    seen: PixelStatistics | None = None
    """Statistics of the network's input; the output still has to get this mean. None: the mean is not corrected."""
    hot_pixels: int = 0
    """Number of hot pixels that were repaired."""
    bad_border: Lines = (0, 0, 0, 0)
    """Number of rows and columns of a bad border that were replaced; in a stack, the most at each side."""
    mean_shift: float = 0.0
    """Value that was already added to keep the mean, in grey values."""
    sigma: float = 0.0
    """Standard deviation of the network's input, if `seen` is None."""
    no_particles: bool = False
    """Whether particles are written although the raw pixels show no sign of any."""

    @property
    def sigma_seen(self) -> float:
        """Standard deviation of the network's input; 0 where it is not needed."""
        return self.sigma if self.seen is None else self.seen.std


@dataclass(frozen=True)
class Failed:
    """The micrograph could not be read; this message comes instead of `Begin` or `End`."""

    job: DenoiseJob
    """The job."""
    started: float
    """Time of the start, by `time.perf_counter`."""
    error: InputError | StorageError | UsageError
    """The error."""


Message = Begin | Rows | Sections | End | Failed
