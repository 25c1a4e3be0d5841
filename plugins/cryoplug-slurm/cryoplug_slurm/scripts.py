"""Batch scripts from templates: those of the plugin, or a copy that the user has changed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from cryoplug.errors import MissingInputError, UsageError

_FIELD = re.compile(r"@([A-Z_]+)@")


def template_text(name: str, path: Path | None = None) -> str:
    """Return a template.

    Parameters
    ----------
    name
        ``denoise``, ``merge`` or ``train``.
    path
        The user's own template; None: the template of the plugin.

    Raises
    ------
    MissingInputError
        `path` does not exist.
    """
    if path is None:
        return files("cryoplug_slurm").joinpath("templates", f"{name}.sbatch").read_text(encoding="utf-8")
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: not there; make one with: cryoplug slurm template {name} > {path}") from error


def filled(text: str, fields: Mapping[str, str], options: Sequence[str]) -> str:
    """Fill in a template: a word for each ``@FIELD@``, and a line ``#SBATCH`` for each option.

    Raises
    ------
    UsageError
        The template has an unknown field.
    """
    values = {**fields, "OPTIONS": "\n".join(f"#SBATCH {option}" for option in options)}
    unknown = sorted({name for name in _FIELD.findall(text) if name not in values})
    if unknown:
        shown = ", ".join(f"@{name}@" for name in unknown)
        raise UsageError(f"the template has {shown} (allowed: {', '.join(f'@{name}@' for name in sorted(values))})")
    return _FIELD.sub(lambda match: values[match[1]], text)
