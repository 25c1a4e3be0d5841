"""Find which RELION made a job: 3.1, 4 or 5. They use different names for file types."""

from __future__ import annotations

import re
from pathlib import Path

from cryoplug.errors import InputError, StorageError
from cryoplug.formats.star import StarFile, read_star

RELEASES = ("3.1", "4", "5")
_VERSION = re.compile(r"#\s*version\s+(\d+)")
_FIRST_OF_5 = 50000


def release_of_job(folder: Path) -> str:
    """Tell from the job's ``job.star``, else from the project's ``default_pipeline.star``; without either, the newest.

    RELION 3.1 numbers the types of jobs, 4 and 5 name them; the header says ``# version 30001`` in 3.1 and 4 and
    ``# version 50001`` in 5.
    """
    for path in (folder / "job.star", Path("default_pipeline.star")):
        try:
            release = _release_of(read_star(path))
        except (InputError, StorageError):
            continue  # not made by RELION, or on its way: nothing is lost but the name of a type
        if release is not None:
            return release
    return RELEASES[-1]


def _release_of(star: StarFile) -> str | None:
    columns = {name for block in star.blocks for name in block.columns}
    if "rlnJobType" in columns or "rlnPipeLineProcessType" in columns:
        return "3.1"
    if "rlnJobTypeLabel" not in columns and "rlnPipeLineProcessTypeLabel" not in columns:
        return None
    comments = [line for block in star.blocks for line in block.preamble]
    versions = [int(found[1]) for line in comments if (found := _VERSION.match(line))]
    return "5" if max(versions, default=0) >= _FIRST_OF_5 else "4"
