"""What TAB offers for values: files, checkpoints with ``general``, networks, devices. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import CompletionItem

_GPUS = Path("/proc/driver/nvidia/gpus")


def complete_paths(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell offer files and folders."""
    return [CompletionItem(incomplete, type="file")]


def complete_checkpoints(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer ``general``, and the folders that the shell finds."""
    general = [CompletionItem("general")] if "general".startswith(incomplete) else []
    return [*general, *_folders(incomplete)]


def complete_devices(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer ``auto``, ``cpu``, ``cuda``, and the GPUs that the driver of this machine knows."""
    count = len(list(_GPUS.iterdir())) if _GPUS.is_dir() else 0
    names = ["auto", "cpu", "cuda", *(f"cuda:{number}" for number in range(count))]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def complete_models(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer cryoplug's networks and those that plugins name; no plugin is imported."""
    from cryoplug import extensions
    from cryoplug.models.registry import BUILT_IN

    names = {*(spec.id for spec in BUILT_IN), *(item.name for item in extensions.discover("models"))}
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


def _folders(incomplete: str) -> list[CompletionItem]:
    # Named here: next to a word of ours, bash offers no folders of its own.
    folder, _, start = incomplete.rpartition("/")
    above = f"{folder}/" if "/" in incomplete else ""
    try:
        found = sorted(item.name for item in Path(above or ".").iterdir() if item.is_dir())
    except OSError:
        return []
    return [CompletionItem(f"{above}{name}/") for name in found if name.startswith(start) and not name.startswith(".")]
