"""What became of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryoplug.metrics.verdict import Verdict, requirement_of

if TYPE_CHECKING:
    from cryoplug.reports.evaluation import Summary
    from cryoplug.training.progress import EpochReport

EXIT_NOT_BETTER = 1
"""As `evaluate` exits when what was required is not met."""


@dataclass(frozen=True)
class TrainResult:
    """What became of a run."""

    epochs: tuple[EpochReport, ...]
    """Every finished epoch, those of earlier parts of the run included."""
    best_epoch: int
    """The epoch that is kept: of the lowest loss, or of halves the latest that cannot be told from it."""
    best_loss: float
    """Its validation loss; its training loss without validation."""
    first_batch_loss: float
    """Loss of the first batch before any step."""
    checkpoint: Path | None
    """The best epoch's folder; None without ``--save``."""
    already_finished: bool
    """Whether an earlier run had done it all."""
    evaluation: Summary | None = None
    """Of the kept checkpoint, when this call measured it."""
    verdict: Verdict | None = None
    """Of the kept checkpoint, whichever call measured it; None when none did."""
    pairs: str | None = None
    """Where the training pairs came from; None for bare bins."""
    inputs: tuple[str, ...] = ()
    """Where `denoise` finds the micrographs of the store; see `cryoplug.store.manifest.Manifest.inputs`."""
    stated_angstrom: float | None = None
    """The pixel size that the user stated of them."""
    required: str | None = None
    """The baseline that had to be beaten."""

    @property
    def exit_code(self) -> int:
        """1 when what was required is not met, or not known."""
        return 0 if self.required is None or requirement_of(self.verdict, self.required) else EXIT_NOT_BETTER
