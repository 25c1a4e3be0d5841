"""The grid on which frames are summed, and the grid of the halves, which is that of RELION's micrograph."""

from __future__ import annotations

from dataclasses import dataclass

from cryoplug.core.fourier_crop import resample_image
from cryoplug.core.micrograph import ImageF32
from cryoplug.errors import FormatError
from cryoplug.inputs.movies.motion import Motion

_EER_SCALES = (0.5, 1.0, 2.0, 4.0)
"""Side of RELION's frames over that of an EER file, for eer_upsampling -1, 1, 2 and 3."""


@dataclass(frozen=True)
class HalvesGrid:
    """Sizes of a movie on its way to halves."""

    stored: tuple[int, int]
    """``(y, x)`` of a frame in the file; for EER in the detector's own pixels."""
    upsampling: int
    """How many times finer a summed frame is than a stored one, along a side: 1; for EER 1, 2 or 4."""
    halves: tuple[int, int]
    """``(y, x)`` of both halves."""
    finer: float = 1.0
    """How many times finer RELION's frames are than the summed ones, along a side. Above 1 if RELION counts electrons on a
    finer grid and then cuts the Fourier transform of their sum."""

    @property
    def summed(self) -> tuple[int, int]:
        """``(y, x)`` of the frames that are summed."""
        return self.stored[0] * self.upsampling, self.stored[1] * self.upsampling

    @property
    def offset_px(self) -> float:
        """Offset of the content in summed pixels: the middle of a coarse pixel is not the middle of its first fine pixel."""
        return (1 - 1 / self.finer) / 2

    def pixel_size(self, angstrom: float | None, shape: tuple[int, int]) -> float | None:
        """Give the pixel size of the halves, from that of a frame of `shape`; None stays None."""
        return None if angstrom is None else angstrom * shape[0] / self.halves[0]

    def binned(self, pixels: ImageF32) -> ImageF32:
        """Bring a sum of frames to the grid of the halves, by cutting its Fourier transform as RELION does."""
        return pixels if pixels.shape == self.halves else resample_image(pixels, self.halves)


def halves_grid(
    stored: tuple[int, int], motion: Motion | None, *, is_eer: bool, as_fine_as_micrograph: bool = False
) -> HalvesGrid:
    """Work out the grid of the halves of a movie.

    Parameters
    ----------
    stored
        ``(y, x)`` of a frame in the file.
    motion
        RELION's motion file; None makes halves as large as frames.
    is_eer
        Whether electrons have places within a pixel, so that frames can be finer than the file.
    as_fine_as_micrograph
        Whether to make halves finer than the detector if the micrograph is (eer_upsampling 2 or 3). That is so if the
        micrograph is in the list, because its halves must have its pixel size. For a movie that is given by itself, the
        halves keep the detector's pixels.

    Raises
    ------
    FormatError
        The motion belongs to frames of another size.
    """
    if motion is None:
        return HalvesGrid(stored, 1, stored)
    scales = {there / here for there, here in zip(motion.shape, stored, strict=True)}
    if scales != {1.0} and not (is_eer and len(scales) == 1 and scales <= set(_EER_SCALES)):
        raise FormatError(
            f"{motion.path}: motion of frames of {motion.shape} (y, x), but those of the movie have {stored}; it belongs to "
            "another movie"
        )
    halves = int(motion.shape[0] / motion.binning), int(motion.shape[1] / motion.binning)
    if min(halves) < 1:
        raise FormatError(
            f"{motion.path}: rlnMicrographBinning {motion.binning:g} leaves nothing of {motion.shape} (y, x)"
        )
    if not as_fine_as_micrograph and halves[0] > stored[0]:
        return HalvesGrid(stored, 1, stored)
    finest = max(1, int(max(scales)))
    # Electrons are counted on the coarsest grid that can hold the halves: finer ones take memory and give no more.
    upsampling = next((factor for factor in (1, 2, 4) if factor >= finest or stored[0] * factor >= halves[0]), finest)
    return HalvesGrid(stored, upsampling, halves, max(1.0, max(scales) / upsampling))
