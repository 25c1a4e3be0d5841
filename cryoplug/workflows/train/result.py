"""The result of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryoplug.metrics.verdict import Verdict, requirement_of

if TYPE_CHECKING:
    from cryoplug.reports.evaluation import Summary
    from cryoplug.training.progress import EpochReport

EXIT_NOT_BETTER = 1
"""Exit code if ``--require-better-than`` is not met, as in `evaluate`."""


@dataclass(frozen=True)
class Judged:
    """What the evaluation of the kept checkpoint gave."""

    evaluation: Summary | None = None
    """Figures, if this call measured them."""
    verdict: Verdict | None = None
    """Verdict, from any call; None if nothing was measured."""
    why_not: str = ""
    """Why there is no verdict, in a few words; empty with one."""


@dataclass(frozen=True)
class TrainResult:
    """The result of a training run."""

    epochs: tuple[EpochReport, ...]
    """Every finished epoch, also those of earlier parts of the run."""
    best_epoch: int
    """The epoch that is kept: that of the lowest loss, or with halves the latest that is not measurably worse."""
    best_loss: float
    """Validation loss of that epoch; without validation, its training loss."""
    first_batch_loss: float
    """Loss of the first batch before any step."""
    checkpoint: Path | None
    """Folder of the kept epoch; None without ``--save``."""
    already_finished: bool
    """Whether an earlier run had already finished the training."""
    evaluation: Summary | None = None
    """Figures of the kept checkpoint, if this call measured them."""
    verdict: Verdict | None = None
    """Verdict on the kept checkpoint, from any call; None without an evaluation."""
    pairs: str | None = None
    """Kind of training pairs; None for bare bins."""
    inputs: tuple[str, ...] = ()
    """Names with which `denoise` finds the micrographs of the store; see `cryoplug.store.manifest.Manifest.inputs`."""
    stated_angstrom: float | None = None
    """Pixel size of these micrographs, if the user stated it for convert."""
    not_judged: str = ""
    """Why there is no verdict, in a few words; empty with one."""
    required: str | None = None
    """The baseline to beat (``--require-better-than``); None without one."""

    @property
    def exit_code(self) -> int:
        """1 if ``--require-better-than`` is not met, or not known; else 0."""
        return 0 if self.required is None or requirement_of(self.verdict, self.required) else EXIT_NOT_BETTER
