"""The grid on which frames are summed, and that of the halves: the micrograph's, as RELION's motion correction made it."""

from __future__ import annotations

from dataclasses import dataclass

from cryoplug.core.fourier_crop import resample_image
from cryoplug.core.micrograph import ImageF32
from cryoplug.errors import FormatError
from cryoplug.inputs.movies.motion import Motion

_EER_SCALES = (0.5, 1.0, 2.0, 4.0)
"""Side of RELION's frames over that of an EER file: eer_upsampling -1, 1, 2 and 3."""


@dataclass(frozen=True)
class HalvesGrid:
    """Sizes of a movie on its way to halves."""

    stored: tuple[int, int]
    """``(y, x)`` of a frame as the file has it; of EER at the detector's own pixels."""
    upsampling: int
    """Pixels of a summed frame along a side of a stored one: 1, and for EER 1, 2 or 4."""
    halves: tuple[int, int]
    """``(y, x)`` of both halves."""
    finer: float = 1.0
    """Pixels of RELION's frames along a side of a summed one; above 1 where RELION counts electrons on a finer grid and cuts
    the transform of their sum."""

    @property
    def summed(self) -> tuple[int, int]:
        """``(y, x)`` of the frames that are summed."""
        return self.stored[0] * self.upsampling, self.stored[1] * self.upsampling

    @property
    def offset_px(self) -> float:
        """How far, in summed pixels, content lies too low: the middle of a coarse pixel is not that of its first fine one."""
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
    """Tell the grid of the halves of a movie.

    Parameters
    ----------
    stored
        ``(y, x)`` of a frame in the file.
    motion
        What RELION's motion correction says; None: halves are as large as frames.
    is_eer
        Whether electrons have places within a pixel, so that frames can be finer than the file.
    as_fine_as_micrograph
        Whether the halves are to be finer than the detector where the micrograph is (eer_upsampling 2 or 3); it is in the list
        then, and halves beside it must have its pixel size. A movie that is given for itself stays at the detector's.

    Raises
    ------
    FormatError
        The motion is that of frames of another size.
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
