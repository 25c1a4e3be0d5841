"""Read one micrograph's files, denoise what is to be denoised, and measure."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryoplug.core.micrograph import ImageF32
from cryoplug.core.pixel_size import PixelSize, pixel_size_of_exposure
from cryoplug.errors import PixelError, ShapeError
from cryoplug.formats.registry import open_micrograph
from cryoplug.inference.in_memory import in_memory
from cryoplug.inputs.discovered import DiscoveredMicrograph
from cryoplug.inputs.pair_proof import PairProof
from cryoplug.metrics.baselines import gaussian_blur
from cryoplug.metrics.evaluation import (
    Agreement,
    HalvesReport,
    TruthReport,
    check_agreement,
    choose_directions,
    score_against_truth,
    score_halves,
    score_noise,
)
from cryoplug.metrics.hallucination import Hallucination
from cryoplug.metrics.seams import seam_ratio
from cryoplug.workflows.evaluate.inputs import Subject
from cryoplug.workflows.evaluate.request import EvaluateRequest

if TYPE_CHECKING:
    from cryoplug.inference.denoiser import Denoiser

NO_PIXEL_SIZE = PixelSize(None)
LEAST_SIDE_PX = 32
"""Rings and fits say nothing about smaller images."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What was found about one micrograph."""

    name: Path
    """What it is called."""
    shape: tuple[int, int]
    """``(y, x)``."""
    pixel_size_angstrom: float | None
    """Sampling; None when unknown."""
    halves: HalvesReport | None
    """Judged by halves; None without them."""
    truth: TruthReport | None
    """Judged by the truth; None without one."""
    agreement: Agreement | None
    """With truth and halves: both errors."""
    hallucination: dict[str, Hallucination] | None
    """Of the denoiser and of the best Gaussian; None for files that were denoised elsewhere."""
    seam: float | None
    """See `cryoplug.metrics.seams`; None where there are no tile borders, or they are unknown."""
    remarks: tuple[str, ...] = ()
    """What the user should know."""
    pixel_size: PixelSize = NO_PIXEL_SIZE
    """Who says the pixel size, and who says something else."""
    panels: dict[str, np.ndarray] = field(default_factory=dict)
    """Images to show, by caption."""

    def record(self) -> dict[str, Any]:
        """Give what ``--json`` shows: no curves, no images."""
        halves, truth = self.halves, self.truth
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
            "agreement": self.agreement and {**vars(self.agreement), "deviation": self.agreement.deviation},
            "hallucination": self.hallucination,
            "seam": self.seam,
            "remarks": self.remarks,
        }


class Measurer:
    """Measures one micrograph after another.

    Parameters
    ----------
    request
        What was asked for.
    denoiser
        The checkpoint to apply; None for files that were denoised elsewhere.
    """

    def __init__(self, request: EvaluateRequest, denoiser: Denoiser | None) -> None:
        self._request = request
        self._denoiser = denoiser
        self._proof = PairProof(halves=True, accept_unproven=request.accept_unproven)

    def measure(self, subject: Subject) -> Measured:
        """Read, denoise and measure.

        Raises
        ------
        InputError
            A file cannot be read or used, shapes differ, or the halves do not belong together.
        """
        if subject.problem is not None:
            raise subject.problem
        images = _Images(subject, self._request.pixel_size)
        remarks = [*subject.remarks]
        if images.even is not None:
            remarks += self._prove(subject)
        halves, halves_made = self._judge_halves(images)
        truth, made = self._judge_truth(images)
        clean, raw = images.clean, images.halves
        agreement = None
        if halves is not None and clean is not None and raw is not None:
            agreement = check_agreement(raw, halves_made, clean, halves)
        shown = made if made is not None else halves_made[0] if halves_made[0] is not None else halves_made[1]
        assert shown is not None
        source = images.noisy if made is not None else images.even if halves_made[0] is not None else images.odd
        panels: dict[str, np.ndarray] = {}
        if source is not None:
            sigma = truth.gaussian_sigma_px if truth else halves.gaussian_sigma_px if halves else 0.0
            panels = {"raw": source, "denoised": shown, f"Gaussian, {sigma:.1f} px": gaussian_blur(source, sigma)}
        if clean is not None:
            panels["truth"] = clean
        seen = None
        if self._denoiser is not None:
            seen, panels["denoised noise"] = self._hallucinate(images, shown)
        return Measured(
            name=subject.name,
            shape=images.shape,
            pixel_size_angstrom=images.pixel_size_angstrom,
            halves=halves,
            truth=truth,
            agreement=agreement,
            hallucination=seen,
            seam=self._seam(shown, images.pixel_size_angstrom),
            remarks=tuple(remarks),
            pixel_size=images.pixel_size,
            panels=panels,
        )

    def _prove(self, subject: Subject) -> list[str]:
        assert subject.even is not None and subject.odd is not None
        with _open(subject.even) as even, _open(subject.odd) as odd:
            headers = even.pixel_size_angstrom, odd.pixel_size_angstrom
            listed = subject.even.pixel_size_angstrom, subject.odd.pixel_size_angstrom
            known, sizes = pixel_size_of_exposure(self._request.pixel_size, listed, headers)
            self._proof.check_files(even, odd, sizes)
            if subject.even.section is not None and subject.odd.section is not None:
                self._proof.look_through(subject.even.path, subject.odd.path)
            return self._proof.check_pixels(even, odd, pixel_size_angstrom=known.angstrom)

    def _judge_halves(self, images: _Images) -> tuple[HalvesReport | None, tuple[Any, Any]]:
        raw = images.halves
        if raw is None:
            return None, (None, None)
        made: tuple[Any, Any]
        if self._denoiser is not None:
            made = self._denoise(raw[0], images), self._denoise(raw[1], images)
        else:
            made = images.denoised_even, images.denoised_odd
            if made[0] is None:
                return None, (None, None)
        for image in made:
            _check_output(image, images.shape)
        directions = choose_directions(*raw, wanted=self._request.direction, has_odd=made[1] is not None)
        return score_halves(raw, made, directions), made

    def _judge_truth(self, images: _Images) -> tuple[TruthReport | None, ImageF32 | None]:
        if images.clean is None:
            return None, None
        noisy = images.noisy
        if self._denoiser is None:
            made = images.denoised
            if made is None or noisy is None:
                return None, None
        else:
            if noisy is None:
                assert images.halves is not None
                noisy = images.halves[0] + images.halves[1]
                images.noisy = noisy
            made = self._denoise(noisy, images)
        _check_output(made, images.shape)
        return score_against_truth(noisy, images.clean, made), made

    def _hallucinate(self, images: _Images, shown: ImageF32) -> tuple[dict[str, Hallucination], np.ndarray]:
        by_truth = images.noisy is not None and images.clean is not None
        if by_truth:
            raw, other = images.noisy, images.clean
        else:
            assert images.halves is not None
            raw, other = images.halves
        assert raw is not None and other is not None
        return score_noise(raw, other, shown, lambda image: self._denoise(image, images), other_is_truth=by_truth)

    def _denoise(self, image: np.ndarray, images: _Images) -> ImageF32:
        assert self._denoiser is not None and images.first is not None
        found = in_memory(self._denoiser, image, pixel_size_angstrom=images.pixel_size_angstrom, path=images.first)
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


class _Images:
    """The pixels of one micrograph's files, all of one shape and finite."""

    def __init__(self, subject: Subject, stated_angstrom: float | None) -> None:
        self.shape: tuple[int, int] = (0, 0)
        self._listed: list[float | None] = []
        self._headers: list[float | None] = []
        self.first: Path | None = None
        self.noisy = self._read(subject.noisy)
        self.even = self._read(subject.even)
        self.odd = self._read(subject.odd)
        self.clean = self._read(subject.clean)
        self.denoised = self._read(subject.denoised, may_be_constant=True)
        self.denoised_even = self._read(subject.denoised_even, may_be_constant=True)
        self.denoised_odd = self._read(subject.denoised_odd, may_be_constant=True)
        self.pixel_size = pixel_size_of_exposure(stated_angstrom, self._listed, self._headers)[0]
        self.pixel_size_angstrom = self.pixel_size.angstrom

    @property
    def halves(self) -> tuple[ImageF32, ImageF32] | None:
        """Even and odd."""
        return None if self.even is None or self.odd is None else (self.even, self.odd)

    def _read(self, item: DiscoveredMicrograph | None, *, may_be_constant: bool = False) -> ImageF32 | None:
        if item is None:
            return None
        with _open(item) as source:
            if self.first is None:
                self.first, self.shape = item.path, source.shape
                if min(source.shape) < LEAST_SIDE_PX:
                    raise ShapeError(f"{item.path}: shape {source.shape}; at least {LEAST_SIDE_PX} pixels a side count")
            if source.shape != self.shape:
                raise ShapeError(
                    f"{item.path}: shape {source.shape} but {self.first} has {self.shape}; both must be equal"
                )
            self._listed.append(item.pixel_size_angstrom)
            self._headers.append(source.pixel_size_angstrom)
            pixels = source.read_rows(0, source.shape[0])
        bad = int(np.count_nonzero(~np.isfinite(pixels)))
        if bad:
            raise PixelError(f"{item.path}: {bad} of {pixels.size} pixels are NaN or infinite; repair or re-export it")
        if not may_be_constant and float(pixels.min()) == float(pixels.max()):
            raise PixelError(f"{item.path}: all pixels are {pixels.flat[0]:g}; leave it out or re-export it")
        return pixels


def _open(item: DiscoveredMicrograph) -> Any:
    return open_micrograph(item.path) if item.section is None else open_micrograph(item.path, section=item.section)


def _check_output(image: ImageF32 | None, shape: tuple[int, int]) -> None:
    if image is not None and not np.isfinite(image).all():
        raise PixelError(f"the denoiser gave NaN or infinite pixels on an image of shape {shape}; look at its weights")
