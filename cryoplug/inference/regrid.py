"""Denoise at another pixel size than the micrograph's: crop, denoise, pad back, and mix with the raw pixels if asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryoplug.core.fourier_crop import (
    SAME_PIXEL_SIZE,
    cropped_shape,
    merge_high_resolution,
    resampled_rows,
)
from cryoplug.core.micrograph import ImageF32
from cryoplug.errors import InputError

if TYPE_CHECKING:
    from typing import Self

    from cryoplug.models.checkpoint import Checkpoint


@dataclass(frozen=True)
class Regrid:
    """What is done around the network."""

    angpix: float | None = None
    """Pixel size in angstrom that the network sees; None: the micrograph's own."""
    strength: float = 1.0
    """Part of the denoised image in the result, 0 to 1; the rest is the raw one."""
    merge_highres_angstrom: float | None = None
    """Raw Fourier terms beyond this resolution are put back, before `strength` counts; None: none."""
    angpix_range: tuple[float, float] | None = None
    """Pixel sizes in angstrom that the network knows, around `angpix`: a micrograph in it is seen as it is, a finer one is
    cropped to `angpix`, a coarser one padded to the upper end. None: every micrograph is brought to `angpix`."""

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint,
        *,
        angpix: float | None = None,
        strength: float = 1.0,
        merge_highres: float | None = None,
    ) -> Self:
        """Say what is done around the network of a checkpoint.

        Parameters
        ----------
        checkpoint
            Says by itself at which pixel sizes its network works, if it knows.
        angpix
            What the user wants instead: a pixel size in angstrom, or 0 for the micrograph's own; None: the checkpoint's.
        strength, merge_highres
            See the class.
        """
        if angpix is not None:
            return cls(angpix or None, strength, merge_highres)
        return cls(checkpoint.angpix, strength, merge_highres, checkpoint.angpix_range)

    def network_angstrom(self, pixel_size_angstrom: float) -> float:
        """Give the pixel size that the network sees of a micrograph with this one."""
        if self.angpix is None:
            return pixel_size_angstrom
        if self.angpix_range is None or pixel_size_angstrom < self.angpix_range[0]:
            return self.angpix
        return min(pixel_size_angstrom, self.angpix_range[1])

    @property
    def shown_angpix(self) -> str:
        """The pixel size that the network sees, for labels and records; ``none``: each micrograph's own."""
        if self.angpix is None:
            return "none"
        if self.angpix_range is None:
            return f"{self.angpix:.10g}"
        low, high = self.angpix_range
        return f"{self.angpix:.10g} ({low:.10g}-{high:.10g})"

    @property
    def does_nothing(self) -> bool:
        """Whether the network's own output is the result."""
        return self.angpix is None and not self.needs_raw

    @property
    def needs_raw(self) -> bool:
        """Whether the raw pixels are needed once more, after the network."""
        return self.strength != 1.0 or self.merge_highres_angstrom is not None

    @property
    def why_pixel_size(self) -> str:
        """Why the pixel size of a micrograph must be known; empty where it need not be."""
        if self.angpix is not None:
            return f"the network works at {self.angpix:g} angstrom"
        return (
            "" if self.merge_highres_angstrom is None else f"--merge-highres {self.merge_highres_angstrom:g} needs it"
        )

    def plan(self, shape: tuple[int, int], pixel_size_angstrom: float | None, *, path: Path) -> GridPlan:
        """Say which grid the network gets.

        Parameters
        ----------
        shape
            Of the micrograph, ``(y, x)``.
        pixel_size_angstrom
            Its sampling, if known.
        path
            Named in messages.

        Raises
        ------
        InputError
            The pixel size is needed and not known.
        """
        why = self.why_pixel_size
        if pixel_size_angstrom is None and why:
            raise InputError(
                f"{path}: its pixel size is not known, and {why}; give a STAR file that has it (rlnMicrographPixelSize or "
                "an optics table), write it into the header, or give --angpix 0 to take pixels as they are"
            )
        small = shape
        if self.angpix is not None and pixel_size_angstrom is not None:
            target = self.network_angstrom(pixel_size_angstrom)
            small = cropped_shape(shape, pixel_size_angstrom=pixel_size_angstrom, target_angstrom=target)
        return GridPlan(self, shape, small, pixel_size_angstrom)


@dataclass(frozen=True)
class GridPlan:
    """The two grids of one micrograph."""

    regrid: Regrid
    """What was asked for."""
    shape: tuple[int, int]
    """``(y, x)`` of the micrograph and of the result."""
    network_shape: tuple[int, int]
    """``(y, x)`` that the network sees."""
    pixel_size_angstrom: float | None
    """Of the micrograph."""

    @property
    def does_nothing(self) -> bool:
        """Whether the network's own output is the result."""
        return self.network_shape == self.shape and not self.regrid.needs_raw

    @property
    def remark(self) -> str:
        """What the user should know about this micrograph."""
        size = self.pixel_size_angstrom
        target = None if size is None else self.regrid.network_angstrom(size)
        if size is None or target is None or size <= target * (1 + SAME_PIXEL_SIZE):
            return ""
        return (
            f"pixel size {size:g} A, coarser than the {target:g} A that the network works at: it was padded to that, and the "
            "network sees no detail beyond the micrograph's own"
        )

    def finish(self, denoised: np.ndarray, raw: np.ndarray | None) -> Iterator[ImageF32]:
        """Bring the network's output to the micrograph's grid, in bands of rows from top to bottom.

        Parameters
        ----------
        denoised
            Grey values on `network_shape`.
        raw
            The micrograph; may be None unless ``regrid.needs_raw``.
        """
        merge = self.regrid.merge_highres_angstrom
        bands: Iterator[ImageF32] = resampled_rows(denoised, self.shape)
        if merge is not None:
            assert raw is not None and self.pixel_size_angstrom is not None
            whole = merge_high_resolution(
                np.concatenate(list(bands)),
                raw,
                pixel_size_angstrom=self.pixel_size_angstrom,
                resolution_angstrom=merge,
            )
            bands = iter((whole,))
        strength, row = np.float32(self.regrid.strength), 0
        for band in bands:
            if strength != 1.0:
                assert raw is not None
                raw_band: ImageF32 = raw[row : row + len(band)]
                band = strength * band + (np.float32(1.0) - strength) * raw_band
            row += len(band)
            yield band
