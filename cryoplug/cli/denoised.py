"""What `denoise` and `merge` print at their end."""

from __future__ import annotations

from pathlib import Path

from cryoplug.cli.output import echo_result, printable_name, say
from cryoplug.core.results import BatchResult


def summarize(batch: BatchResult, output: Path, *, as_json: bool, command: str = "denoise") -> None:
    """Print the result of a run: counts, and the files that belong to all micrographs."""
    counts = {status: sum(item.status == status for item in batch.files) for status in ("done", "skipped", "failed")}
    text = ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "nothing to do"
    if not as_json:
        echo_result(batch, as_json=False, text=f"{text} -> {printable_name(output)}")
    for star in batch.outputs:
        left_out = batch.details.get("left_out", [])
        kind = "dataset" if star.suffix.lower() == ".cs" else "star"
        record = {kind: star, "left_out": left_out}
        words = "STAR" if kind == "star" else "cryoSPARC dataset"
        echo_result(record, as_json=as_json, type="list", text=f"{words} -> {printable_name(star)}")
        if left_out:
            say(f"{command}: {len(left_out)} failed micrographs are not in {printable_name(star)}")
    if (page := batch.details.get("report")) is not None:
        say(f"{command}: open in a browser: {printable_name(page)}")
