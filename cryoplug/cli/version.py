"""``cryoplug --version``: the version alone, or with ``--json`` everything that a result depends on."""

from __future__ import annotations

import platform
from typing import Any

import click

from cryoplug import __version__
from cryoplug.cli.output import echo_result

_AS_JSON = "cryoplug.version_as_json"


def show_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    """Print the version and end; click calls this."""
    if not wanted or ctx.resilient_parsing:
        return
    as_json = bool(ctx.meta.get(_AS_JSON))
    record = version_record() if as_json else None
    echo_result(record, as_json=as_json, type="version", text=f"cryoplug {__version__} (cryo-EM micrograph denoiser)")
    ctx.exit()


def remember_json(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> bool:
    """Remember that ``--version`` must write JSON; click calls this before `show_version`."""
    ctx.meta[_AS_JSON] = wanted
    return wanted


def version_record() -> dict[str, Any]:
    """Collect what a result depends on: versions, devices with their kernels, and the general model. Imports torch."""
    from cryoplug.models import shipped
    from cryoplug.models.checkpoint import load_checkpoint
    from cryoplug.workflows.inspect.system import inspect_system

    system = inspect_system().summary
    general = load_checkpoint(shipped.FOLDER) if shipped.is_there() else None
    return {
        "cryoplug": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **system,
        "general": None if general is None else {"model": general.model_id, "sha256": general.sha256},
    }
