"""Options of cryoplug as fields of a Pipeliner job, and what filled fields mean on the command line.

A job says which options it shows, and in which group. Their help, defaults, choices and ranges are cryoplug's own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from cryoplug.cli.description import OptionDescription
from pipeliner.job_options import (
    BooleanJobOption,
    ExternalFileJobOption,
    FloatJobOption,
    IntJobOption,
    JobOption,
    MultipleChoiceJobOption,
    MultiStringJobOption,
    StringJobOption,
)

NOT_CHOSEN = "default"
"""First entry of a menu whose option may be left out."""
_SPELLED_OUT = {
    "angpix": "pixel size for the network",
    "output angpix": "pixel size of the result",
    "dtype": "type of stored pixels",
    "ema": "moving average of the weights",
    "gpu": "GPU",
    "init": "start from checkpoint",
    "lr": "learning rate",
    "tta": "average 8 orientations",
    "val split": "validation split",
}
"""Longer labels for options whose names are too short for a form."""
_STEP = 0.1
"""Step of the slider for a number that need not be whole."""


def field_name(option: OptionDescription) -> str:
    """Name the field of an option in job.star: ``pixel_size``."""
    return option.name.replace("-", "_")


def field(option: OptionDescription, *, group: str, left_open: bool, in_continue: bool) -> JobOption:
    """Make the field of an option.

    Parameters
    ----------
    option
        The option, as cryoplug declares it.
    group
        Title of its group of fields.
    left_open
        The command's default depends on other options, so an empty field means the default.
    in_continue
        May be changed when the job is continued.
    """
    default = None if left_open else option.default
    common: dict[str, Any] = {
        "label": _label(option),
        "help_text": _help(option, left_open=left_open),
        "in_continue": in_continue,
        "jobop_group": group,
    }
    if option.kind == "flag":
        return BooleanJobOption(default_value=bool(option.default), **common)
    if option.kind == "choice":
        chosen = NOT_CHOSEN if default is None else str(default)
        choices = [*([NOT_CHOSEN] if default is None else []), *option.choices]
        return MultipleChoiceJobOption(choices=choices, default_value=chosen, **common)
    if option.repeated:
        return MultiStringJobOption(default_value=list(default or ()), **common)
    if option.kind == "integer":
        low, high = (None if limit is None else int(limit) for limit in (option.minimum, option.maximum))
        return IntJobOption(default_value=default, hard_min=low, hard_max=high, **common)
    if option.kind == "number":
        return FloatJobOption(
            default_value=default, hard_min=option.minimum, hard_max=option.maximum, step_value=_STEP, **common
        )
    text = "" if default is None else str(default)
    if option.kind == "path":
        return ExternalFileJobOption(default_value=text, **common)
    return StringJobOption(default_value=text, **common)


def arguments(options: Iterable[OptionDescription], fields: Mapping[str, JobOption]) -> list[str]:
    """Give the words for fields that differ from cryoplug's defaults.

    A field at its default is left out, so that a recipe or the environment of a facility can still set it.
    """
    words: list[str] = []
    for option in options:
        item = fields[field_name(option)]
        value = item.value
        if value is None or value in ("", [], NOT_CHOSEN) or value == item.default_value:
            continue
        flag = f"--{option.name}"
        if option.kind == "flag":
            words.append(flag if value else option.off_flags[0])
        else:
            values = value if isinstance(value, list) else [value]
            words += [word for item in values for word in (flag, f"{item}")]
    return words


def chosen(options: Iterable[OptionDescription], names: Collection[str]) -> list[OptionDescription]:
    """Pick options by name, in the order of the names.

    Raises
    ------
    KeyError
        The command has no such option.
    """
    known = {option.name: option for option in options}
    return [known[name] for name in names]


def _label(option: OptionDescription) -> str:
    words = option.name.replace("-", " ")
    words = _SPELLED_OUT.get(words, words)
    unit = f" ({option.unit})" if option.unit else ""
    return f"{words[0].upper()}{words[1:]}{unit}:"


def _help(option: OptionDescription, *, left_open: bool) -> str:
    nothing = "not chosen" if option.kind == "choice" else "empty"
    lines = [option.help, *([f"If it is {nothing}, the recipe decides."] if left_open else [])]
    return "\n".join([*lines, f"On the command line: --{option.name}"])
