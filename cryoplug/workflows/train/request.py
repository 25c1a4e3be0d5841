"""The request of a training run: data, configuration, and where it is saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryoplug.errors import UsageError, not_allowed
from cryoplug.metrics.baseline_names import BASELINES
from cryoplug.training.presets import RECIPES

if TYPE_CHECKING:
    from cryoplug.training.config import TrainConfig


@dataclass(frozen=True)
class TrainRequest:
    """What to train, on what, and where to save it."""

    data: Path
    """A store: folder with a manifest, folder of bare bins, or ``.h5`` file."""
    config: TrainConfig
    """Everything that decides the weights."""
    save: bool = False
    """Whether to save anything."""
    checkpoint_dir: Path = Path("saved_models")
    """The run folder is ``checkpoint_dir/model``."""
    init: Path | None = None
    """Checkpoint to start from, or ``general``; None draws weights from the seed."""
    val_indices: Path | None = None
    """File that names the validation patches, one index a line."""
    resume: bool = False
    """Whether to go on with an earlier run, also for more epochs than it had."""
    overwrite: bool = False
    """Whether to delete an earlier run in the same folder."""
    evaluate: bool = True
    """Whether to evaluate the kept checkpoint on held-out patches at the end of a saved run."""
    recipe: str = "founding"
    """Recipe for the fields of `config` that are not `given`; see `cryoplug.training.presets.with_recipe`."""
    given: frozenset[str] = frozenset()
    """Names of the fields of `config` that the user chose."""
    require_better_than: str | None = None
    """A baseline that the network must beat in the evaluation at the end; None without one."""

    @property
    def run_folder(self) -> Path:
        """Folder of the run."""
        return self.checkpoint_dir / self.config.model

    def __post_init__(self) -> None:
        """Refuse combinations that contradict each other."""
        problems = [] if self.recipe in RECIPES else [not_allowed("--recipe", self.recipe, ", ".join(RECIPES))]
        if self.resume and not self.save:
            problems.append("--resume goes on with a saved run, so it needs --save")
        if self.resume and self.overwrite:
            problems.append("--resume goes on and --overwrite starts again; give one of them")
        if self.require_better_than is not None:
            problems += self._unmeasurable(self.require_better_than)
        if problems:
            raise UsageError("; ".join(problems))

    def _unmeasurable(self, than: str) -> list[str]:
        if than not in BASELINES:
            return [not_allowed("--require-better-than", than, ", ".join(BASELINES))]
        missing = [
            text
            for text, there in (
                ("needs --save", self.save),
                ("needs the evaluation, so leave --no-evaluation out", self.evaluate),
                (
                    "needs micrographs that are held out: --val-split above 0",
                    self.config.val_split > 0 or self.val_indices,
                ),
            )
            if not there
        ]
        return [f"--require-better-than {than} {', and '.join(missing)}"] if missing else []
