"""Options that several commands share, each written once, and the command class that all of them use."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from cryoplug.cli.completion import complete_devices, complete_paths
from cryoplug.cli.output import quietly
from cryoplug.errors import UsageError
from cryoplug.inference.target import DEFAULT_TARGET, TARGETS
from cryoplug.metrics.baseline_names import BASELINES

F = TypeVar("F", bound=Callable[..., Any])


class Size(click.ParamType):
    """An amount of memory, as in ``2GB``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Give bytes."""
        from cryoplug.inference.network.memory_plan import parse_size

        try:
            return parse_size(str(value))
        except UsageError as error:
            self.fail(str(error), param, ctx)


_QUIET = "cryoplug.quiet"


def _keep_quiet(ctx: click.Context, _parameter: click.Parameter, quiet: bool) -> None:
    ctx.meta[_QUIET] = quiet


UNIVERSAL_OPTIONS: tuple[click.Parameter, ...] = (
    click.Option(
        ["-q", "--quiet"],
        is_flag=True,
        expose_value=False,
        callback=_keep_quiet,
        help="Print only results and errors.",
    ),
)
"""Options that every command has, also those of plugins; `CryoplugCommand` adds them, so no command declares them."""


HELP_FLAGS = ("-h", "--help")
"""Flags that show the help of the program and of every command."""


class CryoplugCommand(click.Command):
    """A command that accepts ``--quiet``, ``--val_split`` for ``--val-split``, and ``CRYOPLUG_COMMAND_FLAG`` for every flag.

    The founding program spelled its flags with underscores, and RELION builds them so too.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params += map(copy.copy, UNIVERSAL_OPTIONS)

    def get_help_option_names(self, ctx: click.Context) -> list[str]:
        """Name the flags of the help, in any context: click keeps the first answer for good."""
        return list(HELP_FLAGS)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; with ``--quiet``, print only results and errors."""
        with quietly(bool(ctx.meta.get(_QUIET))):
            return super().invoke(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Spell option names with hyphens, then parse; values and everything after ``--`` stay as they are."""
        for option in self.get_params(ctx):
            _name_variable(option, ctx.auto_envvar_prefix)
        known = {name for parameter in self.get_params(ctx) for name in (*parameter.opts, *parameter.secondary_opts)}
        end = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, [_hyphenated(token, known) for token in args[:end]] + args[end:])


def _name_variable(option: click.Parameter, prefix: str | None) -> None:
    # click makes the variable from the name of the Python argument: STORE_FORMAT, where the flag is --format.
    flag = max(option.opts, key=len).lstrip("-").replace("-", "_")
    if prefix and isinstance(option, click.Option) and option.envvar is None and flag != option.name:
        option.envvar = f"{prefix}_{flag.upper()}"


def _hyphenated(token: str, known: set[str]) -> str:
    name, equals, value = token.partition("=")
    spelled = name.replace("_", "-")
    return spelled + equals + value if name.startswith("--") and name not in known and spelled in known else token


def options_of(command: click.Command, *, without: Collection[str]) -> list[click.Parameter]:
    """Give the options of a command, unchanged, for another command that passes them on.

    Parameters
    ----------
    command
        One of cryoplug's own commands.
    without
        Names of the options that the other command sets itself.
    """
    # Copies: click writes into an option what it is called in the environment of its command.
    # A rehearsal is of the command that has it; the other one would not know how.
    its_own = {"dry_run", *(item.name for item in UNIVERSAL_OPTIONS)}
    return [copy.copy(item) for item in command.params if item.name not in {*without, *its_own}]


def json_option(command: F) -> F:
    """Add ``--json``, passed on as ``as_json``."""
    return json_switch("Write stdout as JSON lines, one record each.")(command)


def json_switch(help: str, **settings: Any) -> Callable[[F], F]:
    """Make ``--json``; the settings are click's."""
    return click.option("--json", "as_json", is_flag=True, help=help, **settings)


def dry_run_option(command: F) -> F:
    """Add ``--dry-run``."""
    return click.option(
        "--dry-run",
        is_flag=True,
        help="Check inputs, outputs and space, say what the run would do, and write nothing. The exit code is that of the run.",
    )(command)


def overwrite_option(command: F) -> F:
    """Add ``--overwrite``."""
    return click.option("--overwrite", is_flag=True, help="Redo and replace what an earlier run left.")(command)


def device_option(default: str = "auto") -> Callable[[F], F]:
    """Make ``--device``."""
    return click.option(
        "--device",
        default=default,
        show_default=True,
        metavar="auto|cpu|cuda[:N]",
        shell_complete=complete_devices,
        help="Where to compute.",
    )


def threads_option(command: F) -> F:
    """Add ``--threads``."""
    return click.option("--threads", type=int, default=0, help="CPU threads.  [default: all cores]")(command)


def precision_option(help: str, *, choices: Sequence[str]) -> Callable[[F], F]:
    """Make ``--precision`` of a network on a GPU."""
    return click.option("--precision", type=click.Choice(choices), default="auto", show_default=True, help=help)


def normalize_option(help: str, *, choices: Sequence[str], default: str | None = None) -> Callable[[F], F]:
    """Make ``--normalize``."""
    return click.option(
        "--normalize", type=click.Choice(choices), default=default, show_default=default is not None, help=help
    )


def angpix_option(help: str) -> Callable[[F], F]:
    """Make ``--angpix``: the pixel size that a network sees."""
    return click.option("--angpix", type=float, metavar="A", help=help)


_STATED = (
    "Pixel size of the micrographs, if list and header are wrong or do not say it. It beats the list; the list beats the "
    "header."
)


def pixel_size_option(
    help: str = _STATED,
    *,
    default: float | None = None,
) -> Callable[[F], F]:
    """Make ``--pixel-size``: the sampling of micrographs."""
    metavar = "A" if default is None else None
    return click.option(
        "--pixel-size", type=float, metavar=metavar, default=default, show_default=default is not None, help=help
    )


def patch_size_option(help: str, *, default: int | None = None) -> Callable[[F], F]:
    """Make ``--patch-size``."""
    return click.option("--patch-size", type=int, default=default, show_default=default is not None, help=help)


def seed_option(help: str) -> Callable[[F], F]:
    """Make ``--seed``."""
    return click.option("--seed", type=int, default=0, show_default=True, help=help)


def output_option(help: str, *, required: bool = True) -> Callable[[F], F]:
    """Make ``--output``."""
    return click.option("-o", "--output", type=click.Path(path_type=Path), required=required, help=help)


def star_option(help: str) -> Callable[[F], F]:
    """Make ``--star``."""
    return click.option("--star", type=click.Path(path_type=Path), help=help)


def report_option(help: str) -> Callable[[F], F]:
    """Make ``--report``: a page for a browser."""
    return click.option("--report", type=click.Path(path_type=Path), metavar="FILE", help=help)


def paths_option(flag: str, help: str) -> Callable[[F], F]:
    """Make an option that names files, and may be repeated."""
    return click.option(flag, multiple=True, metavar="PATH", shell_complete=complete_paths, help=help)


def clean_option(help: str) -> Callable[[F], F]:
    """Make ``--clean``: the truth."""
    return paths_option("--clean", help)


def even_option(help: str) -> Callable[[F], F]:
    """Make ``--even``: one half of each exposure."""
    return paths_option("--even", help)


def odd_option(help: str) -> Callable[[F], F]:
    """Make ``--odd``: the other half."""
    return paths_option("--odd", help)


def voltage_option(
    help: str, *, name: str = "voltage", default: float | None = None, metavar: str | None = None
) -> Callable[[F], F]:
    """Make ``--voltage``, in kilovolts."""
    return click.option(
        "--voltage", name, type=float, default=default, show_default=default is not None, metavar=metavar, help=help
    )


def spherical_aberration_option(
    help: str, *, name: str = "cs", default: float | None = None, metavar: str | None = None
) -> Callable[[F], F]:
    """Make ``--cs``, in millimetres."""
    return click.option(
        "--cs", name, type=float, default=default, show_default=default is not None, metavar=metavar, help=help
    )


def accept_unproven_option(help: str) -> Callable[[F], F]:
    """Make ``--accept-unproven``."""
    return click.option("--accept-unproven", is_flag=True, help=help)


def require_better_than_option(help: str) -> Callable[[F], F]:
    """Make ``--require-better-than``."""
    return click.option("--require-better-than", type=click.Choice(BASELINES), help=help)


APPLY_OPTIONS = (
    normalize_option(
        "Normalise this way, not as the checkpoint says; none applies the bare network.",
        choices=["percentile", "zscore", "robust", "none"],
    ),
    angpix_option(
        "Pixel size that the network sees; 0 is the micrograph's own.  [default: what it was trained at by convert --angpix]"
    ),
    click.option(
        "--target",
        type=click.Choice(TARGETS),
        help="What to write: the micrograph with its ice, or only what is not ice. Needs a network with both, such as the "
        "general model.  "
        f"[default: {DEFAULT_TARGET}]",
    ),
    click.option(
        "--strength",
        type=float,
        default=1.0,
        show_default=True,
        help="Part of the denoised image in the result, 0 to 1; the rest is raw.",
    ),
    click.option(
        "--merge-highres",
        type=float,
        metavar="A",
        help="Take detail finer than this resolution from the raw micrograph.",
    ),
    click.option(
        "--highpass",
        type=float,
        metavar="A",
        help="Remove everything larger than A angstrom (such as 1000) from the result.",
    ),
    click.option(
        "--lowpass", type=float, metavar="A", help="Remove detail finer than A angstrom (such as 20) from the result."
    ),
    click.option(
        "--output-angpix",
        type=float,
        metavar="A",
        help="Write the result at this coarser pixel size, for pickers and viewers.",
    ),
    device_option(),
    precision_option(
        "Type of numbers inside the network on a GPU. auto: float16 for normalised pixels and built-in networks.",
        choices=["auto", "float32", "float16", "bf16"],
    ),
    click.option(
        "--tta",
        type=click.Choice(["auto", "on", "off"]),
        default="auto",
        show_default=True,
        help="Average 8 orientations: better, but 8 times the network's time. auto: on a GPU, where --angpix crops first.",
    ),
    click.option("--tile", type=int, default=0, help="Side of a tile in pixels.  [default: automatic]"),
    threads_option,
    click.option(
        "--max-memory",
        "max_memory_bytes",
        type=Size(),
        metavar="SIZE",
        help="Most memory of the process on the CPU, such as 2GB; an estimate.",
    ),
)
"""One option for each field of `cryoplug.inference.settings.ApplySettings`, in the same order."""


def apply_options(command: F) -> F:
    """Add the options that say how a checkpoint is applied."""
    for option in reversed(APPLY_OPTIONS):
        command = option(command)
    return command


def applied_names() -> frozenset[str]:
    """Name the options that say how a checkpoint is applied; `denoise` and `evaluate` share them."""
    command = click.command()(apply_options(pixel_size_option()(lambda: None)))
    return frozenset(str(item.name) for item in command.params)
