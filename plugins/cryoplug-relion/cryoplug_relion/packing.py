"""The convert job: training pairs from micrographs with halves, from movies, or from micrographs alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cryoplug.core.results import BatchResult
from cryoplug.errors import InputError
from cryoplug.store.pairs import open_store
from cryoplug.workflows.convert import ConvertRequest, convert, list_inputs

from cryoplug_relion import nodes
from cryoplug_relion.inputs import STORE_NAME, lasting_list, micrographs_or_movies
from cryoplug_relion.logfile import FILE_NAME as LOGFILE
from cryoplug_relion.logfile import Logfile, check_logfile, listed
from cryoplug_relion.pictures import Image
from cryoplug_relion.release import release_of_job
from cryoplug_relion.supervisor import ENDINGS_WITH_RESULT, outputs_are_complete
from cryoplug_relion.talk import Talk

HALVES_NOTE = (
    "halves are sums of every other frame, not dose-weighted: each is normalised by itself, as is every micrograph "
    "denoised later"
)
_SHOWN_PAIRS = 3


@dataclass(frozen=True, eq=False)
class Packed:
    """A finished store of training pairs."""

    request: ConvertRequest
    """The request."""
    batch: BatchResult
    """The result of each micrograph."""

    @property
    def lines(self) -> list[str]:
        """Text about the store for the log file."""
        counts, failed = self.batch.details, self.batch.failed
        size, stride = counts["patch_size"], counts["stride"]
        kind = "whole micrographs" if self.request.store == "whole" else f"patches of {size} px, one every {stride} px,"
        return [
            f"list        {self.request.inputs[0]}",
            f"store       {self.request.target}",
            f"pairs       {self.request.pairs}, normalize {self.request.kind}",
            f"            {counts['train']} {kind} for training, {counts['test']} for testing",
            f"            of {len(self.batch.files)} micrographs, of which {len(failed)} failed",
            *([HALVES_NOTE] if self.request.pairs == "halves" else []),
            "",
            *listed("Failed, and left out:", [item.message for item in failed]),
        ]


def convert_job(*, folder: Path, in_mics: str | None, in_movies: str | None, as_json: bool, **fields: Any) -> int:
    """Make the missing training pairs, and write the files that RELION looks for.

    Parameters
    ----------
    folder
        Of the job.
    in_mics, in_movies
        What RELION gives: one of the two.
    as_json
        Write records to stdout.
    fields
        Further fields of `ConvertRequest`.

    Returns
    -------
    int
        0, or 3 when some micrographs failed; these are named.
    """
    packed = pack(folder, in_mics=in_mics, in_movies=in_movies, as_json=as_json, fields=fields)
    with Logfile(folder / LOGFILE) as pages:
        pages.text("cryoplug: training pairs", packed.lines)
        pages.panels("Training pairs", sample_pairs(packed.request.target))
    check_logfile(folder / LOGFILE)
    nodes.write_nodes(folder, [nodes.Node(folder / LOGFILE, nodes.LOGFILE)], release_of_job(folder))
    outputs_are_complete()
    return packed.batch.exit_code


def pack(folder: Path, *, in_mics: str | None, in_movies: str | None, as_json: bool, fields: dict[str, Any]) -> Packed:
    """Make the store of a job unless it is complete, and read it back.

    Raises
    ------
    InputError
        No micrograph gave a pair, or the disk holds something other than what was written.
    """
    star = micrographs_or_movies(in_mics, in_movies)
    fields = {**fields, "patch_size": fields["patch_size"] or None}
    begin = Talk("convert", as_json=as_json)
    request = ConvertRequest(
        inputs=(str(lasting_list(folder, star, begin.note)),), output=folder / STORE_NAME, **fields
    )
    if request.pairs == "halves":
        begin.note(HALVES_NOTE)
    talk = Talk("convert", total=len(list_inputs(request).pairs), as_json=as_json)
    batch = convert(request, talk.file, talk.note)
    talk.summary()
    if not batch.outputs or batch.exit_code not in ENDINGS_WITH_RESULT:
        raise InputError(f"{star}: no training pair could be made; the lines above say why")
    with open_store(request.target) as store:
        problems = store.verify()
    if problems:
        raise InputError(f"{request.target}: reading back failed: {problems[0]}; check the disk, or give --overwrite")
    return Packed(request, batch)


def sample_pairs(store_path: Path) -> list[dict[str, Image]]:
    """Read a few pairs, spread over a store, as pictures by caption; single exposures have an input and no target."""
    with open_store(store_path) as store:
        sides = store.sides
        count = store.count("train")
        indices = np.unique(np.linspace(0, count - 1, min(count, _SHOWN_PAIRS)).round().astype(int))
        noisy, clean = _read(store, indices.tolist())
    rows = [{"input": one, "target": two} for one, two in zip(noisy, clean, strict=True)]
    return rows if sides == 2 else [{"input": row["input"]} for row in rows]


def _read(store: Any, indices: Sequence[int]) -> tuple[Image, Image]:
    noisy, clean = (np.empty((len(indices), *store.patch_shape), np.float32) for _ in range(2))
    store.read(list(indices), noisy, clean)
    return noisy, clean
