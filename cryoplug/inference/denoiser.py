"""The Python API: denoise an image in memory, as ``cryoplug denoise`` does with a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryoplug.core.micrograph import ImageF32
from cryoplug.core.pixel_size import pixel_size_problems
from cryoplug.errors import UsageError
from cryoplug.inference.in_memory import in_memory
from cryoplug.inference.prepared import PreparedNetwork
from cryoplug.inference.settings import ApplySettings
from cryoplug.models.checkpoint import load_checkpoint
from cryoplug.models.shipped import GENERAL

if TYPE_CHECKING:
    from typing import Self


class Denoiser(PreparedNetwork):
    """A checkpoint that denoises images; the arguments are those of `PreparedNetwork`."""

    @classmethod
    def from_checkpoint(cls, path: Path | str = GENERAL, settings: ApplySettings | None = None, **options: Any) -> Self:
        """Load ``general``, a run folder, an ``epoch_NNNN`` folder or a founding folder of ``.bin`` files; see the class."""
        return cls(load_checkpoint(path), settings, **options)

    def denoise(self, image: np.ndarray, *, pixel_size_angstrom: float | None = None) -> ImageF32:
        """Denoise one image in memory, with the same result as ``cryoplug denoise``, to float32 rounding.

        Parameters
        ----------
        image
            ``(y, x)``, any real type, finite, not constant.
        pixel_size_angstrom
            Pixel size of `image`. It is needed if the network works at its own pixel size (``angpix``, which many
            checkpoints have), and for ``merge_highres``, the filters and ``output_angpix``. Otherwise it makes no difference.

        Returns
        -------
        ImageF32
            Result with the same shape and grey-scale units.

        Raises
        ------
        PixelError
            Pixels are NaN, infinite or all equal, or none is positive (percentile).
        UsageError
            The pixel size is needed and not given, or it is not a length.
        """
        if pixel_size_angstrom is not None:
            for text in pixel_size_problems(pixel_size_angstrom, "pixel_size_angstrom="):
                raise UsageError(text)
        elif why := self.regrid.why_pixel_size:
            raise UsageError(
                f"pixel size not given: {why}; give denoise(image, pixel_size_angstrom=...), the sampling of the image, or "
                "Denoiser(..., angpix=0) to take pixels as they are"
            )
        denoised = in_memory(self, image, pixel_size_angstrom=pixel_size_angstrom)
        for remark in denoised.remarks:
            self._note(remark)
        return denoised.pixels
