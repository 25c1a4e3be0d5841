"""Make the even and the odd half of a movie: sum its frames with gain, repaired defects and undone motion.

Frames are counted from 1: frames 1, 3, 5 ... make the odd half, 2, 4, 6 ... the even one. (RELION's ``_EVN`` holds
frames 1, 3, 5 ..., because it counts from 0; which half is which makes no difference to training.)

Memory does not depend on the number of frames: at most that of ten frames in float32, with gain and motion; about 0.9 GB
for 5760 x 4092.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from cryoplug.core.fourier_crop import SAME_PIXEL_SIZE
from cryoplug.core.micrograph import ArrayMicrograph, ImageF32
from cryoplug.core.pixel_size import known_pixel_size, said
from cryoplug.disk.opening import read_errors
from cryoplug.errors import FormatError, InputError, PairingError
from cryoplug.formats import registry
from cryoplug.formats.tiff import TiffMovie
from cryoplug.inputs.discovered import known_endings, split_ending
from cryoplug.inputs.movies.frame_sums import ShiftedSum
from cryoplug.inputs.movies.gain import DefectRepair, Gain, centre_window, gain_complaint
from cryoplug.inputs.movies.gain_of_run import MovieFormat, RunGain
from cryoplug.inputs.movies.grid import HalvesGrid, halves_grid
from cryoplug.inputs.movies.motion import Motion, motion_beside, read_motion
from cryoplug.inputs.pairing import PairedInput

if TYPE_CHECKING:
    from cryoplug.core.micrograph import MovieSource

Shift = tuple[float, float]
ODD, EVEN = 0, 1


@dataclass(frozen=True)
class MovieInput(PairedInput):
    """A movie whose frames become both halves; ``clean`` stays None."""

    motion_star: Path | None = None
    """STAR file of its motion, if the list of micrographs names one; None looks for one beside the movie."""
    micrograph_pixel_size_angstrom: float | None = None
    """Pixel size of the micrograph in that list; the halves are on its grid."""

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
    listed_angstrom: float | None = None
    """Their pixel size from the lists: of micrographs, of the motion, or of movies."""
    header_angstrom: float | None = None
    """Their pixel size from the header of the movie."""


class MovieSummer:
    """Sums the movies of one run, one at a time.

    Parameters
    ----------
    gain
        Gain and defects of the run.
    pool
        Threads for the Fourier transforms.
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
            The gain reference is turned, mirrored or inverted, or was already applied: see `gain_complaint`.
        """
        if item.problem is not None:
            raise item.problem
        path = item.noisy.path
        with contextlib.ExitStack() as stack:
            movie = stack.enter_context(registry.open_movie(path))
            stack.enter_context(read_errors(path))
            layout, motion, grid = _layout(item, movie)
            if grid.upsampling > 1:
                layout = MovieFormat(path, grid.summed)
                movie = stack.enter_context(_finer(path, grid))
            gain, repair = self._gain.fit(layout, motion)
            plan = _plan(movie, motion, grid.offset_px)
            even, odd = (grid.binned(half) for half in self._sum(movie, layout, plan, gain, repair))
            remarks = [*movie.warnings, *self._remarks(item, motion, plan, movie.frame_count)]
            listed_angstrom, different = _listed_pixel_size(item, motion, grid)
            remarks += different
            in_file = grid.pixel_size(said(movie.pixel_size_angstrom), grid.summed)
            size = known_pixel_size(None, listed_angstrom, in_file).angstrom
        even_half, odd_half = (ArrayMicrograph(image, path, pixel_size_angstrom=size) for image in (even, odd))
        halves = Halves(even_half, odd_half, listed_angstrom, in_file)
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
        if len({index % 2 for index, _ in plan}) < 2:
            left = f"{len(plan)} of {movie.frame_count} frames"
            raise InputError(
                f"{movie.path}: {left} are left, none of them for one of the halves; check its motion STAR file"
            )
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
        assert odd is not None and even is not None
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

    def _remarks(
        self, item: MovieInput, motion: Motion | None, plan: list[tuple[int, Shift | None]], count: int
    ) -> Iterator[str]:
        if self._gain.gain_path is None:
            named = f" (RELION used {motion.gain_name})" if motion is not None and motion.gain_name else ""
            yield from self._once(
                "no --gain: the detector's stripes are equal in both halves, so a network learns them as signal, unless the "
                f"frames are corrected already{named}"
            )
        if motion is None:
            yield from self._once("no motion STAR file: frames are summed without correcting drift")
        elif not motion.shifts:
            yield from self._once(
                f"{motion.path}: has no shifts (all are -9999, as RELION 5 writes them for MotionCor2 1.5 and later): frames are "
                "summed without correcting drift; RELION's own motion correction gives shifts"
            )
        elif motion.has_local_model:
            yield from self._once("frames are shifted as a whole; the local motion model is not applied")
        if motion is not None and motion.movie_name and _stem(motion.movie_name) != _stem(item.noisy.path.name):
            yield f"{motion.path}: names another movie, {motion.movie_name}"
        unlisted = 0 if motion is None else motion.frames - motion.listed
        if motion is not None and unlisted > 0:
            yield (
                f"{unlisted} of {motion.frames} frames are not in {motion.path}, though RELION lists every frame: they are left "
                "out; if the file was cut, run the motion correction again"
            )
        elif len(plan) < count:
            yield from self._once(
                f"{count - len(plan)} of {count} frames were left out by RELION, and are left out of the halves"
            )

    def _once(self, text: str) -> Iterator[str]:
        if text not in self._said:
            self._said.add(text)
            yield text


def _stem(name: str) -> str:
    return split_ending(PurePosixPath(name).name, known_endings())[0]


def size_of_halves(item: MovieInput) -> tuple[tuple[int, int], float | None, float | None]:
    """Give the size of the halves of a movie without reading a frame.

    Returns
    -------
    tuple
        ``(y, x)`` of its halves, and their pixel size in angstrom from the lists and from the file; None if unknown.

    Raises
    ------
    InputError, StorageError
        It cannot be opened, has one frame, or its motion does not fit it.
    """
    if item.problem is not None:
        raise item.problem
    with registry.open_movie(item.noisy.path) as movie:
        _, motion, grid = _layout(item, movie)
        in_file = grid.pixel_size(said(movie.pixel_size_angstrom), movie.frame_shape)
        return grid.halves, _listed_pixel_size(item, motion, grid)[0], in_file


def _layout(item: MovieInput, movie: MovieSource) -> tuple[MovieFormat, Motion | None, HalvesGrid]:
    path = item.noisy.path
    if movie.frame_count < 2:
        raise InputError(f"{path}: one frame; the halves of a movie need two or more; leave it out")
    layout = MovieFormat(path, movie.frame_shape)
    motion = _read_motion(item, movie)
    listed = item.motion_star is not None
    return layout, motion, halves_grid(movie.frame_shape, motion, is_eer=layout.is_eer, as_fine_as_micrograph=listed)


def _read_motion(item: MovieInput, movie: MovieSource) -> Motion | None:
    path = item.motion_path
    motion = None if path is None else read_motion(path)
    if motion is None:
        if path is not None and path == item.motion_star:
            raise FormatError(f"{path}: no motion of a movie here (data_general and data_global_shift); check the job")
        return None
    raw_frames = motion.frames * motion.group
    if not raw_frames <= movie.frame_count < raw_frames + motion.group:
        grouped = f" of {motion.group} raw frames each" if motion.group > 1 else ""
        raise FormatError(
            f"{path}: motion of {motion.frames} frames{grouped}, but {movie.path} has {movie.frame_count}; "
            "it belongs to another movie"
        )
    return motion


def _finer(path: Path, grid: HalvesGrid) -> MovieSource:
    """Open an EER movie with more pixels than the detector has."""
    movie = TiffMovie(path, upsampling=grid.upsampling)
    if movie.frame_shape != grid.summed:
        movie.close()
        raise FormatError(
            f"{path}: frames of {movie.frame_shape} (y, x), but its micrograph needs {grid.summed}; leave it out, or run the "
            "motion correction with a smaller eer_upsampling"
        )
    return movie


def _plan(movie: MovieSource, motion: Motion | None, offset_px: float) -> list[tuple[int, Shift | None]]:
    """List the frames to sum (from 0), each with the shift of its content."""
    if motion is None:
        return [(index, None) for index in range(movie.frame_count)]
    first = (motion.first_frame - 1) * motion.group
    if not motion.shifts:
        return [(index, None) for index in range(first, movie.frame_count)]
    scale = movie.frame_shape[0] / motion.shape[0]
    plan: list[tuple[int, Shift | None]] = []
    for index in range(movie.frame_count):
        found = motion.shifts.get(index // motion.group + 1)
        if found is not None:
            plan.append((index, (found[0] * scale + offset_px, found[1] * scale + offset_px)))
    return plan


def _listed_pixel_size(item: MovieInput, motion: Motion | None, grid: HalvesGrid) -> tuple[float | None, list[str]]:
    """Give the pixel size of the halves from the lists, and a remark if two of these differ."""
    found = None if motion is None else grid.pixel_size(motion.pixel_size_angstrom, motion.shape)
    found = found or grid.pixel_size(item.noisy.pixel_size_angstrom, grid.stored)
    listed = item.micrograph_pixel_size_angstrom
    if listed is None or found is None:
        return listed or found, []
    if abs(listed / found - 1) <= SAME_PIXEL_SIZE:
        return listed, []
    return listed, [f"pixel size {listed:g} A in the list, {found:g} A by its motion: the list is used"]
