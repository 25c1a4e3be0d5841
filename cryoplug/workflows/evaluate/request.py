"""What an evaluation is asked to do, checked before any file is opened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryoplug.core.pixel_size import pixel_size_problems
from cryoplug.inference.settings import ApplySettings
from cryoplug.metrics.baseline_names import BASELINES
from cryoplug.metrics.evaluation import DIRECTIONS
from cryoplug.models.shipped import GENERAL, is_general


@dataclass(frozen=True)
class EvaluateRequest(ApplySettings):
    """A checkpoint or denoised files, and what to judge them by; how it is applied, say the fields of `ApplySettings`.

    With `denoised`, ``tile`` says where that program had its tile borders.
    """

    output: Path
    """Folder for ``evaluation.json``, ``.txt``, ``.star`` and the figures; made when missing."""
    inputs: tuple[str, ...] = ()
    """Noisy micrographs; their halves are looked for beside them unless `even` and `odd` are given."""
    checkpoint: Path | None = None
    """``general``, run folder, ``epoch_NNNN`` folder or founding folder; applied here. None: ``general``, without `denoised`."""
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
    pixel_size: float | None = None
    """What the user states of all micrographs, in angstrom: it beats list and header; see `cryoplug.core.pixel_size`."""
    accept_unproven: bool = False
    """Take halves that share no signal instead of refusing them."""
    overwrite: bool = False
    """Replace an earlier evaluation."""

    def problems(self) -> Iterator[str]:
        """Say everything that is wrong, in the words of the command line."""
        if self.output_angpix is not None:
            yield "--output-angpix: what is compared must have one grid (allowed with denoise alone); leave it out"
        if self.checkpoint is not None and self.denoised:
            yield "give either --checkpoint or --denoised"
        if self.denoised_odd and not self.denoised:
            yield "--denoised-odd belongs to --denoised; give both"
        if bool(self.even) != bool(self.odd):
            yield "--even and --odd belong together; give both"
        if not self.inputs and not self.even:
            yield "no input (allowed: INPUT, or --even and --odd)"
        if self.denoised_odd and self.clean and self.inputs:
            yield "--denoised-odd is judged by halves: with INPUT and --clean, --denoised is of INPUT"
        for flag, value, allowed in (
            ("--direction", self.direction, DIRECTIONS),
            ("--require-better-than", self.require_better_than, (None, *BASELINES)),
        ):
            if value not in allowed:
                yield f"{flag} {value!r} (allowed: {', '.join(filter(None, allowed))})"
        yield from super().problems()
        if self.pixel_size is not None:
            yield from pixel_size_problems(self.pixel_size)

    @property
    def applied(self) -> Path | None:
        """The checkpoint to apply; None: files that were denoised elsewhere are judged."""
        return None if self.denoised else self.checkpoint or Path(GENERAL)

    @property
    def denoiser(self) -> str:
        """What is judged, as `cryoplug.reports.words.DENOISERS` calls it."""
        if self.applied is None:
            return "other"
        return "general" if is_general(self.applied) else "trained"

    @property
    def denoised_is_of_inputs(self) -> bool:
        """Whether the denoised files belong to the inputs; else they belong to the halves."""
        return bool(self.inputs and self.clean)
