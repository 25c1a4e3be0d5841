"""Write the command reference from the commands: ``python -m cryoplug.cli.reference > docs/commands.md``."""

from __future__ import annotations

import inspect

import click

from cryoplug.cli.main import COMMANDS, cli


def reference() -> str:
    """Return docs/commands.md: purpose and every option of every command, as ``--help`` shows them."""
    parts = [
        "# Commands\n",
        "Written from the commands' own help by `python -m cryoplug.cli.reference`; a test keeps it equal.\n",
        "Option names may be spelled with underscores, too. Results go to stdout, talk to stderr.\n",
    ]
    context = click.Context(cli, info_name="cryoplug", **cli.context_settings)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        parts += _section(command, f"cryoplug {name}", context)
    return "\n".join(parts)


def _section(command: click.Command, title: str, parent: click.Context) -> list[str]:
    context = click.Context(command, info_name=title.split()[-1], parent=parent)
    parts = [f"## {title}\n", "```", " ".join([title, *command.collect_usage_pieces(context)]), "```\n"]
    parts.append(inspect.cleandoc(command.help or "").replace("\b\n", "").replace("\f", "") + "\n")
    rows = [record for item in command.get_params(context) if (record := item.get_help_record(context))]
    if rows:
        parts += ["| option | meaning |", "|---|---|", *(f"| `{_cell(a)}` | {_text(b)} |" for a, b in rows), ""]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            parts += _section(child, f"{title} {name}", context)
    return parts


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _text(text: str) -> str:
    # Brackets that follow one another are a link in Markdown.
    return _cell(text).replace("] [", "] \\[")


if __name__ == "__main__":
    click.echo(reference(), nl=False)
