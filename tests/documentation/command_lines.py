"""The command lines of cryoplug in a piece of text, and whether the commands would take them."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import import_module

import click

from cryoplug.cli.main import cli
from cryoplug.errors import CryoplugError

from .blocks import ROOT

_BEFORE = {
    "srun",
    "torchrun",
    "time",
    "nohup",
    "exec",
    "apptainer",
    "singularity",
    "docker",
    "sudo",
    "do",
    "then",
    "if",
    "while",
    "!",
}
"""Words that a command line of cryoplug may stand behind."""
_SEPARATORS = re.compile(r"[;&|()<>]+")
_REDIRECTION = re.compile(r"(?<=\s)\d*(?:>>?|<)(?:&\d|\s*[^\s;|&)]+)")


def command_lines(script: str) -> list[list[str]]:
    """Give the words behind ``cryoplug`` of each of its calls in a shell script, those within ``$(...)`` included."""
    joined = re.sub(r"\\\n\s*", " ", script)
    within = re.findall(r"\$\((cryoplug [^)]*)\)", joined)
    return [words for line in [*joined.splitlines(), *within] for words in _calls(line)]


def _calls(line: str) -> Iterator[list[str]]:
    if "cryoplug" not in line:
        return
    lexer = shlex.shlex(_REDIRECTION.sub("", line), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    part: list[str] = []
    for word in [*lexer, ";"]:
        if not _SEPARATORS.fullmatch(word):
            part.append(word)
            continue
        part = list(_without_variables(part))
        starts = [number for number, item in enumerate(part) if item == "cryoplug" or item.endswith("/bin/cryoplug")]
        if starts and (starts[0] == 0 or part[0] in _BEFORE or part[starts[0] - 1] == "-m"):
            yield part[starts[0] + 1 :]
        part = []


def _without_variables(words: list[str]) -> Iterator[str]:
    for number, word in enumerate(words):
        if not re.match(r"[A-Z_]+=", word):
            yield from words[number:]
            return


def complaint(words: list[str]) -> str:
    """Say why cryoplug would refuse a command line; empty when it would not.

    The command reads its words as ever, and stops before it does anything.
    """
    try:
        _read(cli, "cryoplug", words, click.Context(cli, info_name="cryoplug", **cli.context_settings))
    except click.exceptions.Exit:  # --help, --version
        return ""
    except click.ClickException as error:
        return f"cryoplug {shlex.join(words)}: {error.format_message()}"
    except CryoplugError as error:
        return f"cryoplug {shlex.join(words)}: {error}"
    return ""


def _read(command: click.Command, name: str, words: list[str], parent: click.Context) -> None:
    context = command.make_context(name, list(words), parent=parent)
    rest = [*context._protected_args, *context.args]
    if isinstance(command, click.Group) and rest:
        child = _child(command, context, rest[0])
        if child is None:
            command.resolve_command(context, rest)  # says what was meant
        else:
            _read(child, rest[0], rest[1:], context)


def unknown_options(words: list[str]) -> list[str]:
    """Give the options of an incomplete command line that its command does not have; or the command that is not there."""
    context = click.Context(cli, info_name="cryoplug")
    command: click.Command | None = cli
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        command = _child(command, context, rest.pop(0))
    if command is None:
        return [" ".join(words)]
    known = options_of(command)
    return [word for word in rest if word.startswith("--") and word.partition("=")[0] not in known]


def options_of(command: click.Command) -> set[str]:
    """Give every spelling of a command's options, ``--help`` too."""
    listed = {flag for item in command.params for flag in (*item.opts, *item.secondary_opts) if flag.startswith("-")}
    return listed | {"--" + flag[2:].replace("-", "_") for flag in listed} | {"--help"}


def all_options() -> set[str]:
    """Give every option of every command, those of the plugins in this repository too."""
    return {option for _, command in all_commands() for option in options_of(command)}


def all_commands() -> Iterator[tuple[str, click.Command]]:
    """Give every command with the words that call it, ``cryoplug`` itself and those of the plugins in this repository too."""
    context = click.Context(cli, info_name="cryoplug")
    plugins = [(f"cryoplug {name}", _plugin(name)) for name in _plugin_commands()]
    todo: list[tuple[str, click.Command]] = [("cryoplug", cli), *plugins]
    while todo:
        called, command = todo.pop()
        yield called, command
        if isinstance(command, click.Group):
            children = [(name, command.get_command(context, name)) for name in command.list_commands(context)]
            todo += [(f"{called} {name}", child) for name, child in children if child is not None]


def examples_of(command: click.Command) -> list[str]:
    """Give the examples in the help of a command, a line each."""
    found = re.findall(r"(?ms)^\s*Example: (.*?)(?:\n\s*\n|\Z)", command.help or "")
    return [" ".join(text.split()) for text in found]


def _child(group: click.Group, context: click.Context, name: str) -> click.Command | None:
    if group is cli and name in _plugin_commands():
        return _plugin(name)
    return group.get_command(context, name)


@cache
def _plugin_commands() -> dict[str, tuple[str, str]]:
    """Give the commands that plugins/ would bring if they were installed: name, folder, and entry point."""
    found = {}
    for path in sorted(ROOT.glob("plugins/*/pyproject.toml")):
        points = tomllib.loads(path.read_text(encoding="utf-8"))["project"].get("entry-points", {})
        found |= {name: (str(path.parent), target) for name, target in points.get("cryoplug.commands", {}).items()}
    return found


@cache
def _plugin(name: str) -> click.Command:
    folder, target = _plugin_commands()[name]
    module, _, attribute = target.partition(":")
    sys.path.insert(0, folder)
    try:
        command = getattr(import_module(module), attribute)
    finally:
        sys.path.remove(folder)
    assert isinstance(command, click.Command)
    return command
