"""Choose the input field that a job uses, and keep a fixed list for a training job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cryoplug.disk.atomic import storage_errors, write_bytes
from cryoplug.errors import UsageError
from cryoplug.formats.star import image_table, read_star
from cryoplug.store.pairs import finished_files

LIST_NAME = "training_list.star"
"""File in the folder of a convert or train job: the STAR file as it was when the pairs were made."""
STORE_NAME = "store"
"""Folder of the training pairs inside the folder of a convert or train job."""
MODEL_NAME = "model.json"
"""File in the folder of a train job: the best checkpoint and its figures."""


def only_micrographs(in_mics: str | None, in_movies: str | None) -> str:
    """Give the STAR file of the micrographs.

    Raises
    ------
    UsageError
        No STAR file of micrographs is given, or movies are given.
    """
    if in_movies:
        raise UsageError(
            f"--in_movies {in_movies}: movies are not denoised; give the micrographs of MotionCorr instead"
        )
    if not in_mics:
        raise UsageError("no --in_mics; choose a STAR file in the field Input micrographs")
    return in_mics


def micrographs_or_movies(in_mics: str | None, in_movies: str | None) -> str:
    """Give the STAR file from which training pairs are made.

    Raises
    ------
    UsageError
        No STAR file is given, or two are.
    """
    if in_mics and in_movies:
        raise UsageError(
            f"--in_mics {in_mics} and --in_movies {in_movies}: give one; the STAR file of MotionCorr knows its movies "
            "and their motion"
        )
    star = in_mics or in_movies
    if not star:
        raise UsageError("no --in_mics and no --in_movies; choose a STAR file in one of the two fields")
    return star


def lasting_list(folder: Path, star: str, note: Callable[[str], None]) -> Path:
    """Copy the STAR file into the job's folder once, so that a network is trained on the list as it was at the start.

    If the input grows before the job is continued, the job goes on with its own pairs: it does not fail, and does not mix
    old and new pairs. Until the pairs are complete, the list is copied again.

    Parameters
    ----------
    folder
        Of the job.
    star
        The input.
    note
        Called with a sentence when the input has changed since.
    """
    kept = folder / LIST_NAME
    if kept.is_file() and finished_files(folder / STORE_NAME, "bin"):
        now = len(image_table(read_star(star), "either").names) if Path(star).is_file() else 0
        before = len(image_table(read_star(kept), "either").names)
        if now != before:
            note(f"{star} lists {now} now; the pairs of this job are of the {before} in {kept}; a new job takes all")
        return kept
    read_star(star)  # says what is wrong with it, if something is
    with storage_errors(Path(star)):
        payload = Path(star).read_bytes()
    write_bytes(kept, payload)
    return kept
