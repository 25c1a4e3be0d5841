"""TIFF images and movies, and EER movies, through tifffile.

A TIFF stores the upper row first, an MRC the lowest. RELION, IMOD, EMAN2 and MotionCor2 turn a TIFF when they read it, and
so does this reader. An EER movie stores its rows in the order of an MRC, so it is not turned.

LZW, deflate with a predictor, and EER need imagecodecs, which ``pip install 'cryoplug[movies]'`` brings.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import inspect
import logging
import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cryoplug.core.micrograph import ImageF32, MicrographSource, MovieSource, only_frame
from cryoplug.core.results import Finding
from cryoplug.core.statistics import scan_pixels
from cryoplug.disk.opening import read_errors
from cryoplug.errors import FormatError
from cryoplug.formats.mrc_header import MAX_SIDE_PX
from cryoplug.formats.validation import Measure, validate_by_reading

if TYPE_CHECKING:
    import tifffile

MAX_GROWTH = 200
"""Largest ratio of an image's size to its compressed bytes; frames of counted electrons reach about a hundred."""
SMALL_BYTES = 16 << 20
"""Images up to this size may grow by any factor: one EER frame of 4096 x 4096."""

_EER_COMPRESSIONS = (65000, 65001, 65002)
_UPSAMPLINGS = (1, 2, 4)
_WITHOUT_CODECS = (1, 8, 32773, 32946)
_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_ANGSTROM_PER_UNIT = {2: 2.54e8, 3: 1e8}
_ANGSTROM_PER_NAME = {
    **dict.fromkeys(("a", "angstrom", "\u00e5", "\u212b"), 1.0),
    **dict.fromkeys(("nm", "nanometer"), 10.0),
    **dict.fromkeys(("um", "\u00b5m", "\u03bcm", "micron"), 1e4),
}
"""Angstroms in each unit; names in lower case."""
_ESCAPED = re.compile(r"\\u([0-9A-Fa-f]{4})")
_PLAUSIBLE_ANGSTROM = (0.05, 1000.0)
"""Plausible pixel sizes in angstrom. Others come from screens or printers: 72 dots an inch are 3.5 million angstrom."""
_EER_PIXEL = re.compile(rb'name="sensorPixelSize\.width"[^>]*unit="m"[^>]*>\s*([0-9.eE+-]+)\s*<')
_TWO_COUNTS_IN_A_BYTE = frozenset(
    {(7420, 3838), (3838, 7420), (7676, 3710), (3710, 7676), (8184, 5760), (5760, 8184), (11520, 4092), (4092, 11520)}
)
"""Shapes ``(y, x)`` of bytes that hold super-resolution frames of a K2 (7676 x 7420) or K3 (11520 x 8184), either way up,
as SerialEM packs them. No tag says so; IMOD and RELION, too, recognise them only by the size."""
_ROWS_FROM_THE_TOP = 1
_PALETTE = 3
_SAME_AXES = 1e-3
_ORIENTATION = "Orientation"
_DECODING_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""Errors that the decoders raise on damaged files, besides tifffile's own; they have no common class."""


def sniff_tiff(head: bytes) -> bool:
    """Say whether bytes are the start of a TIFF or BigTIFF file."""
    return head.startswith(_MAGIC)


def open_tiff(path: Path) -> MicrographSource:
    """Open a TIFF file with one image; errors are those of `TiffMovie`."""
    return only_frame(TiffMovie(path))


def validate_tiff(path: Path, measure: Measure = scan_pixels) -> list[Finding]:
    """List everything that is wrong or unusual about a TIFF or EER file."""
    return validate_by_reading(path, TiffMovie, measure)


def two_counts(packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Split each byte into two 4-bit counts, the low one first: ``(y, x)`` becomes ``(y, 2 x)``."""
    counts = np.empty((packed.shape[0], 2 * packed.shape[1]), np.uint8)
    np.bitwise_and(packed, 0x0F, out=counts[:, 0::2])
    np.right_shift(packed, 4, out=counts[:, 1::2])
    return counts


class TiffMovie(MovieSource):
    """An opened TIFF or EER file; every page that has the shape of the largest page is a frame.

    Parameters
    ----------
    path
        The file.
    upsampling
        For EER movies: how many times finer to read than the detector's pixels, 1, 2 or 4, because electrons have places
        within a pixel. Other movies are read as they are.

    Raises
    ------
    FormatError
        It is damaged or incomplete, its pixels are colours or complex numbers, or its decoder is missing.
    """

    def __init__(self, path: Path, *, upsampling: int = 1) -> None:
        self.path = path
        self._upsampling = upsampling
        self._file: tifffile.TiffFile | None = None
        with self._decoding():
            finer: dict[str, Any] = {} if upsampling == 1 else {"superres": _superres(path, upsampling)}
            self._file = _library().TiffFile(path, **finer)
        try:
            with self._decoding():
                self._pages, self.warnings = self._frames(self._file)
                first = self._pages[0]
                self.frame_count = len(self._pages)
                self._packed = _holds_two_counts(first)
                if self._packed:
                    self.notes = (
                        "two 4-bit counts in each byte, as SerialEM packs super-resolution: recognised by the size",
                    )
                self._from_the_top = int(first.compression) not in _EER_COMPRESSIONS
                self.frame_shape = (int(first.shape[0]), int(first.shape[1]) * (2 if self._packed else 1))
                self.dtype = np.dtype(first.dtype)
                self.pixel_size_angstrom = _pixel_size(self._file, first)
                if (of_y := _uneven_pixel(self._file, first, self.pixel_size_angstrom)) is not None:
                    text = f"pixel size differs by axis: x {self.pixel_size_angstrom:g}, y {of_y:g} A; x is used"
                    self.warnings = (*self.warnings, text)
                if self.pixel_size_angstrom is not None and not self._from_the_top:
                    self.pixel_size_angstrom /= upsampling
        except BaseException:
            self.close()
            raise

    def read_frame(self, index: int) -> ImageF32:
        """Decode one page."""
        self.check_frame(index)
        with self._decoding():
            pixels = self._pages[index].asarray()
            if self._packed:
                pixels = two_counts(pixels.view(np.uint8))
            return np.array(pixels[::-1] if self._from_the_top else pixels, dtype=np.float32, order="C")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _frames(self, file: tifffile.TiffFile) -> tuple[list[Any], tuple[str, ...]]:
        with _lost_pages() as said:
            pages: list[Any] = list(file.pages)
        if said:
            raise FormatError(
                f"{self.path}: the list of its images is damaged ({said[0]:.120}); copy or export it again"
            )
        if not pages:
            raise FormatError(f"{self.path}: a TIFF file without an image; export it again")
        electrons = (page for page in pages if int(page.compression) in _EER_COMPRESSIONS)
        # Some programs put a small picture of the image in front of it.
        first = next(electrons, None) or max(pages, key=lambda page: math.prod(page.shape))
        self._check_page(first)
        if file.is_imagej and len(pages) == 1 and int((file.imagej_metadata or {}).get("images", 1)) > 1:
            raise FormatError(
                f"{self.path}: an ImageJ hyperstack: one directory for many images; save it as an ordinary TIFF"
            )
        frames = [page for page in pages if (page.shape, page.dtype) == (first.shape, first.dtype)]
        for page in frames:
            self._check_bytes(page, file.filehandle.size)
        remarks = []
        if len(frames) < len(pages):
            count = len(pages) - len(frames)
            remarks.append(f"{count} of {len(pages)} images have another size or type, and are left out")
        if int(first.photometric) == 0:
            remarks.append("the tags say that 0 is white; grey values are taken as they are stored")
        if int(first.photometric) == _PALETTE:
            remarks.append("the tags give every value a colour of its own; the values are taken as grey, as in RELION")
        turn = first.tags.get(_ORIENTATION)
        if turn is not None and turn.value != _ROWS_FROM_THE_TOP:
            remarks.append(
                f"the tag Orientation is {int(turn.value)}; like RELION, IMOD and EMAN2, cryoplug ignores it and takes the "
                "first stored row as the upper one"
            )
        return frames, tuple(remarks)

    def _check_page(self, page: Any) -> None:
        if page.ndim != 2 or page.dtype is None or np.dtype(page.dtype).kind not in "buif":
            raise FormatError(
                f"{self.path}: image of shape {page.shape} and type {page.dtype}; allowed: (y, x) of integers or floats, "
                "one sample a pixel (no colour); export it as grey scale"
            )
        if not all(1 <= side <= MAX_SIDE_PX for side in page.shape):
            raise FormatError(f"{self.path}: size {page.shape}; allowed: 1 to {MAX_SIDE_PX} pixels a side")
        if int(page.compression) not in _WITHOUT_CODECS and importlib.util.find_spec("imagecodecs") is None:
            raise FormatError(
                f"{self.path}: compressed by {page.compression!r}; to read it: pip install 'cryoplug[movies]'"
            )

    def _check_bytes(self, page: Any, file_bytes: int) -> None:
        ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
        stored = sum(page.databytecounts)
        if not ends or max(ends) > file_bytes or min(page.databytecounts) < 0 or min(page.dataoffsets) < 0:
            raise FormatError(
                f"{self.path}: image {page.index + 1} needs {max(ends, default=0)} bytes, but the file has {file_bytes}: "
                "it is truncated; copy or export it again"
            )
        claimed = page.nbytes // (self._upsampling**2 if int(page.compression) in _EER_COMPRESSIONS else 1)
        if claimed > max(SMALL_BYTES, MAX_GROWTH * stored):
            raise FormatError(
                f"{self.path}: image {page.index + 1} claims {claimed} bytes out of {stored}; allowed: up to "
                f"{MAX_GROWTH} times as many; check where it comes from"
            )

    @contextlib.contextmanager
    def _decoding(self) -> Iterator[None]:
        with read_errors(self.path):
            try:
                yield
            except FormatError:
                raise
            except (*_DECODING_ERRORS, _library().TiffFileError) as error:
                what = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise FormatError(
                    f"{self.path}: a TIFF file that cannot be decoded ({what}); export it again"
                ) from error


@functools.cache
def _library() -> Any:
    """Import tifffile only when there is a file for it, because the import takes a tenth of a second."""
    import tifffile

    # It tells of damage through logging; it is told to users as an error or a warning of the file instead.
    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    logging.getLogger("tifffile").propagate = False
    return tifffile


def _superres(path: Path, upsampling: int) -> int:
    """Give tifffile's name for an upsampling."""
    if "superres" not in inspect.signature(_library().TiffFile.__init__).parameters:
        raise FormatError(
            f"{path}: tifffile {_library().__version__} does not give the places of electrons within a pixel; "
            "pip install 'tifffile>=2025.10.16'"
        )
    return _UPSAMPLINGS.index(upsampling)


def _holds_two_counts(page: Any) -> bool:
    """Say whether a page is a super-resolution frame in SerialEM's packing."""
    is_byte = np.dtype(page.dtype).itemsize == 1 and int(page.bitspersample) == 8
    return is_byte and int(page.compression) not in _EER_COMPRESSIONS and page.shape in _TWO_COUNTS_IN_A_BYTE


def _pixel_size(file: tifffile.TiffFile, page: Any) -> float | None:
    if int(page.compression) in _EER_COMPRESSIONS:
        return _eer_pixel_size(file)
    return _from_resolution(file, page, "XResolution")


def _uneven_pixel(file: tifffile.TiffFile, page: Any, of_x: float | None) -> float | None:
    """Give the pixel size along y where it is another one than along x."""
    if of_x is None or int(page.compression) in _EER_COMPRESSIONS:
        return None
    of_y = _from_resolution(file, page, "YResolution")
    return of_y if of_y is not None and abs(of_y / of_x - 1) > _SAME_AXES else None


def _from_resolution(file: tifffile.TiffFile, page: Any, name: str) -> float | None:
    tags = page.tags
    if name not in tags:
        return None
    above, below = tags[name].value
    if above < 1 or below < 1:
        return None
    if file.is_imagej:
        name = str((file.imagej_metadata or {}).get("unit", "")).strip()
        name = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), name)  # ImageJ writes ASCII only
        size = _ANGSTROM_PER_NAME.get(name.lower(), 0.0) * below / above
    else:
        unit = int(tags["ResolutionUnit"].value) if "ResolutionUnit" in tags else 2
        size = _ANGSTROM_PER_UNIT.get(unit, 0.0) * below / above
    return size if _PLAUSIBLE_ANGSTROM[0] <= size <= _PLAUSIBLE_ANGSTROM[1] else None


def _eer_pixel_size(file: tifffile.TiffFile) -> float | None:
    for page in file.pages[:2]:
        tag = page.tags.get(65001) if isinstance(page, _library().TiffPage) else None
        if tag is not None and isinstance(tag.value, bytes):
            found = _EER_PIXEL.search(tag.value)
            if found:
                size = float(found[1]) * 1e10
                return size if _PLAUSIBLE_ANGSTROM[0] <= size <= _PLAUSIBLE_ANGSTROM[1] else None
    return None


class _PageErrors(logging.Handler):
    """Collects tifffile's messages about a broken chain of pages."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "TiffPages" in text:
            self.said.append(text)


@contextlib.contextmanager
def _lost_pages() -> Iterator[list[str]]:
    """Collect errors in the chain of pages while it is walked, because tifffile goes on with the pages before the break."""
    logger, errors = logging.getLogger("tifffile"), _PageErrors()
    logger.addHandler(errors)
    try:
        yield errors.said
    finally:
        logger.removeHandler(errors)
