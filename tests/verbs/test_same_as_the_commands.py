"""The verbs of Python are the commands: the same options and defaults, and each option asks for the same."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click
import pytest

import cryoplug
from cryoplug.cli.description import OptionDescription, describe
from cryoplug.cli.main import cli
from cryoplug.errors import CryoplugError
from cryoplug.verbs import choices

COMMANDS = {
    "denoise": ["a.mrc", "-o", "out"],
    "evaluate": ["a_EVN.mrc", "-o", "out"],
    "simulate": ["-o", "out", "--count", "1", "--size", "64"],
}
VERBS: dict[str, Callable[..., object]] = {
    "denoise": lambda **options: cryoplug.denoise("a.mrc", "out", **options),
    "evaluate": lambda **options: cryoplug.evaluate("a_EVN.mrc", "out", **options),
    "simulate": lambda **options: cryoplug.simulate("out", **{"count": 1, "size": 64, **options}),
}
ONLY_IN_PYTHON = {
    "progress": "the command shows it on stderr",
    "note": "the same",
    "pixel_size_angstrom": "of an array, whose pixel size nothing else tells; another name of pixel_size",
}
ONLY_ON_THE_COMMAND_LINE = {
    "json": "Python has the records themselves",
    "dry_run": "it is a function of the workflow, rehearse",
    "quiet": "Python says nothing unless it is asked to",
}
OF_A_TYPE_OF_ITS_OWN = {
    "gpu": ("0,1", (0, 1)),
    "shard": ("1/4", "1/4"),
    "max_memory": ("2GB", "2GB"),
    "device": ("cuda:0", "cuda:0"),
}
"""A value on the command line, and the same in Python."""


def options_of(command: str) -> dict[str, OptionDescription]:
    """Give the options that Python has, too, by their names in Python."""
    declared = cli.get_command(click.Context(cli), command)
    assert declared is not None
    found = {item.name.replace("-", "_"): item for item in describe(declared).options}
    return {name: item for name, item in found.items() if name not in ONLY_ON_THE_COMMAND_LINE}


def another_value(name: str, option: OptionDescription) -> tuple[list[str], object]:
    """Give words for the command line that set an option, and the same value for Python."""
    flag = option.flags[-1]
    if name in OF_A_TYPE_OF_ITS_OWN:
        return [flag, OF_A_TYPE_OF_ITS_OWN[name][0]], OF_A_TYPE_OF_ITS_OWN[name][1]
    if option.kind == "flag":
        return [option.off_flags[0] if option.default else flag], not option.default
    if option.kind == "choice":
        return [flag, option.choices[-1]], option.choices[-1]
    if option.values == 2:
        return [flag, "1", "2"], (1.0, 2.0)
    if option.kind in ("integer", "number"):
        return [flag, "3"], 3 if option.kind == "integer" else 3.0
    return [flag, "x.html"], "x.html"


@pytest.mark.parametrize("command", sorted(VERBS))
def test_a_verb_has_the_options_of_its_command_and_their_defaults(command: str) -> None:
    parameters, options = inspect.signature(getattr(cryoplug, command)).parameters, options_of(command)
    assert set(parameters) - set(ONLY_IN_PYTHON) - {"inputs"} == set(options)
    for name, option in options.items():
        default: Any = parameters[name].default
        if option.required:
            assert default is (None if command == "denoise" else inspect.Parameter.empty), "an array has no output"
        elif option.default is None:  # which stands for no value, or for none of several
            assert default in (None, (), 0), name
        else:
            assert default == option.default, name


@pytest.mark.parametrize("command", sorted(VERBS))
def test_a_choice_offers_in_an_editor_what_the_command_allows(command: str) -> None:
    parameters = inspect.signature(getattr(cryoplug, command)).parameters
    chosen = {name: item.choices for name, item in options_of(command).items() if item.kind == "choice"}
    for name, allowed in chosen.items():
        hint = parameters[name].annotation.split(" |")[0]
        assert get_args(getattr(choices, hint)) == allowed, name
    assert chosen


@pytest.mark.parametrize("command", sorted(VERBS))
def test_every_parameter_of_a_verb_is_explained(command: str) -> None:
    text = inspect.getdoc(getattr(cryoplug, command)) or ""
    listed = text.partition("Parameters\n---")[2].partition("Returns\n---")[0]
    names = [name for line in re.findall(r"(?m)^(\w[\w, ]*)$", listed) for name in line.split(", ")]
    assert sorted(names) == sorted(inspect.signature(getattr(cryoplug, command)).parameters)
    assert all(f"{section}\n---" in text for section in ("Returns", "Raises", "Examples"))


@pytest.mark.parametrize("command", sorted(VERBS))
def test_an_option_asks_for_the_same_in_python_as_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)

    class Caught(Exception):
        pass

    def catch(request: object, *others: object, **named: object) -> None:
        raise Caught(request)

    def asked(call: Callable[[], object]) -> object:
        try:
            call()
        except Caught as caught:
            return caught.args[0]
        except CryoplugError as error:
            return type(error), str(error)
        raise AssertionError("it did not come to its workflow")

    monkeypatch.setattr(f"cryoplug.workflows.{command}.{command}", catch)
    tried: dict[str, tuple[list[str], dict[str, object]]] = {"": ([], {})}
    for name, option in options_of(command).items():
        if name != "output":
            words, value = another_value(name, option)
            tried[name] = words, {name: value}
    requests = []
    for name, (words, keywords) in tried.items():
        by_command = asked(lambda: cli.main([command, *COMMANDS[command], *words], standalone_mode=False))  # noqa: B023
        in_python = asked(lambda: VERBS[command](**keywords))  # noqa: B023
        assert by_command == in_python, name
        requests += [by_command] if dataclasses.is_dataclass(by_command) else []
    assert len(requests) > len(tried) / 2 and len(set(map(repr, requests))) == len(requests), "each option matters"
