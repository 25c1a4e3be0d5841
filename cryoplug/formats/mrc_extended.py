"""Read the extended header that microscopes write: pixel size, voltage, dose, defocus, tilt.

Thermo Fisher's records (FEI1, FEI2) are laid out as `mrcfile.dtypes` says; their bit mask tells which fields were set. SerialEM's
(SERI, and older files without a type) are described in IMOD's mrc_format.txt. All values are
claims of the writing program: a value that cannot be read or makes no sense is left out, and no file is refused for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from mrcfile.dtypes import get_ext_header_dtype

from cryoplug.formats.mrc_header import MrcHeader

_FEI = (b"FEI1", b"FEI2")
# Bits of the first mask: one for each field from the time stamp on.
_SET_BY = {"HT": 5, "Dose": 6, "Alpha tilt": 7, "Pixel size X": 14, "Applied defocus": 24}
_PIXEL_SIZES_ANGSTROM = (0.01, 1000.0)
_SERIAL_EM_BYTES = (2, 6, 4, 2, 2, 4, 2, 4, 2, 4, 2)
"""Number of bytes for each bit of SerialEM's flags; the first bit is the tilt angle in hundredths of a degree."""


@dataclass(frozen=True)
class Acquisition:
    """The values of the microscope for the first image of a file; None for missing values."""

    pixel_size_angstrom: float | None = None
    """Pixel size in angstrom."""
    voltage_kv: float | None = None
    """Acceleration voltage in kV."""
    dose_e_per_angstrom2: float | None = None
    """Dose of the exposure, in electrons per square angstrom of the specimen."""
    defocus_um: float | None = None
    """Requested defocus in micrometres; positive is underfocus."""
    tilt_degrees: float | None = None
    """Tilt of the stage in degrees."""
    microscope: str = ""
    """Name of the microscope."""
    camera: str = ""
    """Name of the camera."""


def read_acquisition(header: MrcHeader) -> Acquisition | None:
    """Read the values of the microscope for the first image; None without a record by Thermo Fisher."""
    records = _fei_records(header, 1)
    if records is None:
        return None
    record = records[0]
    pixel, voltage, dose, defocus, tilt = (
        _number(record, name) for name in ("Pixel size X", "HT", "Dose", "Applied defocus", "Alpha tilt")
    )
    pixel = None if pixel is None else pixel * 1e10
    return Acquisition(
        pixel_size_angstrom=pixel if pixel and _PIXEL_SIZES_ANGSTROM[0] < pixel < _PIXEL_SIZES_ANGSTROM[1] else None,
        voltage_kv=voltage / 1e3 if voltage and voltage > 0 else None,
        dose_e_per_angstrom2=dose / 1e20 if dose and dose > 0 else None,
        defocus_um=-defocus * 1e6 if defocus else None,
        tilt_degrees=tilt,
        microscope=_text(record["Microscope type"]),
        camera=_text(record["Camera name"]),
    )


def pixel_size_of_file(header: MrcHeader) -> tuple[float | None, str]:
    """Give the pixel size in angstrom that a file states, and a remark if it does not come from its cell.

    A cell that is unset or gives exactly 1 A was not filled in; then the microscope's value counts.
    """
    stated = header.pixel_size_angstrom
    if stated not in (None, 1.0):
        return stated, ""
    acquisition = read_acquisition(header)
    found = None if acquisition is None else acquisition.pixel_size_angstrom
    if found is None or found == stated:
        return stated, ""
    said = "unset" if stated is None else "exactly 1 A"
    return found, f"pixel size {found:.4g} A by the microscope's own record, since the cell is {said}"


def tilt_angles(header: MrcHeader) -> list[float]:
    """Give the tilt of the stage in degrees for each section; empty if the extended header does not give it."""
    records = _fei_records(header, header.nz)
    if records is not None:
        angles = [_number(record, "Alpha tilt") for record in records]
        return [] if None in angles else [angle for angle in angles if angle is not None]
    return _serial_em_angles(header)


def _fei_records(header: MrcHeader, count: int) -> np.ndarray[Any, Any] | None:
    kind = bytes(header.record["exttyp"])
    if kind not in _FEI:
        return None
    layout = get_ext_header_dtype(kind, header.byte_order)
    if len(header.extended_header) < layout.itemsize * count:
        return None
    records = np.frombuffer(header.extended_header, layout, count)
    # Some programs write the type and other bytes.
    return records if int(records[0]["Metadata size"]) == layout.itemsize else None


def _number(record: Any, name: str) -> float | None:
    if not int(record["Bitmask 1"]) >> _SET_BY[name] & 1:
        return None
    value = float(record[name])
    return value if math.isfinite(value) else None


def _text(value: Any) -> str:
    return bytes(value).split(b"\0")[0].decode("ascii", "replace").strip()


def _serial_em_angles(header: MrcHeader) -> list[float]:
    if bytes(header.record["exttyp"]).strip(b" \0") not in (b"SERI", b""):
        return []
    # IMOD's fields nint and nreal, where MRC2014 has unused bytes.
    size, flags = np.frombuffer(bytes(header.record["extra2"])[16:20], np.dtype("i2").newbyteorder(header.byte_order))
    expected = sum(count for bit, count in enumerate(_SERIAL_EM_BYTES) if int(flags) >> bit & 1)
    if not int(flags) & 1 or int(size) != expected or len(header.extended_header) < int(size) * header.nz:
        return []
    words = np.frombuffer(header.extended_header, np.dtype("i2").newbyteorder(header.byte_order))
    step = int(size) // 2
    return [float(value) / 100 for value in words[: step * header.nz : step]]
