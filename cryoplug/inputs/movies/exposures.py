"""The exposures for `convert --pairs halves`: micrographs with halves beside them, or movies."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from cryoplug.errors import FormatError, InputError, StorageError, UsageError
from cryoplug.formats import registry
from cryoplug.formats.stack_kind import VOLUME_ADVICE
from cryoplug.formats.star import image_table, read_star
from cryoplug.inputs.discovered import DiscoveredMicrograph, known_endings, split_ending
from cryoplug.inputs.half_names import expected_names
from cryoplug.inputs.movies.halves import MovieInput
from cryoplug.inputs.movies.motion import METADATA_COLUMN, MOVIE_FIELD, look_up, project_folders, read_motion
from cryoplug.inputs.pairing import WITH_MOVIES, PairedInput, halves_of, no_halves, pair_files
from cryoplug.inputs.stack_sections import StackLooks

_IN_A_JOB = re.compile(r"/job\d{3,}(/|$)")


def halves_or_movies(
    found: Sequence[DiscoveredMicrograph],
    *,
    gain: Path | None,
    defects: Path | None,
    looks: StackLooks,
    note: Callable[[str], None],
) -> tuple[PairedInput, ...]:
    """List the exposures, each with its two halves or as a movie.

    Movies come from three places: a STAR file of movies; the motion files of a ``corrected_micrographs.star``, if some
    of its micrographs have no halves, or a gain reference is given; files of more than one frame. Files are movies
    once one of them has several frames, unless more than half turn out to have one first. A file of one frame among movies
    fails alone. A tilt series is not a movie, because its views differ.

    Parameters
    ----------
    found
        The inputs, discovered with the kind ``either``.
    gain, defects
        Gain reference and defects of movies; these files are not inputs.
    looks
        Knows what the files hold.
    note
        Called with what the user should know.

    Raises
    ------
    UsageError
        Gain or defects are given, but the inputs are not movies.
    FormatError
        A file of several images, without halves, is a tilt series or a volume.
    PairingError
        The inputs are not movies, and no exposure has both halves.
    """
    taken = {os.path.realpath(path) for path in (gain, defects) if path is not None}
    items = [item for item in found if os.path.realpath(item.path) not in taken]
    if not items:
        raise InputError("only the gain reference and the defects were found; name the movies")
    have_halves = all(item.has_halves for item in items)
    if not have_halves or taken:
        movies = _movies_of_metadata(items) or _movies(items, looks, note)
        if movies is not None:
            return movies
    if taken:
        raise UsageError(
            f"{items[0].path}: has one frame, so --gain and --defects cannot be applied; give the movies, "
            "or leave the two out"
        )
    halves = halves_of(items, advice=WITH_MOVIES)
    pairs = pair_files(halves.even, halves.odd, sides=("even", "odd"))
    problems = ((item, no_halves(item, advice=WITH_MOVIES)) for item in halves.alone)
    return (*pairs, *(PairedInput(i, item, problem=why) for i, (item, why) in enumerate(problems, start=len(pairs))))


def _movies(
    items: Sequence[DiscoveredMicrograph], looks: StackLooks, note: Callable[[str], None]
) -> tuple[PairedInput, ...] | None:
    if any(item.section is not None or item.has_halves for item in items):
        return None  # of stacks of which some have halves, the others are named as lacking them
    single = several = 0
    for item in items:
        if several or single > len(items) / 2:
            break
        try:
            with registry.open_movie(item.path) as movie:
                many = movie.frame_count > 1
        except (InputError, StorageError):
            continue  # reported for itself, when its turn comes
        single, several = single + (not many), several + many
    if not several:
        return None
    _refuse_what_is_no_movie(items, looks, note)
    return tuple(MovieInput(i, movie) for i, movie in enumerate(items))


def _refuse_what_is_no_movie(
    items: Sequence[DiscoveredMicrograph], looks: StackLooks, note: Callable[[str], None]
) -> None:
    """Raise `FormatError` for a tilt series or volume; note files that may not be movies."""
    doubtful = []
    for item in items:
        # A list of movies says what they are.
        look = looks.of(item.path) if item.star_path is None else None
        if look is None or look.kind == "movie":
            continue
        even, odd = expected_names(item.path.name, known_endings())
        if look.kind == "tilt series":
            raise FormatError(
                f"{item.path}: this is a tilt series because {look.why}; its views differ in angle, so even and odd ones are no "
                f"halves: give the halves of each view ({even} and {odd} beside it, or --even and --odd), or list it in "
                "a STAR file (rlnMicrographMovieName) if it is a movie after all"
            )
        if look.kind == "volume" and look.is_sure:
            raise FormatError(f"{item.path}: this is a volume because {look.why}; {VOLUME_ADVICE}")
        doubtful.append(look)
    if doubtful:
        first = doubtful[0]
        note(
            f"{first.path}: {first.sections} sections of {first.shape[1]}x{first.shape[0]} pixels are treated as the frames of "
            f"one movie{f', as in {len(doubtful) - 1} more files' if doubtful[1:] else ''}; if they are particles or tilts, give "
            "their halves with --even and --odd"
        )


def _movies_of_metadata(items: Sequence[DiscoveredMicrograph]) -> tuple[PairedInput, ...] | None:
    """List the movies that the motion files of a list name; None if the list names none, or no file can be used."""
    metadata = cache(_metadata_column)
    found: list[MovieInput] = []
    for item in items:
        names = () if item.star_path is None else metadata(item.star_path)
        if item.star_path is None or item.star_row is None or item.star_row >= len(names):
            return None
        found.append(_movie_of(len(found), item, names[item.star_row]))
    if all(movie.problem is not None for movie in found) and any(item.even or item.odd for item in items):
        return None  # a project whose movies are gone, with halves: those are the better way
    return tuple(_each_movie_once(found, items))


def _each_movie_once(found: Sequence[MovieInput], items: Sequence[DiscoveredMicrograph]) -> Iterator[MovieInput]:
    """Where several micrographs claim one movie, leave it to the one of its name: the motion files of the others are mistaken."""
    endings = known_endings()
    claims: dict[str, list[MovieInput]] = defaultdict(list)
    for movie in found:
        if movie.problem is None:
            claims[os.path.realpath(movie.noisy.path)].append(movie)
    for movie, item in zip(found, items, strict=True):
        others = claims[os.path.realpath(movie.noisy.path)] if movie.problem is None else []
        if (
            len(others) < 2
            or split_ending(item.path.name, endings)[0] == split_ending(movie.noisy.path.name, endings)[0]
        ):
            yield movie
            continue
        error = FormatError(
            f"{movie.motion_star}: is the motion of {movie.noisy.path}, which is the movie of another micrograph, too; run the "
            "motion correction again"
        )
        yield replace(movie, noisy=replace(movie.noisy, path=item.path), problem=error)


def _metadata_column(path: Path) -> tuple[str, ...]:
    try:
        table = image_table(read_star(path), "micrographs").block
    except FormatError:
        return ()
    return tuple(table.column(METADATA_COLUMN)) if METADATA_COLUMN in table.columns else ()


def _movie_of(index: int, item: DiscoveredMicrograph, name: str) -> MovieInput:
    """Give the movie of a micrograph; an error in its motion file fails only this exposure, later."""
    assert item.star_path is not None
    star, project = look_up(name, project_folders(item.star_path))
    try:
        motion = read_motion(star)
        if motion is None or not motion.movie_name:
            raise FormatError(f"{star}: names no movie (data_general, {MOVIE_FIELD}); run the motion correction again")
    except (InputError, StorageError) as error:
        return MovieInput(index, replace(item, even=None, odd=None), motion_star=star, problem=error)
    # The pixel size listed is that of the micrograph, which may be binned.
    exposure = replace(
        item, path=_place_of(motion.movie_name, star, project, item.path), even=None, odd=None, pixel_size_angstrom=None
    )
    return MovieInput(index, exposure, motion_star=star, micrograph_pixel_size_angstrom=item.pixel_size_angstrom)


def _place_of(movie: str, star: Path, project: str, micrograph: Path) -> Path:
    """Find a movie: below the project, never within the job, where the micrograph may have the movie's name."""
    folders = [folder for folder in project_folders(star) if not _IN_A_JOB.search(folder)]
    path, _ = look_up(movie, (project, *folders))
    if os.path.realpath(path) == os.path.realpath(micrograph):
        return Path(project, movie)
    return path
