"""Which of a job's input fields is used, and the list of a training job, which stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cryoplug.disk.atomic import storage_errors, write_bytes
from cryoplug.errors import UsageError
from cryoplug.formats.star import image_table, read_star
from cryoplug.store.pairs import finished_files

LIST_NAME = "training_list.star"
"""In the folder of a convert or train job: the STAR file as it was when the pairs were made."""
STORE_NAME = "store"
"""In the folder of a convert or train job: the training pairs."""
MODEL_NAME = "model.json"
"""In the folder of a train job: which checkpoint is the best one, and how good."""


def only_micrographs(in_mics: str | None, in_movies: str | None) -> str:
    """Give the STAR file of the micrographs.

    Raises
    ------
    UsageError
        There is none, or movies are given.
    """
    if in_movies:
        raise UsageError(
            f"--in_movies {in_movies}: movies are not denoised; give the micrographs of MotionCorr instead"
        )
    if not in_mics:
        raise UsageError("no --in_mics; choose a STAR file in the field Input micrographs")
    return in_mics


def micrographs_or_movies(in_mics: str | None, in_movies: str | None) -> str:
    """Give the one STAR file that training pairs are made from.

    Raises
    ------
    UsageError
        There is none, or there are two.
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
    """Copy the STAR file into the job's folder, once: a network is trained on what was there when the job began.

    A job that is continued while its input has grown then goes on with its own pairs instead of failing, and trains on
    no mixture. As long as the pairs are not complete, the list is taken anew.

    Parameters
    ----------
    folder
        Of the job.
    star
        The input.
    note
        Called when the input has changed since.
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
