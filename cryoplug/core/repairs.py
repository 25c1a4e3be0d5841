"""What is repaired in a micrograph before the network sees it: a bad border, then hot pixels."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cryoplug.core.bad_border import BadBorder, SoundBorder, bad_border_of
from cryoplug.core.hot_pixels import HotPixels, bands_to_search, find_hot_pixels, grey_limits
from cryoplug.core.micrograph import ImageF32, MicrographSource
from cryoplug.core.remarks import joined
from cryoplug.core.sampled_rows import read_sampled_rows, sampled_rows


@dataclass(frozen=True, eq=False)
class Repairs:
    """The repairs of one micrograph."""

    hot: HotPixels = field(default_factory=HotPixels)
    """Its hot pixels, once its border was sound."""
    border: BadBorder = field(default_factory=BadBorder)
    """Its bad border."""

    def __bool__(self) -> bool:
        return bool(self.border) or len(self.hot) > 0

    @property
    def remark(self) -> str:
        """The remark for the user; empty if nothing was repaired."""
        return joined([self.border.remark, self.hot.remark])


class RepairedMicrograph(MicrographSource):
    """A micrograph without bad border and hot pixels. Unless they are known, creating it reads the micrograph once to find them.

    Parameters
    ----------
    source
        The opened micrograph; closed together with this one.
    repairs
        Its repairs; None finds them.
    """

    def __init__(self, source: MicrographSource, repairs: Repairs | None = None) -> None:
        self.path, self.shape, self.dtype = source.path, source.shape, source.dtype
        self.pixel_size_angstrom, self.warnings = source.pixel_size_angstrom, source.warnings
        if repairs is None:
            self._sound, sampled, border = with_sound_border(source)
            read = self._sound.read_rows
            hot = find_hot_pixels(read, self.shape, bands_to_search(read, self.shape), grey_limits(sampled))
            repairs = Repairs(hot, border)
        else:
            self._sound = SoundBorder(source, repairs.border) if repairs.border else source
        self.repairs = repairs
        """The repairs that are made."""

    def read_rows(self, start: int, stop: int) -> ImageF32:
        """Read rows, repaired."""
        rows = self._sound.read_rows(start, stop)
        self.repairs.hot.repair(rows, start)
        return rows

    def close(self) -> None:
        """Close the micrograph."""
        self._sound.close()


def with_sound_border(source: MicrographSource) -> tuple[MicrographSource, np.ndarray, BadBorder]:
    """Give a micrograph without its bad border, the pixels of its sampled rows, and the bad border."""
    sampled = read_sampled_rows(source)
    border = bad_border_of(source.read_rows, source.shape, sampled)
    if not border:
        return source, sampled, border
    sound = SoundBorder(source, border)
    return sound, read_sampled_rows(sound), border


def repaired_image(pixels: np.ndarray) -> tuple[ImageF32, Repairs]:
    """Give a repaired copy of an image ``(y, x)``, and its repairs."""
    result = np.array(pixels, np.float32, order="C")

    def read(start: int, stop: int) -> ImageF32:
        return result[start:stop]

    shape = result.shape[0], result.shape[1]
    chosen = sampled_rows(len(result))
    border = bad_border_of(read, shape, result[chosen])
    border.repair(result)
    hot = find_hot_pixels(read, shape, bands_to_search(read, shape), grey_limits(result[chosen]))
    hot.repair(result, 0)
    return result, Repairs(hot, border)
