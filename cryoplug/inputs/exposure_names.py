"""Which exposure a file shows, by its name: ``X_PS.mrc``, ``X_EVN.mrc`` and ``average/even/X.mrc`` all show X.

RELION writes ``X.mrc``, ``X_noDW``, ``X_EVN``, ``X_ODD`` and ``X_PS``; MotionCor ``X_DW``, ``X_DWS``, ``X_EVN``, ``X_ODD``, and
stacks of aligned frames ``X_Stk``; cryoSPARC ``X_patch_aligned``, ``X_patch_aligned_doseweighted`` and the coarse
``X_background``; Warp ``average/X``, ``average/even/X`` (once ``denoising/even/X``) and ``powerspectrum/X`` below the movies;
CTFFIND pictures such as ``X_diag``; cryoplug itself ``noisy/X``, ``even/X``, ``odd/X``, ``clean/X`` and ``particles_only/X``.
EPU writes ``X`` and its movie ``X_Fractions`` or ``X_EER.eer``. Lower and upper case make no difference.
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
    **dict.fromkeys(("evn", "even", "odd", "half1", "half2"), Role.HALF),
    **dict.fromkeys(("fractions", "eer", "stk", "dwstk", "movie"), Role.MOVIE),
    **dict.fromkeys(("ps", "pow", "pw", "fft", "psd", "ctf", "powerspectrum", "avrot"), Role.MADE_FROM_IT),
    **dict.fromkeys(("ctffind", "ctffind3", "ctffind4", "ctffind5", "gctf", "diag", "diag_2d"), Role.MADE_FROM_IT),
    **dict.fromkeys(("mask", "masked", "preview", "thumb", "thumbnail", "background"), Role.MADE_FROM_IT),
    **dict.fromkeys(("denoised", "deconv"), Role.MADE_FROM_IT),
}
_ALIGNED = re.compile(r"(.+)_(?:patch|rigid)_aligned", re.IGNORECASE | re.DOTALL)
"""cryoSPARC's micrograph: not dose-weighted, unless ``_doseweighted`` follows."""
_FOLDERS = {
    **dict.fromkeys(("even", "evn", "odd"), Role.HALF),
    **dict.fromkeys(("powerspectrum", "powerspectra", "mask", "masks"), Role.MADE_FROM_IT),
    **dict.fromkeys(("preview", "previews", "thumbnail", "thumbnails"), Role.MADE_FROM_IT),
    **dict.fromkeys(("clean", "particles_only", "truth", "denoised", "deconv"), Role.MADE_FROM_IT),
}
_PLAIN_FOLDERS = frozenset({"average", "averages", "noisy", "denoising"})
"""Folders of micrographs whose companions lie in folders beside them; Warp's movies lie above ``average``."""
_ENDING = re.compile(rf"(.+)_({'|'.join(_ENDINGS)})", re.IGNORECASE | re.DOTALL)


class ExposureName(NamedTuple):
    """The exposure and the role of a file, from its path."""

    exposure: tuple[str, str]
    """Folder and stem that all files of one exposure share."""
    role: Role
    """Role of the file in the exposure."""
    mark: str
    """Part of the name that differs from the micrograph's, such as ``_PS`` or ``even/``; empty for the micrograph itself."""
    is_sum: bool = False
    """Whether its folder is one of micrographs (``average``): the file of its name in the folder above is its movie."""


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
    if match := _ALIGNED.fullmatch(stem):
        role, mark = (role, mark) if mark else (Role.UNWEIGHTED, stem[len(match[1]) :])
        stem = match[1]
    parts = folder.split("/")
    while parts and (known := _FOLDERS.get(parts[-1].lower())) is not None:
        role = max(role, known)
        mark = f"{parts.pop()}/{mark}"
    is_sum = bool(parts) and parts[-1].lower() in _PLAIN_FOLDERS
    if is_sum:
        parts.pop()
    return ExposureName(("/".join(parts), stem), role, mark, is_sum and role == Role.MICROGRAPH)
