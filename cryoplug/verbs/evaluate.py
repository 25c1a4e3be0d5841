"""``cryoplug.evaluate``: how good a denoiser is, measured as ``cryoplug evaluate`` does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Unpack

from cryoplug.verbs.applied import Applied, applied_fields, explains_applied, refuse_unknown
from cryoplug.verbs.arguments import AnyPath, AnyPaths, checkpoint_of, names_of, path_of
from cryoplug.verbs.choices import Baseline, Direction
from cryoplug.verbs.outcome import Note, Notes, Outcome, Progress, check_usable, remarks_of, reporting

if TYPE_CHECKING:
    from cryoplug.reports.evaluation import Summary


@dataclass(frozen=True, repr=False)
class Evaluation(Outcome):
    """The result of an evaluation; ``print(evaluation)`` shows it in words."""

    words: tuple[str, ...] = ()
    """Whether the result is better than the raw micrograph and than the best Gaussian blur, and what to do next."""
    table: str = ""
    """The figures of every method, for people."""
    summary: Summary | None = None
    """The same figures as numbers; None if no micrograph could be measured."""

    @property
    def met(self) -> bool | None:
        """Whether `require_better_than` is met; None if nothing was required."""
        requirement = None if self.summary is None else self.summary.requirement
        return None if requirement is None else requirement.met

    def __str__(self) -> str:
        return "\n".join([*self.words, super().__str__()])


@explains_applied
def evaluate(
    inputs: AnyPaths,
    output: AnyPath,
    *,
    checkpoint: AnyPath | None = None,
    denoised: AnyPaths = (),
    denoised_odd: AnyPaths = (),
    clean: AnyPaths = (),
    even: AnyPaths = (),
    odd: AnyPaths = (),
    require_better_than: Baseline | None = None,
    direction: Direction = "auto",
    pixel_size: float | None = None,
    accept_unproven: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    note: Note | None = None,
    **applied: Unpack[Applied],
) -> Evaluation:
    """Say how good a denoiser is, with the best simple filters beside it on the same data.

    It does what the command ``cryoplug evaluate`` does: same options, same defaults, same files, same errors. With `clean`
    it compares with the truth; without, it uses the halves of each exposure, because their noise is independent.

    With `denoised`, `tile` says where the other program had its tile borders. `output_angpix` must be None, because images can
    be compared only on one grid.

    Parameters
    ----------
    inputs
        Noisy micrographs: one path or several, folders, patterns, lists. Give ``()`` if `even` and `odd` name the files.
    output
        Folder for the records, the table, the figures and the page; made when missing.
    checkpoint
        The network, as for `denoise`; None is ``"general"``, unless `denoised` is given.
    denoised
        Judge these denoised files, of any program: of `inputs` with `clean`, else of the even halves.
    denoised_odd
        Denoised odd halves; with them, noise and bias are known separately.
    clean
        The truth of each input.
    even, odd
        The halves, if they are not beside the inputs.
    require_better_than
        ``identity``, ``affine``, ``gaussian`` or ``wiener``: the method that must be beaten by more than two standard errors
        of the paired difference; see `Evaluation.met`.
    direction
        Half to denoise; the other one judges it: ``auto``, ``even``, ``odd`` or ``both``.
    pixel_size
        Pixel size of the micrographs in angstrom; it beats list and header.
    accept_unproven
        Whether to accept halves without common signal.
    overwrite
        Replace an earlier evaluation.
    progress
        Called with the `FileResult` of each micrograph; ``print`` will do.
    note
        Called with each remark, a sentence; ``print`` will do.
    **applied
        See `Applied`.

    Returns
    -------
    Evaluation
        The verdict in words, the figures, and the files that were written.

    Raises
    ------
    UsageError
        `output` holds an evaluation and `overwrite` is off, or the options contradict each other.
    InputError
        Nothing was found, files do not pair, no micrograph can be measured, or the checkpoint cannot be used. If only some
        files fail, there is no error: see `Outcome.failures`.
    StorageError, DeviceError, Stopped
        As for `denoise`; nothing was written.

    Examples
    --------
    >>> import cryoplug
    >>> made = cryoplug.simulate("simulated", count=1, size=128, pixel_size=5)
    >>> judged = cryoplug.evaluate("simulated/noisy/*.mrc", "evaluation", clean="simulated/clean/*.mrc")
    >>> print(judged.words[0])  # doctest: +SKIP
    Better than the raw micrograph (+4.57 +- 0.13 dB) and than the best Gaussian blur (+0.72 +- 0.03 dB).
    >>> [path.name for path in judged.outputs][:2]
    ['evaluation.json', 'evaluation.txt']
    """
    from cryoplug.reports.evaluation import table
    from cryoplug.workflows.evaluate import EvaluateRequest
    from cryoplug.workflows.evaluate import evaluate as run

    refuse_unknown("evaluate", applied, Applied.__annotations__)
    request = EvaluateRequest(
        inputs=names_of(inputs, "inputs"),
        output=path_of(output, "output"),
        checkpoint=None if checkpoint is None else checkpoint_of(checkpoint),
        denoised=names_of(denoised, "denoised"),
        denoised_odd=names_of(denoised_odd, "denoised_odd"),
        clean=names_of(clean, "clean"),
        even=names_of(even, "even"),
        odd=names_of(odd, "odd"),
        require_better_than=require_better_than,
        direction=direction,
        pixel_size=pixel_size,
        accept_unproven=accept_unproven,
        overwrite=overwrite,
        **applied_fields(applied),
    )
    notes = Notes(note)
    result = run(request, reporting(progress), notes.take)
    check_usable(result)
    summary = result.summary
    return Evaluation(
        files=result.files,
        outputs=result.outputs,
        page=result.page,
        remarks=remarks_of(result, notes.kept),
        exit_code=result.exit_code,
        details=result.details,
        words=result.words,
        table="" if summary is None else table(summary),
        summary=summary,
    )
