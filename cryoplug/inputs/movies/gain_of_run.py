"""Gain reference and defects of a run, fitted to each movie: multiply or divide, order of rows, size.

Every reader gives rows in the order of an MRC file, as RELION does. Gain references, maps and lists of defects, shifts and
hot pixels are all meant for frames in that order. The exception is the ``.gain`` file (a TIFF) of an EER movie: its rows
are in the order of that movie. Neither RELION nor cryoplug turns it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cryoplug.core.micrograph import ImageF32, MicrographSource
from cryoplug.disk.opening import read_errors
from cryoplug.errors import FormatError, ShapeError
from cryoplug.formats import registry
from cryoplug.inputs.movies.gain import DefectRepair, Gain, check_defects, check_gain, parse_defects
from cryoplug.inputs.movies.motion import Motion

_FROM_THE_TOP = frozenset({"tiff", "dm"})
"""Formats that store the upper row first; their readers turn the image."""
_EER = "eer"
_GAIN_SUFFIX = ".gain"
_MAX_LIST_BYTES = 16 << 20


class MovieFormat:
    """The properties of a movie that a gain reference must fit.

    Parameters
    ----------
    path
        The movie.
    shape
        ``(y, x)`` of a frame.
    """

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        self.path = path
        self.shape = shape
        self.is_eer = registry.format_of(path).id == _EER
        """Whether it is an EER movie: many raw frames make one frame of RELION."""

    @property
    def key(self) -> tuple[tuple[int, int], bool]:
        """Key that is equal for movies that need the same gain."""
        return self.shape, self.is_eer


class RunGain:
    """Gain and defects that the user gave, fitted once to each kind of movie.

    Parameters
    ----------
    gain
        Gain reference in any image format. EER frames are multiplied by a ``.gain`` file, and divided by any other file.
    defects
        List ``x y w h``, or an image that is 0 at good pixels.

    Raises
    ------
    InputError, StorageError
        A file cannot be read or is of another kind.
    """

    def __init__(self, gain: Path | None, defects: Path | None) -> None:
        self.gain_path = gain
        self._defects_path = defects
        self._text = None if defects is None else _read_list(defects)
        # What cannot be opened is noticed now, not after the first movie was read; pixels are read when they are fitted.
        for path in (gain, defects if self._text is None else None):
            if path is not None:
                _open_image(path).close()
        self._fitted: tuple[tuple[object, ...], Gain, DefectRepair | None] | None = None

    def fit(self, movie: MovieFormat, motion: Motion | None) -> tuple[Gain, DefectRepair | None]:
        """Give the gain for the frames of a movie, and the repair of its defects.

        Parameters
        ----------
        movie
            Format of the movie.
        motion
            Its motion file, if there is one: it lists the hot pixels that RELION found.

        Raises
        ------
        ShapeError
            Gain or defects have another shape than the frames.
        """
        if self._fitted is None or self._fitted[0] != movie.key:
            gain = self._gain(movie)
            defects = self._defects(movie)
            if gain.defects is not None:
                defects = gain.defects if defects is None else defects | gain.defects
            gain = Gain(gain.factor, defects)
            self._fitted = movie.key, gain, None if defects is None else DefectRepair(defects)
        _, gain, repair = self._fitted
        if motion is None or not motion.hot_pixels or motion.shape != movie.shape:
            return gain, repair
        bad = np.zeros(movie.shape, bool) if gain.defects is None else gain.defects.copy()
        y, x = np.array(motion.hot_pixels).T
        bad[y, x] = True
        return Gain(gain.factor, bad), DefectRepair(bad)

    def is_stored_upside_down(self, movie: MovieFormat) -> bool:
        """Say whether the first row of the gain file is the last row of the gain that `fit` gives."""
        if self.gain_path is None or registry.format_of(self.gain_path).id not in _FROM_THE_TOP:
            return False
        return not self._belongs_to_eer(movie)

    def _belongs_to_eer(self, movie: MovieFormat) -> bool:
        return movie.is_eer and self.gain_path is not None and self.gain_path.suffix.lower() == _GAIN_SUFFIX

    def _gain(self, movie: MovieFormat) -> Gain:
        if self.gain_path is None:
            return Gain(None, None)
        pixels = _read_image(self.gain_path)
        if self._belongs_to_eer(movie) and registry.format_of(self.gain_path).id in _FROM_THE_TOP:
            pixels = pixels[::-1]  # back to the order of the file
        if movie.is_eer:
            pixels = _fitted_to_eer(pixels, movie.shape)
        if pixels.shape != movie.shape:
            raise ShapeError(_wrong_shape(self.gain_path, "gain reference", pixels.shape, movie))
        gain = check_gain(np.ascontiguousarray(pixels), self.gain_path)
        if movie.is_eer and not self._belongs_to_eer(movie) and gain.factor is not None:
            mean = gain.factor.mean(dtype=np.float64)
            np.divide(np.float32(mean), gain.factor, out=gain.factor, where=gain.factor > 0)
        return gain

    def _defects(self, movie: MovieFormat) -> np.ndarray | None:
        if self._defects_path is None:
            return None
        if self._text is not None:
            mask = parse_defects(self._text, self._defects_path, movie.shape)
        else:
            mask = _read_image(self._defects_path) != 0
            if mask.shape != movie.shape:
                raise ShapeError(_wrong_shape(self._defects_path, "map of defects", mask.shape, movie))
        check_defects(mask, self._defects_path)
        return np.ascontiguousarray(mask) if mask.any() else None


def _wrong_shape(path: Path, what: str, shape: tuple[int, ...], movie: MovieFormat) -> str:
    hint = "it must have the shape of a frame"
    if shape == movie.shape[::-1]:
        hint = "rotate it by 90 degrees, to the orientation of the movie"
    elif any(shape == (extent[0], extent[1]) for extent in _other_scales(movie.shape)):
        hint = "it was taken at another binning (super-resolution?): bring it to the size of the frames"
    return f"{path}: {what} of shape {shape} (y, x) but the frames of {movie.path} have {movie.shape}; {hint}"


def _other_scales(shape: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    return (shape[0] * 2, shape[1] * 2), (shape[0] // 2, shape[1] // 2)


def _fitted_to_eer(pixels: ImageF32, shape: tuple[int, int]) -> ImageF32:
    # A reference of 4096 x 4096 serves frames rendered at 8192 x 8192, and the other way round, as in RELION.
    for factor in (2, 4):
        if pixels.shape == (shape[0] // factor, shape[1] // factor):
            return pixels.repeat(factor, axis=0).repeat(factor, axis=1)
        if pixels.shape == (shape[0] * factor, shape[1] * factor):
            boxes = pixels.reshape(shape[0], factor, shape[1], factor)
            return np.where((boxes == 0).any((1, 3)), np.float32(0), boxes.mean((1, 3), dtype=np.float32))
    return pixels


def _open_image(path: Path) -> MicrographSource:
    # Of a .gain file of several images RELION takes the first one.
    return registry.open_micrograph(path, section=1 if path.suffix.lower() == _GAIN_SUFFIX else None)


def _read_image(path: Path) -> ImageF32:
    with _open_image(path) as source:
        return source.read_rows(0, source.shape[0])


def _read_list(path: Path) -> str | None:
    """Give the text of a list of defects; None when the file is an image."""
    with read_errors(path), path.open("rb") as stream:
        head = stream.read(4096)
        if b"\0" in head:
            return None
        rest = stream.read(_MAX_LIST_BYTES)
        if stream.read(1):
            raise FormatError(f"{path}: a list of defects longer than {_MAX_LIST_BYTES} bytes; check the file")
    try:
        return (head + rest).decode("ascii")
    except UnicodeDecodeError as error:
        raise FormatError(
            f"{path}: neither an image nor a list of defects (x y w h in each line); check the file"
        ) from error
