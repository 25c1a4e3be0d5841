"""Pictures for the job's log and its card: a few micrographs before and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cryoplug.errors import CryoplugError, InputError, StorageError
from cryoplug.outputs.pictures import png
from cryoplug.outputs.previews import draw_preview, preview_of_files

from cryoplug_cryosparc.errors import JobGoneError
from cryoplug_cryosparc.instance import RAW_SLOT, ExternalJob
from cryoplug_cryosparc.results import DENOISED_SLOT

MOST = 4
"""Most micrographs that the job's log shows: the first, the last, and some between them."""


def show_pictures(
    job: ExternalJob,
    denoised: Any,
    small: Mapping[str, Path],
    *,
    stated_angstrom: float | None,
    note: Callable[[str], None],
) -> None:
    """Show some micrographs in the job's log, and the first of them on its card.

    A picture that cannot be made or sent gives a message; the run goes on.

    Parameters
    ----------
    job
        The job.
    denoised
        Dataset with the raw and the denoised micrographs; paths from the working folder.
    small
        The larger thumbnail of each denoised micrograph, by its path; empty: no thumbnails.
    stated_angstrom
        Pixel size that the user states; None: that of the dataset.
    note
        Called with a sentence about each problem.
    """
    for place, row in enumerate(_spread(len(denoised), MOST)):
        raw, path = str(denoised[f"{RAW_SLOT}/path"][row]), str(denoised[f"{DENOISED_SLOT}/path"][row])
        try:
            preview = preview_of_files(
                [Path(raw)],
                Path(path),
                stated_angstrom=stated_angstrom,
                listed_angstrom=float(denoised[f"{RAW_SLOT}/psize_A"][row]) or None,
            )
            picture = png(draw_preview(preview))
            job.picture(picture, f"{Path(path).name}: raw, denoised, and what was removed")
            if place == 0:
                job.tile(small[path].read_bytes() if path in small else picture)
        except (InputError, StorageError, OSError) as error:
            note(f"no picture of {path}: {error}")
        except JobGoneError:
            raise
        except CryoplugError as error:
            note(f"no more pictures: {error}")
            return


def _spread(count: int, most: int) -> list[int]:
    if count <= most:
        return list(range(count))
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]
