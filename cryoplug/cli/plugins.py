"""The command ``cryoplug plugins``: which plugins are installed, and which of them are broken."""

from __future__ import annotations

from collections.abc import Mapping

import click

from cryoplug import extensions
from cryoplug.cli.options import CryoplugCommand, json_option
from cryoplug.cli.output import echo_result, printable_name, say


@click.group()
def plugins() -> None:
    """Say which plugins are installed and which are broken."""


@plugins.command("list", cls=CryoplugCommand)
@json_option
def list_plugins(as_json: bool) -> None:
    """List every command, model and format that plugins add.

    cryoplug imports each one to see whether it works. A broken one is shown with its reason, and hurts nothing else.
    CRYOPLUG_NO_PLUGINS=1 switches all plugins off.

    Example: cryoplug plugins list --json
    """
    if not extensions.enabled():
        say(f"plugins are switched off: {extensions.OFF_VARIABLE} is set")
        return
    found = loaded()
    if not found:
        say("no plugins are installed (docs/plugins.md says how one is written)")
    widths = [max((len(cell) for cell in column), default=0) for column in zip(*map(_cells, found), strict=True)]
    for extension in found:
        line = "  ".join(cell.ljust(width) for cell, width in zip(_cells(extension), widths, strict=True)).rstrip()
        reason = f"\n    {printable_name(extension.error)}" if extension.error else ""
        echo_result(extension, as_json=as_json, type="plugin", text=line + reason)


def loaded() -> list[extensions.Extension]:
    """Import every plugin and return all of them, each with its state."""
    # The registries come here and not to the top of the file: `cryoplug plugins --help` needs none of them.
    from cryoplug.cli.main import COMMANDS
    from cryoplug.formats.registry import FormatSpec, formats
    from cryoplug.models.registry import ModelSpec, models

    extensions.load_all("commands", expected=click.Command)
    extensions.load_all("models", expected=ModelSpec)
    extensions.load_all("formats", expected=FormatSpec)
    registries: dict[str, Mapping[str, object]] = {"models": models(), "formats": formats()}
    for extension in extensions.installed():
        if extension.state != "ok":
            continue
        if extension.group == "commands":
            taken = extension.name in COMMANDS
        else:
            taken = registries[extension.group].get(extension.name) is not extensions.load(extension)
        if taken:
            extensions.reject(extension, f"the name {extension.name!r} is cryoplug's own; rename it in the plugin")
    return extensions.installed()


def _cells(extension: extensions.Extension) -> tuple[str, ...]:
    source = f"{extension.distribution} {extension.version}".strip()
    return tuple(map(printable_name, (extension.name, extension.group, source, extension.state)))
