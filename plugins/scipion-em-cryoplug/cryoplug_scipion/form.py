"""Show options of cryoplug in a form of Scipion, and turn a filled form into a command line.

A protocol says which options it shows, and in which section. Their help, defaults, choices and ranges are cryoplug's own.
"""

from __future__ import annotations

import shlex
from typing import Any, Iterable

from pyworkflow.protocol import LEVEL_ADVANCED, LEVEL_NORMAL, params

from cryoplug_scipion.described import Option

_CLASSES = {
    "path": params.PathParam,
    "integer": params.IntParam,
    "number": params.FloatParam,
    "choice": params.EnumParam,
    "flag": params.BooleanParam,
}
# Any other kind, such as a size in memory, is text.
_NOT_CHOSEN = "default"
"""First entry of a menu whose option may be left out."""


class _InRange(params.Conditional):
    """Check that a number is in the range that cryoplug allows; an empty field is always valid."""

    def __init__(self, option: Option) -> None:
        low, high = option.minimum, option.maximum
        sides = [text for text, side in ((f"from {low}", low), (f"to {high}", high)) if side is not None]
        super().__init__(f"is out of range (allowed: {' '.join(sides)})", allowsNull=True)
        self._low = float("-inf") if low is None else low
        self._high = float("inf") if high is None else high

    def _condition(self, value: float) -> bool:
        return self._low <= value <= self._high


def add_options(form: Any, options: Iterable[Option], *, expert: bool = False) -> None:
    """Add options to the current section of a form."""
    for option in options:
        more: dict[str, Any] = {}
        if option.kind == "choice":
            more = {"choices": list(choices(option)), "display": params.EnumParam.DISPLAY_COMBO}
        elif option.kind in ("integer", "number"):
            more = {"allowsNull": True}
            if option.minimum is not None or option.maximum is not None:
                more["validators"] = [_InRange(option)]
        form.addParam(
            option.attribute,
            _CLASSES.get(option.kind, params.StringParam),
            default=_default(option),
            label=_label(option),
            help=f"{option.help}\n\nOn the command line: {option.flag}",
            expertLevel=LEVEL_ADVANCED if expert else LEVEL_NORMAL,
            **more,
        )


def arguments(protocol: Any, options: Iterable[Option]) -> list[str]:
    """Give the words for fields that differ from cryoplug's defaults.

    A field at its default is left out, because some defaults depend on other options.
    """
    words: list[str] = []
    for option in options:
        value = protocol.getAttributeValue(option.attribute)
        if value is None or value == "" or value == _default(option):
            continue
        if option.kind == "flag":
            words.append(option.flag if value else option.off_flag)
        elif option.kind == "choice":
            chosen = choices(option)[value]
            words += [] if chosen == _NOT_CHOSEN else [option.flag, chosen]
        else:
            values = shlex.split(value) if option.repeated else [f"{value}"]
            words += [word for item in values for word in (option.flag, item)]
    return words


def choices(option: Option) -> tuple[str, ...]:
    """Give the entries of a menu; Scipion stores the index of the chosen one."""
    return option.choices if option.default is not None else (_NOT_CHOSEN, *option.choices)


def _default(option: Option) -> Any:
    if option.kind == "choice":
        return choices(option).index(_NOT_CHOSEN if option.default is None else option.default)
    if option.kind in ("integer", "number", "flag"):
        return option.default
    return "" if option.default is None else f"{option.default}"


def _label(option: Option) -> str:
    text = option.name.replace("-", " ")
    return text[0].upper() + text[1:] + (f" ({option.unit})" if option.unit else "")
