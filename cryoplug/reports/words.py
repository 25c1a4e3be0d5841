"""The verdict in words: is it better than the raw micrograph, and than a Gaussian, and what to do next."""

from __future__ import annotations

import math

from cryoplug.metrics.verdict import ALIKE, BETTER, WORSE, Comparison, Verdict

GENERAL = "the general model (cryoplug denoise without --checkpoint)"
NOISE_RECIPE = (
    "--pairs noise adds artificial noise to a micrograph that is noisy already. "
    "The result usually ends below the raw micrograph."
)
_ADVICE = {
    WORSE: "Do not use this network. Train longer (--minutes), on more micrographs, or on coarser pixels "
    f"(convert --angpix 5); or use {GENERAL}.",
    ALIKE: f"A Gaussian is as good. Train longer (--minutes) or on more micrographs, or use {GENERAL}.",
    BETTER: "Denoise with it, and look at a few micrographs before you pick.",
}
_FURTHER = "train on their halves (convert --pairs halves, then train --init general)"
_ADVICE_ON = {
    "trained": _ADVICE,
    "general": {
        **_ADVICE,
        WORSE: f"Do not use the general model as it is on these micrographs. Take a Gaussian, or {_FURTHER}.",
        ALIKE: f"A Gaussian is as good on these micrographs. For more, {_FURTHER}.",
    },
    "other": {
        **_ADVICE,
        WORSE: f"Do not use this denoiser on these micrographs. Try {GENERAL}.",
        ALIKE: f"A Gaussian is as good. Try {GENERAL}.",
    },
}
DENOISERS = tuple(_ADVICE_ON)
"""Kinds of denoisers: a network that the user trained, the general model, or another program."""
_ICE_IN_HALVES = (
    "This does not tell how good the particles are: --target particles leaves the ice out, and the halves hold it."
)
_BETTER_SOURCES = (
    f"Train on halves (convert --pairs halves) or on single exposures (convert --pairs single), or use {GENERAL}."
)


def verdict_words(
    verdict: Verdict | None,
    *,
    pairs: str | None = None,
    denoiser: str = "trained",
    target: str | None = None,
    why_not: str = "nothing was measured",
) -> list[str]:
    """Write a verdict in short sentences, the most important first.

    Parameters
    ----------
    verdict
        From `cryoplug.metrics.verdict.judge`; None if nothing was measured.
    pairs
        Kind of training pairs, as in ``convert --pairs``; None if it does not matter.
    denoiser
        What was judged, one of `DENOISERS`; it decides the advice.
    target
        Output of the network that was judged; None if it has only one.
    why_not
        Why nothing was measured, if there is no verdict.

    Returns
    -------
    list of str
        First the verdict, then by what it was judged, then what to do next.
    """
    if verdict is None:
        lines = [f"Not judged: {why_not}."]
        return [*lines, NOISE_RECIPE, f"Next: {_BETTER_SOURCES}"] if pairs == "noise" else lines
    raw = "its input" if pairs == "noise" else "the raw micrograph"
    identity, gaussian = verdict.comparisons["identity"], verdict.comparisons["gaussian"]
    lines = [_headline(identity, gaussian, raw)]
    lines.append(_judged(verdict, pairs))
    if pairs == "noise":
        return [*lines, NOISE_RECIPE, f"Next: {_BETTER_SOURCES}"]
    if target == "particles" and verdict.judge == "halves":
        return [
            *lines,
            _ICE_IN_HALVES,
            "Next: Evaluate --target image, and judge the particles by what a picker finds.",
        ]
    return [*lines, f"Next: {_ADVICE_ON[denoiser][verdict.worst]}"]


def required_words(verdict: Verdict | None, than: str) -> str:
    """Say in one line whether ``--require-better-than`` is met."""
    names = {"identity": "the raw micrograph", "affine": "the best a*x+b", "gaussian": "the best Gaussian"}
    name = names.get(than, "the Wiener filter")
    if verdict is None or than not in verdict.comparisons:
        return f"required: better than {name}; NOT known, nothing was measured"
    item = verdict.comparisons[than]
    return f"required: better than {name}; {'met' if item.answer == BETTER else 'NOT met'}{_amount(item)}"


def _headline(identity: Comparison, gaussian: Comparison, raw: str) -> str:
    if identity.answer == WORSE:
        return f"WORSE than {raw}{_amount(identity)}. Worse than doing nothing."
    if gaussian.answer == WORSE:
        first = f"Better than {raw}" if identity.answer == BETTER else f"No better than {raw}"
        return f"WORSE than the best Gaussian blur{_amount(gaussian)}. {first}{_amount(identity)}."
    if identity.answer == ALIKE:
        return f"NO BETTER than {raw}{_amount(identity)}."
    if gaussian.answer == ALIKE:
        return f"Better than {raw}{_amount(identity)}. NO BETTER than the best Gaussian blur{_amount(gaussian)}."
    return f"Better than {raw}{_amount(identity)} and than the best Gaussian blur{_amount(gaussian)}."


def _amount(item: Comparison) -> str:
    if not math.isfinite(item.gain_db):
        return ""
    error = f" +- {item.standard_error_db:.2f}" if math.isfinite(item.standard_error_db) else ""
    return f" ({item.gain_db:+.2f}{error} dB)"


def _judged(verdict: Verdict, pairs: str | None) -> str:
    # Training is judged on patches of the held-out micrographs.
    one, several = ("image", "images") if pairs is None else ("patch", "patches")
    count = f"{verdict.images} {one if verdict.images == 1 else several}"
    if pairs == "noise":
        return f"Judged on {count} by the micrograph itself, whose own noise counts as truth."
    if verdict.judge == "truth":
        return f"Judged on {count} by the truth."
    if pairs == "single":
        return (
            f"Judged on {count} without truth, by noise drawn with the measured spectrum: as good as that spectrum is."
        )
    return (
        f"Judged on {count} without truth, by the other half of each exposure: "
        "an estimate for one half, which is noisier than the whole."
    )
