"""Denoise one micrograph with the settings of a form, before the protocol runs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from cryoplug_scipion.inputs import place
from cryoplug_scipion.listing import Exposure, Listing, Optics
from cryoplug_scipion.program import CryoplugError


def preview(protocol: Any) -> Path:
    """Denoise the first input micrograph of a denoise protocol, which need not have run.

    Returns
    -------
    Path
        Path of a picture in a temporary folder: raw, denoised, and what was removed.

    Raises
    ------
    CryoplugError
        There is no micrograph yet, or it could not be denoised.
    """
    micrographs = protocol.inputMicrographs.get()
    first = micrographs.getFirstItem() if micrographs is not None else None
    if first is None:
        raise CryoplugError("choose input micrographs first; the first one is denoised and shown")
    folder = Path(tempfile.mkdtemp(prefix="cryoplug_preview_"))
    one = Listing(folder / "micrographs.star", folder / "links")
    one.add([Exposure(first.getObjId(), place(first))])
    one.write(Optics.of(micrographs))
    failures: list[str] = []

    def take(record: dict[str, Any]) -> None:
        if record.get("status") == "failed":
            failures.append(record["message"])

    words = [*protocol.model_words("denoise"), *protocol.form_words("denoise"), *protocol.machine_words("denoise")]
    left_out = {"--halves", "--no-previews"}
    words = [
        "denoise",
        str(one.path),
        "-o",
        str(folder / "denoised"),
        *(word for word in words if word not in left_out),
    ]
    protocol.run_command(words, take)
    pictures = sorted((folder / "denoised" / "previews").glob("*.jpg"))
    if not pictures:
        raise CryoplugError(failures[0] if failures else "cryoplug wrote no picture; the log says why")
    return pictures[0]
