"""An evaluation over micrographs: mean figures, and a table for people."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from cryoplug.metrics.baseline_names import BASELINES
from cryoplug.metrics.evaluation import DENOISED, EQUALLY_NOISY, Agreement, HalvesReport, HalvesScore, TruthReport
from cryoplug.metrics.hallucination import Hallucination
from cryoplug.metrics.summary import Mean, Requirement, mean_of, require_better
from cryoplug.metrics.truth import TruthScore
from cryoplug.metrics.verdict import Verdict, judge
from cryoplug.reports.evaluation_columns import HALVES_COLUMNS, HINTS, ROWS, TRUTH_COLUMNS

METHODS = (DENOISED, *BASELINES)
HALVES_ALONE = "halves, without truth: for one half alone"
"""How the halves judge, in the heading of their table."""
_BRIEF = ("snr_db", "mse", "psnr_db", "ssim", "frc_05", "error", "snr_fitted_db", "correlation", "residual_correlation")
WIDTH = 100
"""Most characters in a line of a table, for a terminal."""


@dataclass(frozen=True)
class Summary:
    """Means over the micrographs."""

    micrographs: int
    """Number of micrographs that were measured."""
    patches: int | None
    """Number of patches, if patches were measured instead; standard errors are then over patches. Else None."""
    truth: dict[str, dict[str, Mean]] | None
    """Means by method and figure of `TruthScore`; None without truth."""
    halves: dict[str, dict[str, Mean]] | None
    """Means by method and figure of `HalvesScore`; None without halves."""
    directions: tuple[str, ...]
    """Halves that were denoised and judged by the other one, in any micrograph."""
    noise_ratio: Mean | None
    """Variance of the noise in the even half over that in the odd one."""
    agreement: dict[str, float] | None
    """Mean error estimated from halves, mean true error of the same images, and the relative difference of the two."""
    hallucination: dict[str, dict[str, Mean]] | None
    """Means by method and figure of `Hallucination`."""
    seam: Mean | None
    """Steps across tile borders over steps beside them; about 1 if no seam is visible."""
    requirement: Requirement | None
    """The result of ``--require-better-than``; None without it."""
    verdict: Verdict | None = None
    """Comparison with every baseline."""


def summarize(
    truth: Sequence[TruthReport],
    halves: Sequence[HalvesReport],
    *,
    agreement: Sequence[Agreement] = (),
    hallucination: Sequence[Mapping[str, Hallucination]] = (),
    seams: Sequence[float] = (),
    micrographs: int,
    patches: int | None = None,
    require_better_than: str | None = None,
) -> Summary:
    """Average over micrographs.

    Parameters
    ----------
    truth, halves, agreement, hallucination, seams
        One for each micrograph that has it.
    micrographs
        Number of micrographs that were measured.
    patches
        Number of patches, if patches were measured; else None.
    require_better_than
        Baseline to beat: with a truth by the SNR, else by the correlation with the other half.
    """
    told, true = (mean_of([getattr(item, name) for item in agreement]) for name in ("truth_free_error", "true_error"))
    requirement = None
    if require_better_than is not None:
        measure = "snr_db" if truth else "correlation"
        scored: Sequence[Mapping[str, Any]] = [item.scores for item in truth or halves]
        pairs = [(getattr(item[DENOISED], measure), getattr(item[require_better_than], measure)) for item in scored]
        requirement = require_better(require_better_than, measure, pairs)
    return Summary(
        micrographs=micrographs,
        patches=patches,
        truth=_means(TruthScore, [item.scores for item in truth]),
        halves=_means(HalvesScore, [item.scores for item in halves]),
        directions=tuple(sorted({side for item in halves for side in item.directions})),
        noise_ratio=mean_of([item.noise_ratio for item in halves]) if halves else None,
        agreement={
            "truth_free_error": told.mean,
            "true_error": true.mean,
            "deviation": told.mean / true.mean - 1 if true.mean > 0 else math.nan,
        }
        if agreement
        else None,
        hallucination=_means(Hallucination, list(hallucination)),
        seam=mean_of(seams) if seams else None,
        requirement=requirement,
        verdict=judge(truth, halves),
    )


def table(summary: Summary, *, brief: bool = False, pairs: str | None = None) -> str:
    """Write a summary for people: mean and standard error over the micrographs, or over patches of them.

    Parameters
    ----------
    summary
        The means.
    brief
        Whether to leave out the legend, and columns that a log does not need.
    pairs
        Kind of training pairs, as in ``convert --pairs``: single exposures have no halves. None if it does not matter.

    Returns
    -------
    str
        No line is longer than `WIDTH`; a wider table continues below.
    """
    truth_columns, halves_columns = (
        [column for column in columns if not brief or column[0] in _BRIEF]
        for columns in (TRUTH_COLUMNS, HALVES_COLUMNS)
    )
    count = _counted(summary.micrographs, "micrograph")
    if summary.patches is not None:
        count = (
            f"{_counted(summary.patches, 'patch', 'es')} of {count}"
            if summary.micrographs
            else _counted(summary.patches, "patch", "es")
        )
    parts: list[str] = []
    told: set[str] | None = None if brief else set()
    if summary.truth:
        parts.append(f"{count}, judged by the truth; SNR after the best a*x+b, FRC in cycles per pixel")
        parts += _rows(summary.truth, truth_columns, told)
        parts.append(f"PSNR range: the truth's maximum less its minimum, {_range(summary.truth)} in the mean\n")
    if summary.halves:
        judge = "noise drawn with its spectrum, without truth" if pairs == "single" else HALVES_ALONE
        parts.append(f"{count}, judged by {judge}; SNR after the best a*x+b")
        parts += _rows(summary.halves, halves_columns, told)
        if not brief:
            parts.append(f"PSNR range: 6 standard deviations of the signal, {_range(summary.halves)} in the mean")
        parts.append("" if pairs == "single" else _sides(summary) + "\n")
    if summary.agreement:
        free, true, deviation = (summary.agreement[name] for name in ("truth_free_error", "true_error", "deviation"))
        parts.append(f"error of the halves without truth {free:.4g}, with truth {true:.4g} ({100 * deviation:+.1f} %)")
    for method, found in (summary.hallucination or {}).items():
        parts.append(
            f"pure noise through {method}: standard deviation {mean_text(found['noise_std'], '{:.4g}')} -> "
            f"{mean_text(found['output_std'], '{:.4g}')}, {100 * found['share'].mean:.1f} % of the variance of a denoised "
            f"micrograph, excess kurtosis {mean_text(found['excess_kurtosis'], '{:.2f}')}, mean frequency "
            f"{mean_text(found['mean_frequency'], '{:.3f}')}"
        )
    if summary.seam is not None:
        parts.append(f"steps across tile borders over steps beside them: {mean_text(summary.seam, '{:.3f}')}")
    if summary.requirement is not None:
        parts.append(verdict(summary.requirement))
    return "\n".join(_wrapped(line) for part in parts for line in part.split("\n"))


def verdict(requirement: Requirement) -> str:
    """Say in one line whether a requirement was met."""
    unit, scale = (" dB SNR", 1.0) if requirement.measure == "snr_db" else (" % correlation", 100.0)
    difference = requirement.difference
    error = f" +- {scale * difference.standard_error:.3f}" if math.isfinite(difference.standard_error) else ""
    answer = "better" if requirement.met else "NOT better"
    return (
        f"{answer} than {requirement.than}: paired difference {scale * difference.mean:+.3f}{error}{unit} "
        f"over {difference.count} micrographs"
    )


def _counted(count: int, word: str, plural: str = "s") -> str:
    return f"{count} {word}{plural * (count != 1)}"


def _sides(summary: Summary) -> str:
    sides = " and ".join(summary.directions)
    text = f"denoised and judged by the other half: {sides}; in the headings R is raw, D denoised, e even, o odd"
    ratio = math.nan if summary.noise_ratio is None else summary.noise_ratio.mean
    if 1 / EQUALLY_NOISY <= ratio <= EQUALLY_NOISY:
        return text
    return (
        f"{text}; the noise of the even half has {ratio:.3g} times the variance of the odd one's, so that B and N cannot "
        "be told apart; their sum can"
    )


def _means(record: type, scores: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Mean]] | None:
    if not scores:
        return None
    plain = [{method: asdict(score) for method, score in item.items()} for item in scores]
    return {
        method: {item.name: mean_of([one[method][item.name] for one in plain]) for item in fields(record)}
        for method in plain[0]
    }


def _range(means: Mapping[str, Mapping[str, Mean]]) -> str:
    return f"{means[DENOISED]['psnr_range'].mean:.4g}"


def _rows(
    means: Mapping[str, Mapping[str, Mean]], columns: Sequence[tuple[str, str, str]], told: set[str] | None
) -> list[str]:
    """Write one row for each method; columns that do not fit continue below, with the methods in front; then the legend.

    The legend leaves out what it has `told` already; None has no legend.
    """
    measured = [column for column in columns if any(means[method][column[0]].count for method in METHODS)]
    names = ["method", *METHODS]
    blocks = [_padded(names, left=True)]
    for figure, title, form in measured:
        cells = _padded([title, *(mean_text(means[method][figure], form) for method in METHODS)])
        if len(blocks[-1][0]) + 2 + len(cells[0]) > WIDTH:
            blocks.append(_padded(names, left=True))
        blocks[-1] = [f"{line}  {cell}" for line, cell in zip(blocks[-1], cells, strict=True)]
    lines = [line for block in blocks for line in (*block, "")][:-1]
    if told is None:
        return lines
    meanings = [f"  {title}: {HINTS[figure]}" for figure, title, _ in measured if title not in told]
    rows = [] if told else [f"  Rows: {ROWS}"]
    told.update(title for _, title, _ in measured)
    return [*lines, "", *rows, *meanings]


def _padded(cells: Sequence[str], *, left: bool = False) -> list[str]:
    width = max(map(len, cells))
    return [cell.ljust(width) if left else cell.rjust(width) for cell in cells]


def _wrapped(line: str) -> str:
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return line if len(line) <= WIDTH else textwrap.fill(line, WIDTH, subsequent_indent=indent)


def mean_text(value: Mean, form: str) -> str:
    """Write a mean and its standard error; a dash if nothing was measured."""
    if not value.count:
        return "-"
    if not math.isfinite(value.standard_error):
        return form.format(value.mean)
    # An error in the digits of its mean: 4 significant digits of each would look more exact than they are.
    error = form.replace("4g", "2g").format(value.standard_error)
    return f"{form.format(value.mean)} +- {error}"
