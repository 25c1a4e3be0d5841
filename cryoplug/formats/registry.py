"""Which micrograph formats there are, and which one a file is in."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryoplug import extensions
from cryoplug.core.micrograph import MicrographSource
from cryoplug.core.results import Finding
from cryoplug.errors import FormatError, InputError, MissingInputError, StorageError
from cryoplug.formats import mrc

_SNIFF_BYTES = 2048
_FOREIGN = (
    (b"\x1f\x8b", "a gzip file", "decompress it first (gunzip)"),
    (b"BZh", "a bzip2 file", "decompress it first (bunzip2)"),
    (b"PK\x03\x04", "a zip file", "unpack it first"),
    (b"II*\x00", "a TIFF file", "convert it to MRC, or install a plugin that reads TIFF"),
    (b"MM\x00*", "a TIFF file", "convert it to MRC, or install a plugin that reads TIFF"),
    (b"II+\x00", "a BigTIFF or EER file", "convert it to MRC"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "name it as a store, or export the micrograph as MRC"),
    (b"\x89PNG", "a PNG picture", "use the micrograph that it was made of"),
    (b"\x93NUMPY", "a numpy array", "save it as MRC with cryoplug.write_mrc"),
)


@dataclass(frozen=True)
class FormatSpec:
    """A file format of micrographs; a plugin offers one in the entry-point group ``cryoplug.formats``."""

    id: str
    """Short name, unique."""
    description: str
    """One line for people."""
    extensions: tuple[str, ...]
    """Endings of file names with the dot, in lower case; a folder is searched for these."""
    open: Callable[[Path], MicrographSource]
    """Opens a file, or raises `FormatError`."""
    validate: Callable[[Path], list[Finding]]
    """Lists everything that is wrong or unusual; empty when nothing is."""
    sniff: Callable[[bytes], bool]
    """Whether a file that begins with these bytes (2048, or the whole file) may be in this format."""


MRC = FormatSpec(
    id="mrc",
    description="MRC2014 image, modes 0, 1, 2, 6, 12 and 101",
    extensions=(".mrc",),
    open=mrc.MrcMicrograph,
    validate=mrc.validate_mrc,
    sniff=mrc.sniff_mrc,
)
_BUILT_IN = {MRC.id: MRC}


def formats() -> dict[str, FormatSpec]:
    """List all formats by id: those of cryoplug, then those of plugins, which cannot replace them."""
    found = dict(_BUILT_IN)
    for spec in extensions.load_all("formats", expected=FormatSpec).values():
        if isinstance(spec, FormatSpec):
            found.setdefault(spec.id, spec)
    return found


def format_of(path: Path) -> FormatSpec:
    """Tell the format of a file: by its name, unless its first bytes are clearly of another one.

    Raises
    ------
    MissingInputError
        There is no such file.
    InputError
        It is a folder or a device.
    FormatError
        It is in no known format; the message says what it is, as far as known.
    StorageError
        The system refused to read it.
    """
    head = _first_bytes(path)
    suffix = path.suffix.lower()
    # Plugins are imported only when no format of cryoplug itself fits: an MRC must not pay for them.
    for known in (_BUILT_IN.values(), _plugin_formats()):
        specs = list(known)
        by_name = [spec for spec in specs if suffix in spec.extensions]
        by_content = [spec for spec in specs if spec.sniff(head)]
        both = [spec for spec in by_name if spec in by_content]
        if both or by_content:
            return (both or by_content)[0]
    allowed = ", ".join(f"{spec.id} ({' '.join(spec.extensions)})" for spec in formats().values())
    for magic, name, advice in _FOREIGN:
        if head.startswith(magic):
            raise FormatError(f"{path}: this is {name}, not a micrograph that can be read ({allowed}); {advice}")
    for spec in formats().values():
        if suffix in spec.extensions:
            return spec  # its own reader says best what is wrong
    raise FormatError(f"{path}: {mrc.describe_foreign(head)}, not a micrograph (formats: {allowed}); leave it out")


def open_micrograph(path: str | Path) -> MicrographSource:
    """Open a micrograph in any known format; raises what `format_of` raises.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    MicrographSource
        Close it, or use it as a context manager.
    """
    path = Path(path)
    spec = format_of(path)
    with read_errors(path):
        return spec.open(path)


def _plugin_formats() -> Iterator[FormatSpec]:
    yield from (spec for key, spec in formats().items() if key not in _BUILT_IN)


def _first_bytes(path: Path) -> bytes:
    with read_errors(path):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file (a device or a pipe)"
            raise InputError(f"{path}: this is {kind}; a micrograph is a regular file")
        with path.open("rb") as stream:
            return stream.read(_SNIFF_BYTES)


@contextlib.contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn the system's refusal to read into an error of cryoplug that names `path`."""
    try:
        yield
    except (InputError, StorageError):
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingInputError(f"{path}: there is no such file; check the name and the working folder") from error
    except ValueError as error:  # a NUL byte in the name
        raise MissingInputError(f"{str(path)!r}: this cannot be a file name ({error}); correct it") from error
    except OSError as error:
        raise StorageError(f"{path}: reading failed: {error.strerror or error}; check permissions and disk") from error
