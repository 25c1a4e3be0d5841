"""The known formats of micrographs, and the format of a file."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryoplug import extensions
from cryoplug.core.micrograph import ImageF32, MicrographSource, MovieSource
from cryoplug.core.results import Finding
from cryoplug.disk.opening import read_errors
from cryoplug.disk.retry import retried
from cryoplug.errors import FormatError, InputError
from cryoplug.formats import compressed, microscope, mrc, tiff
from cryoplug.formats.validation import Measure

_SNIFF_BYTES = 2048
_FOREIGN = (
    (b"PK\x03\x04", "a zip file", "unpack it first"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "name it as a store, or export the micrograph as MRC"),
    (b"\x89PNG", "a PNG picture", "use the micrograph that it was made of"),
    (b"\x93NUMPY", "a numpy array", "save it as MRC with cryoplug.write_mrc"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-zip file", "unpack it first"),
    (b"\x04\x22\x4d\x18", "an lz4 file", "unpack it first"),
    (b"\x1f\x9d", "a file packed by compress", "unpack it first"),
    (b"\xff\xd8\xff", "a JPEG picture", "use the micrograph that it was made of"),
    (b"SIMPLE  =", "a FITS image", "export it as MRC"),
)


@dataclass(frozen=True)
class FormatSpec:
    """A file format of micrographs; a plugin offers one in the entry-point group ``cryoplug.formats``."""

    id: str
    """Short name, unique."""
    description: str
    """One line for people."""
    extensions: tuple[str, ...]
    """Endings of file names with the dot, in lower case; some have two parts (``.mrc.gz``)."""
    open: Callable[[Path], MicrographSource]
    """Opens a file, or raises `FormatError`."""
    validate: Callable[[Path], list[Finding]]
    """Lists everything that is wrong or unusual; empty if nothing is."""
    sniff: Callable[[bytes], bool]
    """Whether a file that begins with these bytes (2048, or the whole file) may be in this format."""
    open_movie: Callable[[Path], MovieSource] | None = None
    """Opens a file as a movie or stack, or raises `FormatError`; None if the format holds only single images."""
    searched: tuple[str, ...] | None = None
    """Endings that a search in a folder finds; None finds all of `extensions`."""
    examine: Callable[[Path], list[Finding]] | None = None
    """Lists what is wrong or unusual in the header; None only opens the file."""
    validate_with: Callable[[Path, Measure], list[Finding]] | None = None
    """`validate`, but it measures a single image with the given function; None if `validate` cannot share its reading."""


MRC = FormatSpec(
    id="mrc",
    description="MRC2014 image, modes 0, 1, 2, 6, 12 and 101",
    extensions=(".mrc", ".mrcs", ".map", ".rec", ".st", ".ali"),
    open=mrc.MrcMicrograph,
    validate=mrc.validate_mrc,
    validate_with=mrc.validate_mrc,
    sniff=mrc.sniff_mrc,
    open_movie=mrc.MrcMovie,
    examine=mrc.examine_mrc,
    searched=(".mrc", ".mrcs", ".st"),
)
PACKED_MRC = FormatSpec(
    id="mrc-compressed",
    description="MRC2014 image inside gzip, bzip2, xz or zstd",
    extensions=compressed.ENDINGS,
    open=compressed.open_compressed,
    validate=compressed.validate_compressed,
    validate_with=compressed.validate_compressed,
    sniff=compressed.sniff_compressed,
    open_movie=compressed.CompressedMrcMovie,
)
_OTHERS = (
    PACKED_MRC,
    FormatSpec(
        id="tiff",
        description="TIFF image or movie in grey scale",
        extensions=(".tif", ".tiff"),
        open=tiff.open_tiff,
        validate=tiff.validate_tiff,
        validate_with=tiff.validate_tiff,
        sniff=tiff.sniff_tiff,
        open_movie=tiff.TiffMovie,
    ),
    FormatSpec(
        id="eer",
        description="EER movie (electron events)",
        extensions=(".eer",),
        open=tiff.open_tiff,
        validate=tiff.validate_tiff,
        validate_with=tiff.validate_tiff,
        sniff=tiff.sniff_tiff,
        open_movie=tiff.TiffMovie,
    ),
    FormatSpec(
        id="dm",
        description="DigitalMicrograph image or series",
        extensions=(".dm3", ".dm4"),
        open=microscope.open_dm,
        validate=microscope.validate_dm,
        validate_with=microscope.validate_dm,
        sniff=microscope.sniff_dm,
        open_movie=microscope.DmMovie,
    ),
    FormatSpec(
        id="ser",
        description="TIA image or series",
        extensions=(".ser",),
        open=microscope.open_ser,
        validate=microscope.validate_ser,
        validate_with=microscope.validate_ser,
        sniff=microscope.sniff_ser,
        open_movie=microscope.SerMovie,
    ),
)
_BUILT_IN = {spec.id: spec for spec in (MRC, *_OTHERS)}


def formats() -> dict[str, FormatSpec]:
    """List all formats by id: cryoplug's, then those of plugins, which cannot replace cryoplug's."""
    found = dict(_BUILT_IN)
    for spec in extensions.load_all("formats", expected=FormatSpec).values():
        if isinstance(spec, FormatSpec):
            found.setdefault(spec.id, spec)
    return found


def format_of(path: Path) -> FormatSpec:
    """Find the format of a file: from its name, unless its first bytes clearly belong to another format.

    Raises
    ------
    MissingInputError
        There is no such file.
    InputError
        It is a folder or a device.
    FormatError
        It is in no known format; the message says what it is, if that is known.
    StorageError
        The system refused to read it.
    """
    head = retried(lambda: _first_bytes(path))
    name = path.name.lower()
    # Plugins are imported only when no format of cryoplug itself fits: an MRC must not pay for them.
    for known in (_BUILT_IN.values(), _plugin_formats()):
        specs = list(known)
        by_name = [spec for spec in specs if name.endswith(spec.extensions)]
        by_content = [spec for spec in specs if spec.sniff(head)]
        both = [spec for spec in by_name if spec in by_content]
        if both or by_content:
            return (both or by_content)[0]
    allowed = ", ".join(f"{spec.id} ({' '.join(spec.extensions)})" for spec in formats().values())
    for magic, name, advice in _FOREIGN:
        if head.startswith(magic):
            raise FormatError(f"{path}: this is {name}, not a micrograph that can be read ({allowed}); {advice}")
    for spec in formats().values():
        if name.endswith(spec.extensions):
            return spec  # its own reader says best what is wrong
    raise FormatError(f"{path}: {mrc.describe_foreign(head)}, not a micrograph (formats: {allowed}); leave it out")


def open_micrograph(path: str | Path, *, section: int | None = None) -> MicrographSource:
    """Open a micrograph in any known format; also raises the errors of `format_of`.

    Parameters
    ----------
    path
        The file.
    section
        Image of a stack, counted from 1 as in ``000012@stack.mrcs``; None for a file that must hold a single image.

    Returns
    -------
    MicrographSource
        Close it, or use it as a context manager.

    Raises
    ------
    FormatError
        The file holds several images, and none was named.
    ShapeError
        There is no such section.
    """
    path = Path(path)
    spec = format_of(path)
    with read_errors(path):
        if section is None:
            return retried(lambda: spec.open(path))
    movie = open_movie(path)
    try:
        with read_errors(path):
            return movie.frame(section - 1)
    except BaseException:
        movie.close()
        raise


def open_movie(path: str | Path) -> MovieSource:
    """Open a movie or stack in any known format; a file of a single image is a movie of one frame.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    MovieSource
        Close it, or use it as a context manager.

    Raises
    ------
    FormatError
        As `format_of`.
    """
    path = Path(path)
    spec = format_of(path)
    with read_errors(path):
        open_it = spec.open_movie
        if open_it is None:
            return _SingleImage(retried(lambda: spec.open(path)))
        return retried(lambda: open_it(path))


class _SingleImage(MovieSource):
    """A micrograph of a format without movies, as a movie of one frame."""

    def __init__(self, source: MicrographSource) -> None:
        self._source = source
        self.path, self.frame_shape, self.frame_count = source.path, source.shape, 1
        self.dtype, self.pixel_size_angstrom = source.dtype, source.pixel_size_angstrom
        self.warnings = source.warnings

    def read_frame(self, index: int) -> ImageF32:
        self.check_frame(index)
        return self._source.read_rows(0, self.frame_shape[0])

    def frame(self, index: int) -> MicrographSource:
        self.check_frame(index)
        return self._source

    def close(self) -> None:
        self._source.close()


def _plugin_formats() -> Iterator[FormatSpec]:
    yield from (spec for key, spec in formats().items() if key not in _BUILT_IN)


def _first_bytes(path: Path) -> bytes:
    with read_errors(path):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file (a device or a pipe)"
            raise InputError(f"{path}: this is {kind}; a micrograph is a regular file")
        with path.open("rb") as stream:
            return stream.read(_SNIFF_BYTES)
