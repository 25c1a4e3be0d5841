"""The option that names a checkpoint: ``general`` is the model of the package, everything else a path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from cryoplug.cli.completion import complete_checkpoints, complete_paths
from cryoplug.cli.options import F


class CheckpointPath(click.ParamType):
    """A folder of weights, or ``general``; ``./general`` is a folder of that name in the working directory."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Give the path; it means the general model only if the user wrote exactly ``general``."""
        from cryoplug.models.shipped import named_checkpoint

        return named_checkpoint(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer ``general`` and folders; also files, where the option takes them."""
        if isinstance(param, click.Argument):
            return complete_paths(ctx, param, incomplete)
        return complete_checkpoints(ctx, param, incomplete)


def checkpoint_option(help: str, *, default: str | None = None) -> Callable[[F], F]:
    """Make ``--checkpoint``."""
    return click.option(
        "--checkpoint", type=CheckpointPath(), default=default, show_default=default is not None, help=help
    )
