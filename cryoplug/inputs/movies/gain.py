"""The detector's own pattern, and its removal: gain reference, defects, and a check that the reference fits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryoplug.core.micrograph import ImageF32
from cryoplug.errors import FormatError, InputError, ShapeError

MOST_DEFECTS = 0.1
"""Largest part of bad pixels; with more, the file is surely not a gain reference or a list of defects."""
_CHUNK = 1 << 16
_NEIGHBOURS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0))
_BEYOND_DOUBT = 10.0
_NO_TRACE = 3.0
_FILTER_SPREAD = 1.3
"""`_without_neighbours` makes neighbouring pixels of white noise correlate; this widens the spread of a correlation so much."""
_CLOCKWISE = "rotated by 90 degrees clockwise (first row on top)"
_ANTICLOCKWISE = "rotated by 90 degrees anticlockwise (first row on top)"
_TURNS = (
    ("turned upside down", lambda image: image[::-1]),
    ("mirrored left to right", lambda image: image[:, ::-1]),
    ("rotated by 180 degrees", lambda image: image[::-1, ::-1]),
    ("transposed", lambda image: image.T),
    ("rotated by 180 degrees and transposed", lambda image: image[::-1, ::-1].T),
    (_CLOCKWISE, lambda image: image[::-1].T),
    (_ANTICLOCKWISE, lambda image: image.T[::-1]),
)
_IN_THE_FILE = {
    "transposed": "rotated by 180 degrees and transposed",
    "rotated by 180 degrees and transposed": "transposed",
    _CLOCKWISE: _ANTICLOCKWISE,
    _ANTICLOCKWISE: _CLOCKWISE,
}
"""How to turn the file itself if its rows are in the opposite order; other turns have the same name in both."""


@dataclass(frozen=True)
class Gain:
    """The factor for each pixel of a raw frame, and the pixels that are defects."""

    factor: ImageF32 | None
    """``(y, x)``, 0 at defects; None leaves frames as they are."""
    defects: np.ndarray | None
    """``(y, x)`` bool, True where bad; None if all pixels are good."""

    def apply(self, frames: ImageF32) -> None:
        """Multiply a frame, or a sum of frames, in place; `DefectRepair` repairs defects later."""
        if self.factor is not None:
            np.multiply(frames, self.factor, out=frames)


def check_gain(pixels: ImageF32, path: Path) -> Gain:
    """Make a gain to multiply by, as RELION does; zeros and pixels that are not finite become defects.

    Parameters
    ----------
    pixels
        ``(y, x)``, around 1; changed in place.
    path
        For messages.

    Raises
    ------
    InputError
        A pixel is negative, or more than 10 % are defects.
    """
    bad = ~np.isfinite(pixels) | (pixels == 0)
    pixels[bad] = 0
    lowest = float(pixels.min())
    if lowest < 0:
        raise InputError(
            f"{path}: the lowest pixel is {lowest:g}; a gain reference has positive factors, and 0 for defects; "
            "is it a dark reference or an image?"
        )
    check_defects(bad, path)
    return Gain(pixels, bad if bad.any() else None)


def check_defects(mask: np.ndarray, path: Path) -> None:
    """Raise `InputError` if more than 10 % of the pixels are bad."""
    part = float(mask.mean())
    if part > MOST_DEFECTS:
        raise InputError(
            f"{path}: {100 * part:.0f} % of the pixels are defects; allowed: {100 * MOST_DEFECTS:.0f} %; "
            "check the file (in a mask 0 is a good pixel)"
        )


def parse_defects(text: str, path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Read a list of defects: ``x y w h`` in each line, in pixels from 0, as RELION and MotionCor take it.

    Parameters
    ----------
    text
        Text of the file; empty lines, and lines that begin with #, do not count.
    path
        For messages.
    shape
        ``(y, x)`` of a frame.

    Returns
    -------
    np.ndarray
        ``(y, x)`` bool, True where a pixel is bad.

    Raises
    ------
    FormatError
        A line does not give a rectangle.
    ShapeError
        A rectangle lies outside of the frame.
    """
    mask = np.zeros(shape, bool)
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if not all(word.isdecimal() and len(word) < 10 for word in words) or len(words) != 4:
            raise FormatError(
                f"{path}: line {number} is {line.strip()[:60]!r}; allowed: x y w h in pixels (four whole numbers); "
                "SerialEM's list is of another kind: make a map of it with IMOD's clip defect"
            )
        x, y, width, height = map(int, words)
        if width < 1 or height < 1 or x + width > shape[1] or y + height > shape[0]:
            raise ShapeError(
                f"{path}: line {number}: {width} x {height} pixels at x {x}, y {y} are not within a frame of "
                f"{shape[1]} x {shape[0]} (x, y); is the list of another detector or binning?"
            )
        mask[y : y + height, x : x + width] = True
    return mask


class DefectRepair:
    """Replaces bad pixels by the mean of their good neighbours (3 x 3), from the rim of a defect inwards.

    Inside a wide defect, the neighbours are pixels that were repaired just before. The repair is linear in the pixels, so a
    sum of frames needs only one repair.

    Parameters
    ----------
    mask
        ``(y, x)`` bool, True where bad; not all.
    """

    def __init__(self, mask: np.ndarray) -> None:
        self._turn: np.ndarray = np.zeros(mask.shape, np.uint16)
        self._turns: list[np.ndarray] = []
        left = np.argwhere(mask).astype(np.int32)
        self._turn[mask] = np.iinfo(np.uint16).max
        while len(left):
            turn = len(self._turns) + 1
            ready = np.zeros(len(left), bool)
            for dy, dx in _NEIGHBOURS:
                ready |= self._is_ready(left[:, 0] + dy, left[:, 1] + dx, turn)
            now = left[ready]
            if not len(now):
                raise ShapeError("every pixel is a defect; at least one must be good")
            self._turn[now[:, 0], now[:, 1]] = turn
            self._turns.append(now)
            left = left[~ready]

    def apply(self, image: ImageF32) -> None:
        """Repair an image or a sum of images in place."""
        for turn, pixels in enumerate(self._turns, start=1):
            for start in range(0, len(pixels), _CHUNK):
                y, x = pixels[start : start + _CHUNK, 0], pixels[start : start + _CHUNK, 1]
                total, count = np.zeros(len(y), np.float64), np.zeros(len(y), np.int32)
                for dy, dx in _NEIGHBOURS:
                    ready = self._is_ready(y + dy, x + dx, turn)
                    total[ready] += image[y[ready] + dy, x[ready] + dx]
                    count += ready
                image[y, x] = total / count

    def _is_ready(self, y: np.ndarray, x: np.ndarray, turn: int) -> np.ndarray:
        height, width = self._turn.shape
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        inside[inside] = self._turn[y[inside], x[inside]] < turn
        return inside


def centre_window(shape: tuple[int, int], side: int = 1024) -> tuple[slice, slice]:
    """Give a window in the exact centre, so that turning or mirroring the image does not move it."""
    starts = [max(0, (extent - side + 1) // 2) for extent in shape]
    return slice(starts[0], shape[0] - starts[0]), slice(starts[1], shape[1] - starts[1])


def gain_complaint(
    raw: ImageF32, gain: Gain, *, may_transpose: bool, stored_upside_down: bool = False, is_eer: bool = False
) -> str:
    """Say what is wrong if a gain reference does not fit its raw frames; else give an empty text.

    Raw frames carry the pattern 1 / gain. If the reference is turned, mirrored or inverted, or was already applied, it does
    not remove the pattern but adds a second one. cryoplug complains only if there is no doubt, in one of two cases. First,
    another orientation fits better by 10 standard errors (stripes along a side partly fit in two orientations). Second, a
    fit of 20 standard errors is expected, and there is no trace of it (below 3).

    Parameters
    ----------
    raw
        Sum of raw frames within `centre_window`, ``(y, x)``.
    gain
        The same window of the reference.
    may_transpose
        Whether whole frames are square.
    stored_upside_down
        Whether the first row of the gain's file is the last one here; the message says how to turn the file.
    is_eer
        Whether frames are from EER, where the file's ending decides: multiply by ``.gain``, divide by any other.
    """
    if gain.factor is None:
        return ""
    good = np.ones(raw.shape, bool) if gain.defects is None else ~gain.defects
    pattern = np.divide(1, gain.factor, out=np.ones_like(gain.factor), where=gain.factor > 0)
    filtered = _without_neighbours(raw)
    fits = _fit(filtered, pattern, good)
    if fits <= -_BEYOND_DOUBT:
        advice = "EER frames are multiplied by a .gain file and divided by any other file: rename it, or give 1 / gain"
        return (
            f"it is applied the wrong way round: its inverse fits by {-fits:.0f} standard errors; {advice}"
            if is_eer
            else f"frames must be divided by it, not multiplied (its inverse fits by {-fits:.0f} standard errors); "
            "give 1 / gain, which is RELION's convention"
        )
    turns = _TURNS if may_transpose and raw.shape[0] == raw.shape[1] else _TURNS[:3]
    best, name = max((_fit(filtered, turn(pattern), turn(good)), name) for name, turn in turns)
    if best >= fits + _BEYOND_DOUBT:
        name = _IN_THE_FILE.get(name, name) if stored_upside_down else name
        return (
            f"it fits the frames less as it is ({fits:.1f} standard errors) than {name} ({best:.0f}); "
            "turn the file in this way, and give that one"
        )
    expected = _expected_fit(raw, filtered, pattern, good)
    if fits >= _NO_TRACE or expected < 2 * _BEYOND_DOUBT:
        return ""
    return (
        f"its pattern is not in the frames ({fits:.1f} standard errors, {expected:.0f} expected): they are "
        "corrected already, or it belongs to another session; leave --gain out, or give the right one"
    )


def _expected_fit(raw: ImageF32, filtered: ImageF32, pattern: ImageF32, good: np.ndarray) -> float:
    used = good[1:-1, 1:-1]
    spread = float(filtered[used].std(dtype=np.float64)) if used.any() else 0.0
    mean = abs(float(raw[good].mean(dtype=np.float64)))
    contrast = float(_without_neighbours(np.where(good, pattern, np.float32(1)))[used].std(dtype=np.float64))
    return min(1.0, mean * contrast / spread) * math.sqrt(used.sum()) / _FILTER_SPREAD if spread > 0 else 0.0


def _fit(filtered: ImageF32, pattern: ImageF32, good: np.ndarray) -> float:
    """Give the correlation of raw frames with 1 / gain, in standard errors."""
    used = good[1:-1, 1:-1] & good[:-2, 1:-1] & good[2:, 1:-1] & good[1:-1, :-2] & good[1:-1, 2:]
    one, two = (image[used].astype(np.float64) for image in (filtered, _without_neighbours(pattern)))
    if one.size < 2:
        return 0.0
    one -= one.mean()
    two -= two.mean()
    scale = math.sqrt(float(one @ one) * float(two @ two))
    return float(one @ two) / scale * math.sqrt(one.size) / _FILTER_SPREAD if scale > 0 else 0.0


def _without_neighbours(image: ImageF32) -> ImageF32:
    # What is smooth is specimen or illumination, in which frames and reference may agree by chance.
    mean = (image[:-2, 1:-1] + image[2:, 1:-1] + image[1:-1, :-2] + image[1:-1, 2:]) / 4
    return np.asarray(image[1:-1, 1:-1] - mean)
