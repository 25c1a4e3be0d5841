"""Do two files show the same exposure, without a shared detector pattern? Shape, pixel size and correlation prove it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np

from cryoplug.core.correlation import (
    HIGH_BAND,
    Correlation,
    ImageSample,
    high_correlation,
    low_correlations,
    power_above_white,
    sample_image,
    without_blank_areas,
)
from cryoplug.core.micrograph import ArrayMicrograph, ImageF32, MicrographSource
from cryoplug.errors import PairingError, ShapeError
from cryoplug.formats.registry import open_movie

BEYOND_CHANCE = 5.0
"""Standard errors by which the correlation at low resolution must exceed 0; our real pairs have 9 or more."""
BEYOND_OTHERS = 3.0
"""Standard errors by which it must exceed the correlation with the exposure before, as all share the detector's pattern."""
FIXED_PATTERN = 0.05
"""Correlation near Nyquist from which cryoplug warns of a fixed pattern."""
FINE_PIXEL_ANGSTROM = 3.0
"""Largest pixel size for that warning: coarser pixels show particles up to Nyquist, so they may correlate there."""
MOST_SECTIONS = 16
"""Most sections of two stacks to compare, evenly spread: sixteen views can prove together what one cannot."""
WHITE = 5.0
"""Standard errors by which the power at low resolution may exceed that of white noise if the image shows nothing."""
SAME_IMAGE = 0.9
"""Correlation near Nyquist above which two files are the same image, whatever the detector."""
_PIXEL_SIZE_TOLERANCE = 0.01


class PairProof:
    """Checks the pairs of one run, one after another.

    Parameters
    ----------
    halves
        Whether the two are halves of an exposure, so that near Nyquist only noise is left.
    accept_unproven
        Whether to accept pairs without common signal, with a remark: thin ice without particles has none.
    """

    def __init__(self, *, halves: bool, accept_unproven: bool) -> None:
        self._halves = halves
        self._accept = accept_unproven
        self._before: tuple[Path, ImageSample] | None = None
        self._stacks: dict[tuple[Path, Path], str] = {}
        """For each pair of stacks, why they are accepted as a pair; empty if nothing shows it."""
        self._refused: set[tuple[Path, Path]] = set()
        """Pairs of stacks that were already refused with a full message."""

    def check_files(self, one: MicrographSource, two: MicrographSource, sizes: tuple[float | None, ...]) -> None:
        """Compare shapes and pixel sizes, from headers and STAR files.

        Parameters
        ----------
        one, two
            The opened files.
        sizes
            Pixel size of each in angstrom, where known.

        Raises
        ------
        PairingError, ShapeError
            They differ; for halves this is always a `PairingError`.
        """
        if one.shape != two.shape:
            error = PairingError if self._halves else ShapeError
            raise error(f"{one.path}: shape {one.shape} but {two.path} has {two.shape}; a pair needs one shape")
        if sizes[0] and sizes[1] and abs(sizes[0] - sizes[1]) > _PIXEL_SIZE_TOLERANCE * sizes[0]:
            raise PairingError(
                f"{one.path}: pixel size {sizes[0]:g} angstrom but {two.path} has {sizes[1]:g}; a pair needs the same"
            )

    def look_through(self, one: Path, two: Path) -> None:
        """Compare the sections of two stacks, once for each pair of stacks, to see whether they belong together.

        The views of a tilt series have little dose, and at high tilt little contrast. If some views prove that the stacks
        are a pair, alone or together, the other views are accepted, too. If both stacks are white noise and nothing else,
        pixels cannot decide, so their names do.
        """
        if (one, two) in self._stacks:
            return
        self._stacks[one, two] = ""
        with open_movie(one) as left, open_movie(two) as right:
            count = min(left.frame_count, right.frame_count)
            bands: list[tuple[Correlation, ...]] = []
            power: list[float] = []
            for index in sorted({round(i * (count - 1) / (MOST_SECTIONS - 1)) for i in range(MOST_SECTIONS)}):
                frames = (ArrayMicrograph(left.read_frame(index)), ArrayMicrograph(right.read_frame(index)))
                if not all(np.isfinite(frame.read_rows(0, frame.shape[0])).all() for frame in frames):
                    continue
                samples = without_blank_areas(*map(sample_image, frames))
                bands.append(low_correlations(*samples))
                power += [power_above_white(sample) for sample in samples]
                if max(band.significance for band in bands[-1]) >= BEYOND_CHANCE:
                    self._stacks[one, two] = f"section {index + 1} of these stacks is a pair"
                    return
        if not bands:
            return
        # Of n independent normal numbers the sum over root n is one again.
        together = max(
            sum(band.significance for band in each) / math.sqrt(len(each)) for each in zip(*bands, strict=True)
        )
        if together >= BEYOND_CHANCE:
            self._stacks[one, two] = f"{len(bands)} sections of these stacks are pairs, taken together"
        elif max(map(abs, power)) < WHITE and abs(sum(power)) < WHITE * math.sqrt(len(power)):
            self._stacks[one, two] = "both stacks are white noise without contrast; their names decide"

    def check_pixels(
        self,
        one: MicrographSource,
        two: MicrographSource,
        *,
        summed_here: bool = False,
        pixel_size_angstrom: float | None = None,
    ) -> list[str]:
        """Compare the pixels, in one pass over both files.

        Parameters
        ----------
        one, two
            Images of equal shape; all pixels must be finite.
        summed_here
            Whether cryoplug summed both from one movie; then they belong together, whatever the figures are.
        pixel_size_angstrom
            Pixel size of both; None if unknown.

        Returns
        -------
        list[str]
            Remarks for the user.

        Raises
        ------
        PairingError
            The two do not show the same exposure, or are copies of each other.
        """
        return self.check_samples(
            (one.path, two.path),
            (sample_image(one), sample_image(two)),
            summed_here=summed_here,
            pixel_size_angstrom=pixel_size_angstrom,
        )

    def check_samples(
        self,
        paths: tuple[Path, Path],
        sampled: tuple[ImageSample, ImageSample],
        *,
        summed_here: bool = False,
        pixel_size_angstrom: float | None = None,
    ) -> list[str]:
        """Compare the samples of two images; parameters and errors as for `check_pixels`."""
        one, two = paths
        first, second = without_blank_areas(*sampled)
        remarks = []
        if first is not sampled[0]:
            part = float((sampled[0].blank | sampled[1].blank).mean())
            remarks.append(f"{100 * part:.0f} % of the area is one value (a mask); the halves are compared in the rest")
        problem = self._unproven(first, second, two)
        mixed_up = self._half_of_another(paths, first, second) if problem and self._halves and not summed_here else ""
        accepted = self._stacks.get((one, two))
        self._before = two, dataclasses.replace(sampled[1], strips=())
        if mixed_up:
            raise PairingError(f"{one} and {two} do not belong together: {mixed_up}; correct the pairing")
        if problem and summed_here:
            remarks.append(f"even and odd frames share little: {problem}")
        elif problem and accepted:
            remarks.append(f"accepted because {accepted}")
        elif problem and self._accept:
            remarks.append(f"accepted without proof: {problem}")
        elif problem:
            if accepted is not None and (one, two) in self._refused:
                raise PairingError(f"{one} and {two} do not belong together; another section of theirs says why")
            self._refused.add((one, two))
            raise PairingError(
                f"{one} and {two} do not belong together: {problem}; correct the pairing, leave the two out, "
                "or give --accept-unproven if you know that they are a pair without contrast"
            )
        high = high_correlation(first, second) if self._halves else None
        if high is not None and high.value > SAME_IMAGE and not summed_here:
            raise PairingError(
                f"{one} and {two} are one image: {_near_nyquist(high)}, where halves share nothing; give the other half"
            )
        coarse = (pixel_size_angstrom or 0.0) > FINE_PIXEL_ANGSTROM
        if high is not None and not coarse and high.value > FIXED_PATTERN and high.significance > BEYOND_CHANCE:
            remarks.append(
                f"fixed pattern: {_near_nyquist(high)} (above {FIXED_PATTERN:g}); "
                "gain, dust or hot pixels that both halves share are learnt as signal"
            )
        return remarks

    def _half_of_another(self, paths: tuple[Path, Path], first: ImageSample, second: ImageSample) -> str:
        """Say that a half shares nothing with its partner, but much with the half of the exposure before; else empty."""
        if self._before is None or self._before[1].shape != first.shape or self._before[0] in paths:
            return ""
        own, other = (
            max(low_correlations(*samples), key=lambda band: band.significance)
            for samples in ((first, second), without_blank_areas(first, self._before[1]))
        )
        if not own.significance < BEYOND_CHANCE <= other.significance:
            return ""
        return (
            f"{paths[0]} shows what {self._before[0]} shows (correlation at low resolution {_correlation_text(other)}, and "
            f"{_correlation_text(own)} with its own)"
        )

    def _unproven(self, first: ImageSample, second: ImageSample, path: Path) -> str:
        bands = low_correlations(first, second)
        band, found = max(enumerate(bands), key=lambda item: item[1].significance)
        figures = f"correlation at low resolution {_correlation_text(found)}"
        if found.significance < BEYOND_CHANCE:
            return f"{figures}, {found.significance:.1f} standard errors above chance; needed {BEYOND_CHANCE:g}"
        if self._before is None or self._before[1].shape != first.shape or self._before[0] == path:
            return ""  # neighbouring views of a tilt series are alike
        other = low_correlations(*without_blank_areas(first, self._before[1]))[band]
        margin = (found.value - other.value) / math.hypot(found.error, other.error)
        if margin >= BEYOND_OTHERS:
            return ""
        return f"{figures}, but {_correlation_text(other)} with {self._before[0]}, which is another exposure"


def doubt_of_truth(image: ImageF32, truth: ImageF32) -> str:
    """Say why a truth may not belong to an image; empty if the two share their low frequencies.

    Parameters
    ----------
    image, truth
        ``(y, x)``, equal shape, finite.
    """
    found = _best_correlation(image, truth)
    if found.significance >= BEYOND_CHANCE:
        return ""
    if _best_correlation(image, truth[::-1]).significance >= BEYOND_CHANCE:
        return "the truth is upside down; turn it (the first row of a TIFF is the last one of an MRC)"
    return (
        f"the truth shares little with it (correlation at low resolution {_correlation_text(found)}); check that both show one "
        "exposure, the same way up, because else the figures mean nothing"
    )


def _best_correlation(one: ImageF32, two: ImageF32) -> Correlation:
    samples = (sample_image(ArrayMicrograph(np.ascontiguousarray(image))) for image in (one, two))
    return max(low_correlations(*samples), key=lambda band: band.significance)


def _near_nyquist(high: Correlation) -> str:
    return f"the halves correlate by {_correlation_text(high)} at {HIGH_BAND[0]:.2f} to {HIGH_BAND[1]:.2f} cycles per pixel"


def _correlation_text(found: Correlation) -> str:
    return f"{found.value:.3f} +- {found.error:.3f}"
