"""Read the files of one micrograph, denoise if needed, and measure."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryoplug.core.micrograph import ImageF32
from cryoplug.core.pixel_size import PixelSize
from cryoplug.errors import PixelError
from cryoplug.formats.mrc_claims import DENOISED_ALREADY
from cryoplug.inference.in_memory import in_memory
from cryoplug.inputs.discovered import DiscoveredMicrograph
from cryoplug.inputs.pair_proof import PairProof, doubt_of_truth
from cryoplug.metrics.baselines import gaussian_blur
from cryoplug.metrics.judging import Images, Judgement, judge
from cryoplug.metrics.seams import seam_ratio
from cryoplug.workflows.evaluate.headers import Headers, open_halves
from cryoplug.workflows.evaluate.inputs import Subject
from cryoplug.workflows.evaluate.request import EvaluateRequest

if TYPE_CHECKING:
    from cryoplug.inference.denoiser import Denoiser

NO_PIXEL_SIZE = PixelSize(None)
DENOISED_INPUT = (
    "it is a denoised micrograph already, by its label; to judge it, give it with --denoised, and the raw one as INPUT"
)
"""Remark on an INPUT or a half that `denoise` has written."""
MOST_THREADS = 4
"""Most threads that measure one micrograph; each holds several copies of it, 0.6 GB at 4096 x 4096."""


@dataclass(frozen=True, eq=False)
class MeasuredMicrograph:
    """The measurements of one micrograph."""

    name: Path
    """Name of the micrograph in records."""
    shape: tuple[int, int]
    """Shape ``(y, x)`` in pixels."""
    pixel_size_angstrom: float | None
    """Pixel size in angstrom; None when unknown."""
    found: Judgement
    """The measures, by method."""
    seam: float | None
    """Measure of tile borders, see `cryoplug.metrics.seams`; None if there are no borders or they are unknown."""
    remarks: tuple[str, ...] = ()
    """Remarks for the user."""
    pixel_size: PixelSize = NO_PIXEL_SIZE
    """The pixel size, its source, and sources that differ."""
    panels: dict[str, np.ndarray] = field(default_factory=dict)
    """Images to show, by caption."""

    def record(self) -> dict[str, Any]:
        """Give the record that ``--json`` prints, without curves and images."""
        agreement = self.found.agreement
        halves, truth = self.found.halves, self.found.truth
        return {
            "micrograph": self.name,
            "shape": self.shape,
            "pixel_size_angstrom": self.pixel_size_angstrom,
            "truth": None if truth is None else {"gaussian_sigma_px": truth.gaussian_sigma_px, **truth.scores},
            "halves": None
            if halves is None
            else {
                "directions": halves.directions,
                "signal": halves.signal,
                "raw_correlation": halves.raw_correlation,
                "noise_ratio": halves.noise_ratio,
                "gaussian_sigma_px": halves.gaussian_sigma_px,
                **halves.scores,
            },
            "agreement": agreement and {**vars(agreement), "deviation": agreement.deviation},
            "hallucination": self.found.hallucination,
            "seam": self.seam,
            "remarks": self.remarks,
        }


class Measurer:
    """Measures one micrograph after another.

    Parameters
    ----------
    request
        The request.
    denoiser
        The checkpoint to apply; None for files that another program denoised.
    """

    def __init__(self, request: EvaluateRequest, denoiser: Denoiser | None) -> None:
        self._request = request
        self._denoiser = denoiser
        self._proof = PairProof(halves=True, accept_unproven=request.accept_unproven)
        self._threads = min(MOST_THREADS, request.settings.threads or len(os.sched_getaffinity(0)))

    def measure(self, subject: Subject) -> MeasuredMicrograph:
        """Read, denoise and measure.

        Raises
        ------
        InputError
            A file cannot be read or used, shapes differ, or the halves do not belong together.
        """
        if subject.problem is not None:
            raise subject.problem
        files = _Files(subject, self._request.pixel_size)
        images = files.images
        remarks = [*subject.remarks, *([DENOISED_INPUT] if files.denoised_already else [])]
        if images.even is not None:
            remarks += self._prove(subject)
        raw = images.even if images.noisy is None else images.noisy
        if raw is not None and images.clean is not None and (doubt := doubt_of_truth(raw, images.clean)):
            remarks.append(doubt)
        denoise = None
        if self._denoiser is not None:
            denoise = functools.partial(self._denoise, files=files)
            if images.noisy is None and images.clean is not None and images.even is not None:
                images.noisy = images.even + images.odd
            applied = functools.partial(self._denoise, files=files, remarks=remarks)
            images.denoised_even = None if images.even is None else applied(images.even)
            images.denoised_odd = None if images.odd is None else applied(images.odd)
            images.denoised = None if images.clean is None or images.noisy is None else applied(images.noisy)
        if images.clean is None:
            images.denoised = None  # nothing to judge it by
        for image in (images.denoised_even, images.denoised_odd, images.denoised):
            _check_output(image, files.shape)
        found = judge(images, direction=self._request.direction, denoise=denoise, threads=self._threads)
        made = images.made
        assert made is not None
        return MeasuredMicrograph(
            name=subject.name,
            shape=files.shape,
            pixel_size_angstrom=files.pixel_size_angstrom,
            found=found,
            seam=self._seam(made, files.pixel_size_angstrom),
            remarks=tuple(dict.fromkeys(remarks)),
            pixel_size=files.pixel_size,
            panels=_panels(images, found),
        )

    def _prove(self, subject: Subject) -> list[str]:
        assert subject.even is not None and subject.odd is not None
        with open_halves(subject, self._proof, self._request.pixel_size) as (even, odd, known):
            if subject.even.section is not None and subject.odd.section is not None:
                self._proof.look_through(subject.even.path, subject.odd.path)
            return self._proof.check_pixels(even, odd, pixel_size_angstrom=known.angstrom)

    def _denoise(self, image: np.ndarray, files: _Files, *, remarks: list[str] | None = None) -> ImageF32:
        """Denoise one image of a micrograph; remarks on it are added to `remarks`, if that is given."""
        assert self._denoiser is not None and files.first is not None
        found = in_memory(self._denoiser, image, pixel_size_angstrom=files.pixel_size_angstrom, path=files.first)
        if remarks is not None:
            remarks += found.remarks
        return found.pixels

    def _seam(self, image: ImageF32, pixel_size_angstrom: float | None) -> float | None:
        borders = None
        if self._denoiser is not None:
            borders = self._denoiser.tile_borders(image.shape, pixel_size_angstrom=pixel_size_angstrom)
        elif self._request.tile:
            borders = (
                tuple(range(0, image.shape[0], self._request.tile)),
                tuple(range(0, image.shape[1], self._request.tile)),
            )
        if borders is None:
            return None
        ratio = seam_ratio(image, *borders)
        return None if np.isnan(ratio) else ratio


def _panels(images: Images, found: Judgement) -> dict[str, np.ndarray]:
    """Give the images to show, by caption."""
    panels: dict[str, np.ndarray] = {}
    if images.source is not None and images.made is not None:
        by = found.truth or found.halves
        sigma = by.gaussian_sigma_px if by else 0.0
        panels = {
            "raw": images.source,
            "denoised": images.made,
            f"Gaussian, {sigma:.1f} px": gaussian_blur(images.source, sigma),
        }
    if images.clean is not None:
        panels["truth"] = images.clean
    if found.denoised_noise is not None:
        panels["denoised noise"] = found.denoised_noise
    return panels


class _Files:
    """The pixels of one micrograph's files, all of one shape and finite."""

    def __init__(self, subject: Subject, stated_angstrom: float | None) -> None:
        self._headers = Headers(stated_angstrom)
        self.denoised_already = False
        """Whether a raw file is none, by its label."""
        self.images = Images(
            noisy=self._read(subject.noisy, is_raw=True),
            even=self._read(subject.even, is_raw=True),
            odd=self._read(subject.odd, is_raw=True),
            clean=self._read(subject.clean),
            denoised=self._read(subject.denoised, may_be_constant=True),
            denoised_even=self._read(subject.denoised_even, may_be_constant=True),
            denoised_odd=self._read(subject.denoised_odd, may_be_constant=True),
        )
        self.first, self.shape = self._headers.first, self._headers.shape
        noisy, clean = self.images.noisy, self.images.clean
        if noisy is not None and clean is not None and np.array_equal(noisy, clean):
            raise PixelError(
                f"{self.first}: has the same pixels as its truth; give the image without noise with --clean"
            )
        self.pixel_size = self._headers.pixel_size
        self.pixel_size_angstrom = self.pixel_size.angstrom

    def _read(
        self, item: DiscoveredMicrograph | None, *, may_be_constant: bool = False, is_raw: bool = False
    ) -> ImageF32 | None:
        if item is None:
            return None
        with self._headers.opened(item) as source:
            self.denoised_already |= is_raw and DENOISED_ALREADY in source.warnings
            pixels = source.read_rows(0, source.shape[0])
        bad = int(np.count_nonzero(~np.isfinite(pixels)))
        if bad:
            raise PixelError(f"{item.path}: {bad} of {pixels.size} pixels are NaN or infinite; repair or re-export it")
        if not may_be_constant and float(pixels.min()) == float(pixels.max()):
            raise PixelError(f"{item.path}: all pixels are {pixels.flat[0]:g}; leave it out or re-export it")
        return pixels


def _check_output(image: ImageF32 | None, shape: tuple[int, int]) -> None:
    if image is not None and not np.isfinite(image).all():
        raise PixelError(f"the denoiser gave NaN or infinite pixels on an image of shape {shape}; look at its weights")
