"""The reports of a training while it runs: records, and lines for people."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BATCHES_PER_REPORT = 100


@dataclass(frozen=True)
class Note:
    """A remark for the user."""

    text: str
    """One line."""


@dataclass(frozen=True)
class BatchReport:
    """Progress within an epoch."""

    epoch: int
    """Number of the epoch, from 1."""
    batch: int
    """Batches done in this epoch."""
    batches: int
    """Batches of a whole epoch."""
    loss: float
    """Mean loss over the batches since the last report."""
    samples_per_s: float
    """Patches per second since the last report."""
    loss_name: str = "mse"
    """Kind of loss: ``mse``, ``l1`` or ``charbonnier``."""

    @property
    def text(self) -> str:
        """The line for people."""
        rmse = f" RMSE {math.sqrt(self.loss):.6f}" if self.loss_name == "mse" else ""
        return (
            f"epoch {self.epoch} batch {self.batch}/{self.batches}: loss {self.loss:.6f}{rmse} "
            f"{self.samples_per_s:.1f} samples/s"
        )


@dataclass(frozen=True)
class Comparison:
    """The validation loss of an epoch against the lowest one before it, on the same held-out halves."""

    epoch: int
    """The epoch with which it is compared."""
    difference: float
    """Loss of this epoch minus that of `epoch`, mean over the units: the difference of their errors to the truth."""
    standard_error: float | None
    """Standard error of `difference` over the units; None with a single unit."""
    units: int
    """Number of units."""
    unit: str
    """``micrographs``, or ``patches`` if only one micrograph is held out."""

    @property
    def text(self) -> str:
        """The comparison in words."""
        error = "" if self.standard_error is None else f" +- {self.standard_error:.2g}"
        return f"{self.difference:+.3g}{error} to epoch {self.epoch} over {self.units} {self.unit}"


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch."""

    epoch: int
    """Number of the epoch, from 1."""
    train_loss: float
    """Mean loss over the patches of the epoch, each with the weights of its step."""
    val_loss: float | None
    """Mean loss on the held-out patches after the epoch; None without validation."""
    best: bool
    """Whether its checkpoint is kept: its loss is the lowest so far, or with halves not higher by more than the error."""
    samples_per_s: float
    """Training patches per second in this epoch."""
    seconds: float
    """Seconds of training and validation in this epoch, only those of this process."""
    waiting_for_data: float
    """Part of the training time spent waiting for data, 0 to 1."""
    checkpoint: Path | None = None
    """Folder of the best checkpoint so far, if one is saved."""
    loss_name: str = "mse"
    """Kind of loss: ``mse``, ``l1`` or ``charbonnier``."""
    compared: Comparison | None = None
    """With halves, from the second epoch on: comparison with the lowest loss before."""

    def record(self) -> dict[str, Any]:
        """Return the line of ``metrics.jsonl`` and of ``--json``; losses that were not measured are left out."""
        losses = {"train": self.train_loss} | ({} if self.val_loss is None else {"val": self.val_loss})
        return {
            "epoch": self.epoch,
            **{f"{name}_loss": loss for name, loss in losses.items()},
            **{f"{name}_rmse": math.sqrt(loss) for name, loss in losses.items() if self.loss_name == "mse"},
            "loss_name": self.loss_name,
            "best": self.best,
            "samples_per_s": self.samples_per_s,
            "seconds": self.seconds,
            "waiting_for_data": self.waiting_for_data,
            "checkpoint": None if self.checkpoint is None else str(self.checkpoint),
            **({} if self.compared is None else {"compared": asdict(self.compared)}),
        }

    @staticmethod
    def from_record(record: dict[str, Any]) -> EpochReport:
        """Rebuild a report from the output of `record`."""
        kept = {key: value for key, value in record.items() if not key.endswith("_rmse")}
        folder, compared = kept.pop("checkpoint", None), kept.pop("compared", None)
        return EpochReport(
            **{"val_loss": None, **kept},
            checkpoint=None if folder is None else Path(folder),
            compared=None if compared is None else Comparison(**compared),
        )

    @property
    def text(self) -> str:
        """The line for people."""

        def shown(loss: float) -> str:
            return f"loss {loss:.8f}" + (f" RMSE {math.sqrt(loss):.8f}" if self.loss_name == "mse" else "")

        line = f"epoch {self.epoch}: train {shown(self.train_loss)}"
        if self.val_loss is not None:
            line += f", validation {shown(self.val_loss)}"
        if self.compared is not None:
            line += f" ({self.compared.text})"
        line += f", {self.samples_per_s:.1f} samples/s"
        if self.waiting_for_data >= 0.05:
            line += f", waiting for data {100 * self.waiting_for_data:.0f} %"
        if self.best and self.compared is not None and self.compared.difference >= 0:
            return line + ", kept: not worse by more than the error"
        return line + (", best so far" if self.best else "")


Event = Note | BatchReport | EpochReport
Progress = Callable[[Event], None]
Advance = Callable[[int, int | None], None]
"""Called with the number of steps done in the whole run, and the number planned (None while unknown)."""
