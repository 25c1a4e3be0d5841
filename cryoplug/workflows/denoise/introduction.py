"""What denoise says about its network before the first micrograph: which one it is, and whether it was judged worse."""

from __future__ import annotations

from collections.abc import Iterator

from cryoplug.metrics.verdict import WORSE
from cryoplug.models.checkpoint import Checkpoint
from cryoplug.reports.evaluation_record import recorded_pairs, recorded_verdict
from cryoplug.reports.words import verdict_words
from cryoplug.workflows.denoise.request import DenoiseRequest


def introduction(request: DenoiseRequest, checkpoint: Checkpoint) -> Iterator[str]:
    """Give sentences on the network; none about one that the user named and that did well after its training."""
    yield from filter(None, (request.introduction(checkpoint), checkpoint.namesake_note))
    verdict = recorded_verdict(checkpoint.details)
    if verdict is not None and verdict.worst == WORSE:
        words = verdict_words(verdict, pairs=recorded_pairs(checkpoint.details))
        yield f"after its training this network was judged: {words[0]} {words[-1]}"
