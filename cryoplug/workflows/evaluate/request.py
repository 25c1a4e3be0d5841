"""The request of an evaluation, checked before any file is opened."""

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
    """A checkpoint or denoised files, and what to compare them with; the fields of `ApplySettings` say how to denoise.

    With `denoised`, ``tile`` is the tile size of the other program, in pixels.
    """

    output: Path
    """Folder for ``evaluation.json``, ``.txt``, ``.star`` and the figures; made when missing."""
    inputs: tuple[str, ...] = ()
    """Noisy micrographs; their halves are looked for beside them unless `even` and `odd` are given."""
    checkpoint: Path | None = None
    """``general``, run folder, ``epoch_NNNN`` folder or founding folder. None: ``general``, unless `denoised` is given."""
    denoised: tuple[str, ...] = ()
    """Instead of a checkpoint: results of another program for the inputs (with a truth) or for the even halves."""
    denoised_odd: tuple[str, ...] = ()
    """Results of another program for the odd halves; may be left out."""
    clean: tuple[str, ...] = ()
    """The truth of each input."""
    even: tuple[str, ...] = ()
    """One half of each exposure."""
    odd: tuple[str, ...] = ()
    """The other half."""
    direction: str = "auto"
    """Which half is denoised and compared with the other half: ``auto``, ``even``, ``odd`` or ``both``."""
    require_better_than: str | None = None
    """A baseline that the result must beat, such as ``gaussian``; None: no condition."""
    pixel_size: float | None = None
    """Pixel size of all micrographs in angstrom, as the user states it; it overrides list and header."""
    accept_unproven: bool = False
    """Accept halves that share no signal, instead of refusing them."""
    overwrite: bool = False
    """Replace an earlier evaluation."""

    def problems(self) -> Iterator[str]:
        """Give all mistakes of the request, as messages for the command line."""
        if self.output_angpix is not None:
            yield "--output-angpix: images that are compared must have the same grid (allowed only with denoise); leave it out"
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
        """The checkpoint to apply; None: files that another program denoised are measured."""
        return None if self.denoised else self.checkpoint or Path(GENERAL)

    @property
    def denoiser(self) -> str:
        """What is measured, in the words of `cryoplug.reports.words.DENOISERS`."""
        if self.applied is None:
            return "other"
        return "general" if is_general(self.applied) else "trained"

    @property
    def denoised_is_of_inputs(self) -> bool:
        """Whether the denoised files belong to the inputs; if not, they belong to the halves."""
        return bool(self.inputs and self.clean)
