"""Read the arguments that RELION writes: ``--o DIR [--in_mics STAR ...] [--LABEL VALUE ...] --j N OTHER_ARGS``.

The labels come from ten pairs of fields in the GUI. An empty field gives a flag without a value. A flag may also have the
value Yes or No, as in RELION's own job files.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from cryoplug.cli.options import CryoplugCommand

_YES, _NO = {"yes", "true", "1", "on"}, {"no", "false", "0", "off"}
_UNUSED_INPUTS = ("--in_parts", "--in_coords", "--in_3dref", "--in_mask")
"""Input fields of an External job that cryoplug does not use."""
_MAY_BE_EMPTY = ("--gpu",)
"""Options that may be empty; in RELION, an empty GPU number means that the program chooses."""


class RelionCommand(CryoplugCommand):
    """A command that takes the arguments that RELION writes."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Turn the arguments that RELION writes into the usual form, then parse them."""
        options = {name: item for item in self.get_params(ctx) for name in (*item.opts, *item.secondary_opts)}
        return super().parse_args(ctx, _usual_form(args, options))

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show the form that RELION writes."""
        formatter.write_usage(ctx.command_path, "--o DIR/ --in_mics STAR [--LABEL VALUE]... [--j N]")


def job_options() -> list[click.Parameter]:
    """Make the options that every job has."""
    folder = click.Path(path_type=Path)
    return [
        click.Option(
            ["--o", "-o", "--output", "folder"],
            type=folder,
            required=True,
            metavar="DIR",
            help="Folder of the job; RELION makes it.",
        ),
        click.Option(["--in_mics", "--in-mics", "in_mics"], metavar="STAR", help="RELION: Input micrographs."),
        click.Option(["--in_movies", "--in-movies", "in_movies"], metavar="STAR", help="RELION: Input movies."),
        *(
            click.Option(
                [name, name.replace("_", "-")],
                hidden=True,
                expose_value=False,
                callback=_refuse,
                help="A field of RELION's External job that must stay empty here.",
            )
            for name in _UNUSED_INPUTS
        ),
        click.Option(["--j", "threads"], type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads."),
        click.Option(
            ["--pipeline_control", "--pipeline-control"],
            hidden=True,
            expose_value=False,
            help="RELION adds it to commands in which relion_ occurs; it names the same folder as --o.",
        ),
    ]


def gpu_option() -> click.Parameter:
    """Make ``--gpu`` for a command that does not have it."""
    return click.Option(
        ["--gpu"],
        type=click.IntRange(min=0),
        metavar="N",
        help="GPU N of CUDA_VISIBLE_DEVICES, from 0: --device cuda:N.",
    )


def given_by_user(context: click.Context, names: Collection[str]) -> frozenset[str]:
    """Tell which options were set: on the command line, by the environment, or by a file."""
    return frozenset(name for name in names if context.get_parameter_source(name) is not ParameterSource.DEFAULT)


def _usual_form(args: list[str], options: dict[str, click.Parameter]) -> list[str]:
    form: list[str] = []
    words = list(args)
    while words:
        word = words.pop(0)
        name, option = _option(word, options)
        if option is None or "=" in word:
            form.append(word)
        elif getattr(option, "is_flag", False):
            answer = words[0].lower() if words else ""
            if answer in _YES | _NO:
                words.pop(0)
            form += [name] if answer not in _NO else _opposite(name, option)
        elif words and _option(words[0], options)[1] is None:
            form += [word, words.pop(0)]
        elif name not in _MAY_BE_EMPTY:
            raise click.UsageError(f"{word} has no value; fill in the field beside it, or clear both (tab Params)")
    return form


def _option(word: str, options: dict[str, click.Parameter]) -> tuple[str, click.Parameter | None]:
    name = word.partition("=")[0]
    spelled = name if name in options else name.replace("_", "-")
    return spelled, options.get(spelled) if name.startswith("-") else None


def _opposite(name: str, option: click.Parameter) -> list[str]:
    """Give the flag for No (``--no-shuffle``); none if leaving the flag out means No."""
    return (option.opts if name in option.secondary_opts else option.secondary_opts)[:1]


def _refuse(_context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is not None:
        raise click.UsageError(
            f"{parameter.opts[0]} {value}: this job does not use it; leave this field of the job empty"
        )
