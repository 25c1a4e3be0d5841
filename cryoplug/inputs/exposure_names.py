"""Which exposure a file shows, by its name: ``X_PS.mrc``, ``X_EVN.mrc`` and ``average/even/X.mrc`` all show X.

RELION writes ``X.mrc``, ``X_noDW``, ``X_EVN``, ``X_ODD`` and ``X_PS``; MotionCor ``X_DW``, ``X_DWS``, ``X_EVN`` and ``X_ODD``;
cryoSPARC ``X_doseweighted``; Warp ``average/X``, ``average/even/X``, ``average/odd/X`` and ``powerspectrum/X``; cryoplug itself
``noisy/X``, ``even/X``, ``odd/X`` and ``clean/X``. EPU writes ``X`` and its movie ``X_Fractions`` or ``X_EER.eer``. Lower and
upper case make no difference.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import NamedTuple


class Role(IntEnum):
    """The role of a file in its exposure. Among the files of an exposure, those with the lowest role are its micrographs."""

    MICROGRAPH = 0
    """The micrograph itself, ``X``."""
    DOSE_WEIGHTED = 1
    """The same frames, summed with dose weighting."""
    UNWEIGHTED = 2
    """The same frames, summed without dose weighting."""
    HALF = 3
    """The sum of the even or of the odd frames."""
    MOVIE = 4
    """The frames that it was made from; the lowest role if movies are asked for."""
    MADE_FROM_IT = 5
    """Files that programs made from it: power spectra, masks, previews and the like."""


_ENDINGS = {
    **dict.fromkeys(("dw", "dws", "doseweighted"), Role.DOSE_WEIGHTED),
    "nodw": Role.UNWEIGHTED,
    **dict.fromkeys(("evn", "even", "odd"), Role.HALF),
    **dict.fromkeys(("fractions", "eer"), Role.MOVIE),
    **dict.fromkeys(("ps", "pow", "fft", "psd", "ctf", "powerspectrum"), Role.MADE_FROM_IT),
    **dict.fromkeys(("mask", "masked", "preview", "thumb", "thumbnail"), Role.MADE_FROM_IT),
}
_FOLDERS = {
    **dict.fromkeys(("even", "evn", "odd"), Role.HALF),
    **dict.fromkeys(("powerspectrum", "powerspectra", "mask", "masks"), Role.MADE_FROM_IT),
    **dict.fromkeys(("preview", "previews", "thumbnail", "thumbnails"), Role.MADE_FROM_IT),
    **dict.fromkeys(("clean", "truth", "denoised", "deconv"), Role.MADE_FROM_IT),
}
_PLAIN_FOLDERS = frozenset({"average", "averages", "noisy"})
"""Folders of micrographs whose companions lie in folders beside them."""
_ENDING = re.compile(rf"(.+)_({'|'.join(_ENDINGS)})", re.IGNORECASE | re.DOTALL)


class ExposureName(NamedTuple):
    """The exposure and the role of a file, from its path."""

    exposure: tuple[str, str]
    """Folder and stem that all files of one exposure share."""
    role: Role
    """Role of the file in the exposure."""
    mark: str
    """Part of the name that differs from the micrograph's, such as ``_PS`` or ``even/``; empty for the micrograph itself."""


def exposure_name(folder: str, stem: str) -> ExposureName:
    """Say which exposure a file shows.

    Parameters
    ----------
    folder
        Folder of the file, with ``/`` between the parts.
    stem
        Its name without the ending of the format.
    """
    role, mark = Role.MICROGRAPH, ""
    while match := _ENDING.fullmatch(stem):
        role = max(role, _ENDINGS[match[2].lower()])
        mark = f"{stem[len(match[1]) :]}{mark}"
        stem = match[1]
    parts = folder.split("/")
    while parts and (known := _FOLDERS.get(parts[-1].lower())) is not None:
        role = max(role, known)
        mark = f"{parts.pop()}/{mark}"
    if parts and parts[-1].lower() in _PLAIN_FOLDERS:
        parts.pop()
    return ExposureName(("/".join(parts), stem), role, mark)
