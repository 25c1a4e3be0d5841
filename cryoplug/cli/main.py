"""The command ``cryoplug``: load only the subcommand asked for; every error is a sentence and an exit code."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from cryoplug.cli.options import HELP_FLAGS, json_switch
from cryoplug.cli.output import printable
from cryoplug.cli.version import remember_json, show_version
from cryoplug.errors import CryoplugError, OtherProcessError, ReaderGone, StorageError, UsageError
from cryoplug.machine.quick_import import import_quickly

COMMANDS = {
    "denoise": "Denoise micrographs.",
    "convert": "Pack micrographs into a store of noisy/clean training patches.",
    "train": "Train a network on a store and keep the best checkpoint.",
    "evaluate": "Say how good a denoiser is, with truth or with halves.",
    "inspect": "Say what a file is and what is wrong with it.",
    "merge": "Join the shards of a denoise run: one STAR file, one journal, one page.",
    "simulate": "Make micrographs with a known truth.",
    "config": "Write an example of a file for cryoplug --config.",
    "describe": "Write the options of a command as JSON, for other programs.",
    "plugins": "Say which plugins are installed and which are broken.",
    "cite": "Say how to cite cryoplug in a paper.",
}
"""Name and one line of help of each command, in the order of ``cryoplug --help``, which loads no command."""
CONFIG = "cryoplug.config"
"""Where click's context keeps the path of ``--config``, for plugins that start cryoplug again."""


class LazyGroup(click.Group):
    """A group that imports a command when it is called, and lets plugins add more."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the arguments; ``--help`` and ``--version`` print here."""
        with _output_is_read():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command."""
        with _output_is_read():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name cryoplug's own commands and those of the plugins."""
        return [*COMMANDS, *sorted(set(self._plugin_names()) - set(COMMANDS))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command; cryoplug's own names cannot be taken over by a plugin."""
        if cmd_name in COMMANDS:
            module = importlib.import_module(f"cryoplug.cli.{cmd_name}")
            return getattr(module, cmd_name)
        from cryoplug import extensions

        try:
            command = extensions.load_named("commands", cmd_name, expected=click.Command)
        except UsageError:
            if ctx.resilient_parsing:  # TAB asks for every command; a broken one must not spoil the others
                return None
            raise
        assert command is None or isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of the first argument; for a misspelt one, say which was meant."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            if not near or args[0].startswith("-"):
                raise
            raise click.UsageError(f"No such command {args[0]!r}. Did you mean {near[0]!r}?", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing one."""
        plugins = set(self._plugin_names()) - set(COMMANDS)
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))
        if plugins:
            with formatter.section("Commands from plugins"):
                formatter.write_dl([(name, "from a plugin; see: cryoplug plugins list") for name in sorted(plugins)])

    @staticmethod
    def _plugin_names() -> list[str]:
        from cryoplug import extensions

        return [item.name for item in extensions.discover("commands")]


@contextlib.contextmanager
def _output_is_read() -> Iterator[None]:
    # Before click sees it: click ends the process with a code of its own.
    try:
        yield
    except BrokenPipeError:
        raise ReaderGone from None


def _load_config(ctx: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    """Read defaults for the commands from a TOML file: one table a command, keys as the flags are spelled."""
    if path is None:
        return None
    import tomllib

    try:
        tables: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path}: not TOML ({error}); expected tables such as [denoise] with keys like the flags"
        ) from error
    assert isinstance(ctx.command, click.Group)
    ctx.default_map = _checked_tables(path, ctx.command, ctx, "", tables)
    ctx.meta[CONFIG] = path
    return path


def _checked_tables(
    path: Path, group: click.Group, ctx: click.Context, above: str, tables: dict[str, Any]
) -> dict[str, Any]:
    """Check one table for each command of a group, ``[plugins.list]`` for those of a group within it."""
    checked = {}
    for name, table in tables.items():
        command = group.get_command(ctx, name) if isinstance(table, dict) else None
        if command is None:
            allowed = ", ".join(group.list_commands(ctx))
            raise UsageError(f"{path}: {above}{name}: not a command's table; allowed: {allowed}")
        if isinstance(command, click.Group):
            checked[name] = _checked_tables(path, command, ctx, f"{above}{name}.", table)
        else:
            checked[name] = _checked_table(path, command, f"{above}{name}", table)
    return checked


def _checked_table(path: Path, command: click.Command, name: str, table: dict[str, Any]) -> dict[str, Any]:
    fields = {opt.lstrip("-").replace("-", "_"): item.name for item in command.params for opt in item.opts if item.name}
    unknown = sorted(key for key in table if key.replace("-", "_") not in fields)
    if unknown:
        raise UsageError(f"{path}: [{name}] {', '.join(unknown)}: unknown; allowed: {', '.join(sorted(fields))}")
    return {str(fields[key.replace("-", "_")]): value for key, value in table.items()}


@click.group(
    cls=LazyGroup,
    context_settings={
        "help_option_names": list(HELP_FLAGS),
        "auto_envvar_prefix": "CRYOPLUG",
        "max_content_width": 110,
    },
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    allow_from_autoenv=False,
    callback=show_version,
    help="Show the version; with --json also those of Python, torch, CUDA and the general model.",
)
@json_switch("With --version: as JSON.", is_eager=True, allow_from_autoenv=False, callback=remember_json)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=_load_config,
    help="TOML file with defaults, one table a command. Flags and CRYOPLUG_COMMAND_FLAG variables beat it.",
)
def cli(debug: bool, as_json: bool) -> None:
    """Denoise cryo-EM micrographs.

    Start with cryoplug denoise: the general model needs no training. To train on your own micrographs, run convert, then
    train --save, then denoise with --checkpoint. inspect says what is wrong with a file. Results go to stdout, talk to stderr.

    Exit codes: 0 done; 1 unexpected failure; 2 usage; 3 finished, but some inputs failed; 4 no usable input;
    5 storage; 6 training diverged; 7 memory or device; 8 the output is in use; 128+n stopped by signal n.
    """
    if as_json:
        raise UsageError(
            "--json stands behind the command, as in: cryoplug inspect --json FILE; alone it goes with --version"
        )


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _fill_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    import_quickly()
    sys.exit(run(arguments))


def _fill_closed_streams() -> None:
    """Open closed standard streams on the null device; else the next file that is opened receives the text for stderr."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))


def run(arguments: list[str]) -> int:
    """Run the command line and return its exit code; never raises for what a user can cause."""
    return guarded(lambda: cli.main(arguments, prog_name="cryoplug", standalone_mode=False), arguments)


def guarded(work: Callable[[], object], arguments: list[str], *, debug: bool = False) -> int:
    """Do the work of a command: every error becomes a sentence on stderr, and an exit code.

    Parameters
    ----------
    work
        Returns the exit code; anything but a number counts as 0.
    arguments
        The words after ``cryoplug``, for the error message.
    debug
        Show tracebacks; so does ``--debug`` among the arguments.
    """
    debug = debug or "--debug" in arguments
    first = not _is_follower(arguments)
    try:
        _check_working_folder()
        outcome = work()
        sys.stdout.flush()
        return outcome if isinstance(outcome, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        if first:
            error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _failure(arguments, "stopped by SIGINT", 130, debug)
    except OtherProcessError as error:
        return error.exit_code if error.said else _failure(arguments, str(error), error.exit_code, debug)
    except UsageError as error:
        return _failure(arguments, str(error), error.exit_code, debug) if first else error.exit_code
    except (ReaderGone, BrokenPipeError):
        _forget_what_nobody_reads()
        return ReaderGone().exit_code
    except CryoplugError as error:
        return _failure(arguments, str(error), error.exit_code, debug)
    except MemoryError as error:
        return _failure(arguments, f"out of memory ({error}); use a smaller --batch-size or --tile", 7, debug)
    except OSError as error:
        return _failure(arguments, f"{error.filename or 'storage'}: {error.strerror or error}", 5, debug)
    except Exception as error:  # noqa: BLE001 -- the last resort: a bug becomes a sentence and exit code 1
        if any(sign in str(error) for sign in _LIMITED):
            message = (
                f"no more memory or threads ({error}); give fewer --threads, or raise the limits that ulimit -a shows"
            )
            return _failure(arguments, message, 7, debug)
        message = f"unexpected {type(error).__name__}: {error}; this is a bug, --debug shows where"
        return _failure(arguments, message, 1, debug)


_LIMITED = ("can't start new thread", "failed to map segment from shared object")
"""What Python says if a limit on memory or processes stops a new thread or the loading of a library."""


def _forget_what_nobody_reads() -> None:
    """Send streams without a reader to the null device, so that Python's flush at the end prints no error."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _is_follower(arguments: list[str]) -> bool:
    """Say whether another process of the same training run reports a wrong command, so that this one stays silent."""
    return "train" in arguments and {"RANK", "MASTER_ADDR"} <= os.environ.keys() and os.environ["RANK"] != "0"


def _check_working_folder() -> None:
    # Some libraries that are loaded later end the process without a sentence when there is none.
    try:
        os.getcwd()  # noqa: PTH109
    except FileNotFoundError as error:
        raise StorageError("the working folder was deleted; change to another one and run again") from error


def _failure(arguments: list[str], message: str, exit_code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    click.echo(printable(f"{_called(arguments)}: error: {message}"), err=True)
    return exit_code


def _called(arguments: list[str]) -> str:
    """Give the command in words: ``cryoplug convert``, or that of a plugin, ``cryoplug relion convert``."""
    last = next((index for index, word in enumerate(arguments) if word in COMMANDS), None)
    if last is None:
        return "cryoplug"
    before = [] if any(word.startswith("-") for word in arguments[:last]) else arguments[:last]
    return " ".join(["cryoplug", *before, arguments[last]])
