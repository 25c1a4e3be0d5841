"""The even and the odd half of a movie: frames summed with gain, defects repaired, motion undone.

Frames are counted from 1: frames 1, 3, 5 ... make the odd half, 2, 4, 6 ... the even one. (RELION's ``_EVN`` holds
frames 1, 3, 5 ..., because it counts from 0; which half is which makes no difference to training.)

Memory, however many frames: that of ten frames in float32 at most, with gain and motion; for 5760 x 4092 about 0.9 GB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryoplug.core.frame_sums import ShiftedSum
from cryoplug.core.gain import DefectRepair, Gain, centre_window, gain_complaint
from cryoplug.core.micrograph import ArrayMicrograph, ImageF32
from cryoplug.errors import FormatError, InputError, PairingError
from cryoplug.formats import registry
from cryoplug.formats.opening import read_errors
from cryoplug.workflows.motion import Motion, motion_beside, read_motion
from cryoplug.workflows.movie_gain import MovieFormat, RunGain
from cryoplug.workflows.pairing import PairedInput

if TYPE_CHECKING:
    from cryoplug.core.micrograph import MovieSource

Shift = tuple[float, float]
ODD, EVEN = 0, 1


@dataclass(frozen=True)
class MovieInput(PairedInput):
    """A movie whose frames become both halves; ``clean`` stays None."""

    motion_star: Path | None = None
    """STAR file of its motion, where the list of micrographs names it; else one beside the movie is used."""

    @property
    def motion_path(self) -> Path | None:
        """The STAR file of its motion, if there is one."""
        return self.motion_star or motion_beside(self.noisy.path)


@dataclass(frozen=True)
class Halves:
    """Both halves of a movie in memory."""

    even: ArrayMicrograph
    """Sum of the frames 2, 4, 6 ..."""
    odd: ArrayMicrograph
    """Sum of the frames 1, 3, 5 ..."""


class MovieSummer:
    """Sums the movies of one run, one at a time.

    Parameters
    ----------
    gain
        Gain and defects of the run.
    pool
        Does the Fourier transforms.
    check
        Called between frames; raises to stop.
    """

    def __init__(self, gain: RunGain, pool: Executor, check: Callable[[], None] = lambda: None) -> None:
        self._gain = gain
        self._pool = pool
        self._check = check
        self._said: set[str] = set()

    def halves(self, item: MovieInput) -> Halves:
        """Sum the even and the odd frames of a movie.

        Raises
        ------
        InputError, StorageError
            It cannot be read, has one frame, or gain, defects or motion do not fit it.
        PairingError
            The gain reference is turned, mirrored, inverted, or applied before: see `gain_complaint`.
        """
        path = item.noisy.path
        with registry.open_movie(path) as movie, read_errors(path):
            if movie.frame_count < 2:
                raise InputError(f"{path}: one frame; the halves of a movie need two or more; leave it out")
            layout = MovieFormat(path, movie.frame_shape)
            motion = _read_motion(item, movie, layout)
            gain, repair = self._gain.fit(layout, motion)
            plan = _plan(movie, motion, layout)
            even, odd = self._sum(movie, layout, plan, gain, repair)
            remarks = [*movie.warnings, *self._remarks(motion, plan, movie.frame_count)]
            size = _pixel_size(motion, layout) or item.noisy.pixel_size_angstrom or movie.pixel_size_angstrom
        halves = Halves(*(ArrayMicrograph(image, path, pixel_size_angstrom=size) for image in (even, odd)))
        halves.even.warnings = tuple(remarks)
        return halves

    def _sum(
        self,
        movie: MovieSource,
        layout: MovieFormat,
        plan: list[tuple[int, Shift | None]],
        gain: Gain,
        repair: DefectRepair | None,
    ) -> tuple[ImageF32, ImageF32]:
        window = centre_window(movie.frame_shape)
        raw = np.zeros(np.empty(movie.frame_shape, bool)[window].shape, np.float32)
        shifted: list[ShiftedSum] = []
        parts: list[ImageF32 | None] = [None, None]
        for shift, frames in groupby(plan, key=lambda item: item[1]):
            for index, _ in frames:
                self._check()
                frame = movie.read_frame(index)
                raw += frame[window]
                part = parts[index % 2]
                if part is None:
                    parts[index % 2] = frame
                else:
                    part += frame
                del frame
            for part in parts:
                if part is not None:
                    gain.apply(part)
                    if repair is not None:
                        repair.apply(part)
            if shift is not None:
                shifted = shifted or [ShiftedSum(movie.frame_shape, self._pool) for _ in parts]
                for side in (ODD, EVEN):
                    part, parts[side] = parts[side], None
                    if part is not None:
                        shifted[side].add(part, shift)
        self._refuse_wrong_gain(layout, raw, gain)
        sums = [item.result() for item in shifted] or parts
        odd, even = sums
        if odd is None or even is None:
            raise InputError(f"{movie.path}: no frame is left for one of the halves; check its motion STAR file")
        return even, odd

    def _refuse_wrong_gain(self, layout: MovieFormat, raw: ImageF32, gain: Gain) -> None:
        if gain.factor is None:
            return
        window = centre_window(layout.shape)
        part = Gain(gain.factor[window], None if gain.defects is None else gain.defects[window])
        complaint = gain_complaint(
            raw,
            part,
            may_transpose=layout.shape[0] == layout.shape[1],
            stored_upside_down=self._gain.is_stored_upside_down(layout),
            is_eer=layout.is_eer,
        )
        if complaint:
            raise PairingError(f"{self._gain.gain_path}: the gain reference and {layout.path}: {complaint}")

    def _remarks(self, motion: Motion | None, plan: list[tuple[int, Shift | None]], count: int) -> Iterator[str]:
        if self._gain.gain_path is None:
            named = f" (RELION used {motion.gain_name})" if motion is not None and motion.gain_name else ""
            yield from self._once(
                "no --gain: what the detector adds to every frame, its stripes, is equal in both halves and is learnt as "
                f"signal, unless the frames are corrected already{named}"
            )
        if motion is None:
            yield from self._once("no motion STAR file: frames are summed as they are, without undoing drift")
        elif motion.has_local_model:
            yield from self._once("frames are shifted as a whole; the local motion model is not applied")
        if len(plan) < count:
            yield f"{count - len(plan)} of {count} frames are not in the motion STAR file and are left out"

    def _once(self, text: str) -> Iterator[str]:
        if text not in self._said:
            self._said.add(text)
            yield text


def _read_motion(item: MovieInput, movie: MovieSource, layout: MovieFormat) -> Motion | None:
    path = item.motion_path
    motion = None if path is None else read_motion(path)
    if motion is None:
        if path is not None and path == item.motion_star:
            raise FormatError(f"{path}: no motion of a movie here (data_general and data_global_shift); check the job")
        return None
    raw_frames = motion.frames * motion.group
    fits = raw_frames <= movie.frame_count < raw_frames + motion.group
    if not fits:
        grouped = f" of {motion.group} raw frames each" if motion.group > 1 else ""
        raise FormatError(
            f"{path}: motion of {motion.frames} frames{grouped}, but {movie.path} has {movie.frame_count}; "
            "it belongs to another movie"
        )
    scales = {there / here for there, here in zip(motion.shape, movie.frame_shape, strict=True)}
    if scales != {1.0} and not (layout.is_eer and scales in ({0.5}, {2.0}, {4.0})):
        raise FormatError(
            f"{path}: motion of frames of {motion.shape} (y, x), but those of {movie.path} have {movie.frame_shape}; "
            "it belongs to another movie"
        )
    return motion


def _plan(movie: MovieSource, motion: Motion | None, layout: MovieFormat) -> list[tuple[int, Shift | None]]:
    """List the frames (from 0) that are summed, each with how its content is moved in the movie's own rows."""
    if motion is None:
        return [(index, None) for index in range(movie.frame_count)]
    scale = movie.frame_shape[0] / motion.shape[0]
    plan: list[tuple[int, Shift | None]] = []
    for index in range(movie.frame_count):
        found = motion.shifts.get(index // motion.group + 1)
        if found is not None:
            plan.append((index, (found[0] * scale, found[1] * scale)))
    return plan


def _pixel_size(motion: Motion | None, layout: MovieFormat) -> float | None:
    if motion is None or motion.pixel_size_angstrom is None:
        return None
    return motion.pixel_size_angstrom * motion.shape[0] / layout.shape[0]
