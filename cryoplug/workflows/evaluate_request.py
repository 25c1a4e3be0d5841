"""What an evaluation is asked to do, checked before any file is opened."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from cryoplug.core.normalization import KINDS
from cryoplug.errors import UsageError
from cryoplug.inference.orientations import ASKED as TTA
from cryoplug.metrics.evaluation import DIRECTIONS
from cryoplug.metrics.linear import BASELINES


@dataclass(frozen=True)
class EvaluateRequest:
    """A checkpoint or denoised files, and what to judge them by."""

    output: Path
    """Folder for ``evaluation.json``, ``evaluation.txt`` and the figures; made when missing."""
    inputs: tuple[str, ...] = ()
    """Noisy micrographs; their halves are looked for beside them unless `even` and `odd` are given."""
    checkpoint: Path | None = None
    """Run folder, ``epoch_NNNN`` folder or founding folder; applied here."""
    denoised: tuple[str, ...] = ()
    """Instead of a checkpoint: what another program made of the inputs (with a truth) or of the even halves."""
    denoised_odd: tuple[str, ...] = ()
    """And of the odd halves; may be left out."""
    clean: tuple[str, ...] = ()
    """The truth of each input."""
    even: tuple[str, ...] = ()
    """One half of each exposure."""
    odd: tuple[str, ...] = ()
    """The other half."""
    direction: str = "auto"
    """Which half is denoised and judged by the other one: ``auto``, ``even``, ``odd`` or ``both``."""
    require_better_than: str | None = None
    """A baseline that must be beaten."""
    normalize: str | None = None
    """Instead of the checkpoint's own."""
    angpix: float | None = None
    """Pixel size in angstrom that the network sees; 0: the micrograph's own; None: as `cryoplug denoise` does."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    tta: str = "auto"
    """Whether the network is asked in eight orientations: ``auto`` as `cryoplug denoise` decides, ``on`` or ``off``."""
    tile: int = 0
    """Side of a tile in pixels; 0 chooses. With `denoised`: where that program had its tile borders."""
    threads: int = 0
    """CPU threads; 0 takes all cores."""
    accept_unproven: bool = False
    """Take halves that share no signal instead of refusing them."""
    overwrite: bool = False
    """Replace an earlier evaluation."""

    def __post_init__(self) -> None:
        problems = []
        if (self.checkpoint is None) == (not self.denoised):
            problems.append("give either --checkpoint or --denoised")
        if self.denoised_odd and not self.denoised:
            problems.append("--denoised-odd belongs to --denoised; give both")
        if bool(self.even) != bool(self.odd):
            problems.append("--even and --odd belong together; give both")
        if not self.inputs and not self.even:
            problems.append("no input (allowed: INPUT, or --even and --odd)")
        if self.denoised_odd and self.clean and self.inputs:
            problems.append("--denoised-odd is judged by halves: with INPUT and --clean, --denoised is of INPUT")
        for flag, value, allowed in (
            ("--direction", self.direction, DIRECTIONS),
            ("--require-better-than", self.require_better_than, (None, *BASELINES)),
            ("--normalize", self.normalize, (None, *KINDS)),
            ("--tta", self.tta, TTA),
        ):
            if value not in allowed:
                problems.append(f"{flag} {value!r} (allowed: {', '.join(filter(None, allowed))})")
        if self.angpix is not None and not (math.isfinite(self.angpix) and self.angpix >= 0):
            problems.append(
                f"--angpix {self.angpix} (allowed: a pixel size in angstrom, or 0 for the micrograph's own)"
            )
        for flag, number in (("--tile", self.tile), ("--threads", self.threads)):
            if number < 0:
                problems.append(f"{flag} {number} (allowed: 0 or more)")
        if problems:
            raise UsageError("; ".join(problems))

    @property
    def denoised_is_of_inputs(self) -> bool:
        """Whether the denoised files belong to the inputs; else they belong to the halves."""
        return bool(self.inputs and self.clean)
