"""Denoise at another pixel size than the micrograph's: crop, denoise, pad back, and mix in raw pixels if asked."""

from __future__ import annotations

import math
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
from cryoplug.core.fourier_filter import filtered_image
from cryoplug.core.micrograph import ImageF32
from cryoplug.core.pixel_size import unknown_pixel_size
from cryoplug.core.remarks import joined
from cryoplug.errors import InputError
from cryoplug.inference.resampling import resample_on_host

if TYPE_CHECKING:
    from typing import Self

    from cryoplug.models.checkpoint import Checkpoint

TRIED_FINER, TRIED_COARSER = 5.0, 1.2
"""A network that knows a range of pixel sizes was tried on micrographs so much finer and coarser, by cropping and padding: the
general model from 0.4 to 6 angstrom. Beyond, the pixel size is more often wrong than the micrograph unusual."""
MOST_PADDING = 4.0
"""Largest ratio of the micrograph's pixel size to the network's: a misplaced point must not pad an image a hundredfold."""


@dataclass(frozen=True)
class Regrid:
    """The processing before and after the network."""

    angpix: float | None = None
    """Pixel size in angstrom that the network sees; None for the micrograph's own."""
    strength: float = 1.0
    """Part of the denoised image in the result, 0 to 1; the rest is the raw image."""
    merge_highres_angstrom: float | None = None
    """Fourier terms finer than this resolution are taken from the raw image, before `strength`; None takes none."""
    angpix_range: tuple[float, float] | None = None
    """Smallest and largest pixel size in angstrom that the network knows. A micrograph in this range is not resampled, a
    finer one is cropped to `angpix`, a coarser one padded to the upper end. None resamples every micrograph to `angpix`."""
    highpass_angstrom: float | None = None
    """Remove everything larger than this from the result, except for the mean; None removes nothing."""
    lowpass_angstrom: float | None = None
    """Remove everything finer than this from the result; None removes nothing."""
    output_angstrom: float | None = None
    """Pixel size of the grid to which the result is cropped; None for the micrograph's own."""

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint,
        *,
        angpix: float | None = None,
        **others: float | None,
    ) -> Self:
        """Give the processing before and after the network of a checkpoint.

        Parameters
        ----------
        checkpoint
            The checkpoint, which may know the pixel sizes of its network.
        angpix
            Pixel size in angstrom that the user wants instead; 0 for the micrograph's own; None for the checkpoint's.
        others
            Other fields of the class.
        """
        if angpix is not None:
            return cls(angpix or None, **others)  # type: ignore[arg-type]
        return cls(checkpoint.angpix, angpix_range=checkpoint.angpix_range, **others)  # type: ignore[arg-type]

    def network_angstrom(self, pixel_size_angstrom: float) -> float:
        """Give the pixel size that the network sees, for a micrograph with this pixel size."""
        if self.angpix is None:
            return pixel_size_angstrom
        if self.angpix_range is None or pixel_size_angstrom < self.angpix_range[0]:
            return self.angpix
        return min(pixel_size_angstrom, self.angpix_range[1])

    @property
    def shown_angpix(self) -> str:
        """The pixel size that the network sees, for labels and records; ``none`` for each micrograph's own."""
        if self.angpix is None:
            return "none"
        if self.angpix_range is None:
            return f"{self.angpix:.10g}"
        low, high = self.angpix_range
        return f"{self.angpix:.10g} ({low:.10g}-{high:.10g})"

    @property
    def does_nothing(self) -> bool:
        """Whether the network's own output is the result."""
        return self.angpix is None and not self.needs_raw and not self.filters and self.output_angstrom is None

    @property
    def filters(self) -> bool:
        """Whether the result is filtered."""
        return self.highpass_angstrom is not None or self.lowpass_angstrom is not None

    @property
    def needs_raw(self) -> bool:
        """Whether the raw pixels are needed again after the network."""
        return self.strength != 1.0 or self.merge_highres_angstrom is not None

    @property
    def why_pixel_size(self) -> str:
        """Why the pixel size of a micrograph must be known; empty if it need not be."""
        if self.angpix is not None:
            return f"the network works at {self.angpix:g} angstrom"
        for flag, value in (
            ("--merge-highres", self.merge_highres_angstrom),
            ("--highpass", self.highpass_angstrom),
            ("--lowpass", self.lowpass_angstrom),
            ("--output-angpix", self.output_angstrom),
        ):
            if value is not None:
                return f"{flag} {value:g} needs it"
        return ""

    @property
    def _without_pixel_size(self) -> str:
        return "give --angpix 0 to take pixels as they are" if self.angpix is not None else "leave that option out"

    def plan(self, shape: tuple[int, int], pixel_size_angstrom: float | None, *, path: Path) -> GridPlan:
        """Decide on the grid for the network.

        Parameters
        ----------
        shape
            Shape of the micrograph, ``(y, x)``.
        pixel_size_angstrom
            Its pixel size, if known.
        path
            The file, for messages.

        Raises
        ------
        InputError
            The pixel size is needed and not known, or so coarse that it cannot be right.
        """
        why = self.why_pixel_size
        if pixel_size_angstrom is None and why:
            raise unknown_pixel_size(path, why, self._without_pixel_size)
        small = shape
        if self.angpix is not None and pixel_size_angstrom is not None:
            target = self.network_angstrom(pixel_size_angstrom)
            if self.angpix_range is not None and pixel_size_angstrom > MOST_PADDING * target:
                raise InputError(
                    f"{path}: pixel size {pixel_size_angstrom:g} A, more than {MOST_PADDING:g} times the {target:g} A that the "
                    "network works at; state the right one with --pixel-size, or give --angpix 0 to take pixels as they are"
                )
            small = cropped_shape(shape, pixel_size_angstrom=pixel_size_angstrom, target_angstrom=target)
        written = shape
        wanted = self.output_angstrom
        if wanted is not None and pixel_size_angstrom is not None and pixel_size_angstrom < wanted:
            written = cropped_shape(shape, pixel_size_angstrom=pixel_size_angstrom, target_angstrom=wanted)
        return GridPlan(self, shape, small, pixel_size_angstrom, written)


@dataclass(frozen=True)
class GridPlan:
    """The grids of one micrograph."""

    regrid: Regrid
    """The settings."""
    shape: tuple[int, int]
    """``(y, x)`` of the micrograph."""
    network_shape: tuple[int, int]
    """``(y, x)`` that the network sees."""
    pixel_size_angstrom: float | None
    """Pixel size of the micrograph; None if unknown."""
    written_shape: tuple[int, int]
    """``(y, x)`` of the result."""

    @property
    def does_nothing(self) -> bool:
        """Whether the network's own output is the result."""
        same = self.network_shape == self.shape == self.written_shape
        return same and not self.regrid.needs_raw and not self.regrid.filters

    @property
    def written_angstrom(self) -> float | None:
        """Pixel size of the result: that of the micrograph times the ratio of the sides (whole numbers of pixels)."""
        if self.pixel_size_angstrom is None or self.written_shape == self.shape:
            return self.pixel_size_angstrom
        return self.pixel_size_angstrom * math.sqrt(math.prod(self.shape) / math.prod(self.written_shape))

    @property
    def remark(self) -> str:
        """The remark for the user; empty without one."""
        return joined((self._remark_on_input(), self._remark_on_range(), self._remark_on_output()))

    def _remark_on_output(self) -> str:
        size, wanted = self.pixel_size_angstrom, self.regrid.output_angstrom
        if size is None or wanted is None or size <= wanted * (1 + SAME_PIXEL_SIZE):
            return ""
        return f"pixel size {size:g} A, coarser than --output-angpix {wanted:g}: written on its own grid"

    def _remark_on_input(self) -> str:
        size = self.pixel_size_angstrom
        target = None if size is None else self.regrid.network_angstrom(size)
        if size is None or target is None or size <= target * (1 + SAME_PIXEL_SIZE):
            return ""
        return (
            f"pixel size {size:g} A, coarser than the {target:g} A that the network works at: cryoplug padded it to that, "
            "which adds no detail"
        )

    def _remark_on_range(self) -> str:
        size, known = self.pixel_size_angstrom, self.regrid.angpix_range
        if size is None or known is None:
            return ""
        low, high = known[0] / TRIED_FINER, known[1] * TRIED_COARSER
        if low / (1 + SAME_PIXEL_SIZE) <= size <= high * (1 + SAME_PIXEL_SIZE):
            return ""
        return (
            f"pixel size {size:g} A: the network was tried from {low:g} to {high:g} A; check that this number is right"
        )

    def as_it_is(self, raw: np.ndarray) -> ImageF32:
        """Bring an image that cannot be denoised to the grid of the result, by nearest pixels, because some may not be finite."""
        y, x = (
            np.minimum((np.arange(new) + 0.5) * old / new, old - 1).astype(int)
            for old, new in zip(self.shape, self.written_shape, strict=True)
        )
        return np.asarray(raw[y][:, x], np.float32)

    def finish(self, denoised: np.ndarray, raw: np.ndarray | None) -> Iterator[ImageF32]:
        """Bring the network's output to the grid of the result, in bands of rows from top to bottom.

        Raw pixels are mixed in on the micrograph's grid; then the image is cropped, and filtered last.

        Parameters
        ----------
        denoised
            Grey values on `network_shape`.
        raw
            The micrograph; may be None unless ``regrid.needs_raw``.
        """
        if not self.regrid.needs_raw:
            yield from self._filtered(resampled_rows(denoised, self.written_shape, resample=resample_on_host))
            return
        mixed = self._mixed(denoised, raw)
        if self.written_shape != self.shape:
            mixed = resampled_rows(np.concatenate(list(mixed)), self.written_shape, resample=resample_on_host)
        yield from self._filtered(mixed)

    def _filtered(self, bands: Iterator[ImageF32]) -> Iterator[ImageF32]:
        if not self.regrid.filters:
            yield from bands
            return
        assert self.written_angstrom is not None
        yield filtered_image(
            np.concatenate(list(bands)),
            pixel_size_angstrom=self.written_angstrom,
            highpass=self.regrid.highpass_angstrom,
            lowpass_angstrom=self.regrid.lowpass_angstrom,
        )

    def _mixed(self, denoised: np.ndarray, raw: np.ndarray | None) -> Iterator[ImageF32]:
        merge = self.regrid.merge_highres_angstrom
        bands = resampled_rows(denoised, self.shape, resample=resample_on_host)
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
