"""The command that a summary suggests at its end; it surely makes sense, and runs exactly as printed."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from pathlib import Path

import click
from click.core import ParameterSource

from cryoplug.cli.output import printable_name, say, say_next
from cryoplug.errors import CryoplugError

_FROM_GENERAL = ("--init", "general", "--minutes", "5")
"""Options for training from the small general model, if it knows such micrographs: the result comes sooner."""

_NONE_HELD_OUT = ("--val-split", "0")
"""Options for a store of halves or single exposures that is too small to hold anything out."""


def say_how_to_train(store: Path, pairs: str) -> None:
    """End ``convert`` with the command that trains on its store; say nothing if the store cannot be trained on.

    Parameters
    ----------
    store
        The store that was written.
    pairs
        ``--pairs``.
    """
    own = pairs in ("halves", "single")
    starts: tuple[tuple[str, ...], ...] = (_FROM_GENERAL, ()) if own else ((),)
    for words, held_out in itertools.product(starts, ((), _NONE_HELD_OUT) if own else ((),)):
        if _training_takes(store, init=Path(words[1]) if words else None, held_out=not held_out):
            say_next("convert", "train", store, *words, *held_out, "--save")
            return


def say_how_to_denoise(
    command: str, inputs: Sequence[str], checkpoint: Path, *, options: Sequence[object] = ()
) -> None:
    """End a command by suggesting the next one, which denoises with a checkpoint.

    Parameters
    ----------
    command
        The command that ends.
    inputs
        Its micrographs, as the user named them; if they are not known, a sentence says what to do.
    checkpoint
        ``general`` or a path.
    options
        Further words of the command.
    """
    words = ("--checkpoint", checkpoint, *options)
    if _are_there(inputs):
        say_next(command, "denoise", *inputs, *words, "-o", _unused("denoised"))
    else:
        say(f"{command}: next: cryoplug denoise, with your micrographs and --checkpoint {printable_name(checkpoint)}")


def given_options(context: click.Context, names: Collection[str]) -> list[str]:
    """Give the options that the user set (by flag, variable or file), to pass on to another command that has them, too."""
    words = []
    for item in context.command.params:
        if item.name in names and context.get_parameter_source(item.name) is not ParameterSource.DEFAULT:
            words += [max(item.opts, key=len), str(context.params[item.name])]
    return words


def _training_takes(store: Path, *, init: Path | None, held_out: bool) -> bool:
    from cryoplug.training.config import TrainConfig
    from cryoplug.workflows.train import TrainRequest, rehearse

    try:
        # On the CPU, so that torch is not asked for a GPU.
        config = TrainConfig(device="cpu") if held_out else TrainConfig(device="cpu", val_split=0.0)
        rehearse(TrainRequest(store, config, init=init, recipe="auto"))
    except CryoplugError:
        return False
    return True


def _are_there(inputs: Sequence[str]) -> bool:
    from cryoplug.inputs.discovery import discover

    try:
        return bool(inputs and discover(inputs))
    except CryoplugError:
        return False


def _unused(name: str) -> str:
    """Give a name for an output folder that does not exist yet."""
    names = (name, *(f"{name}_{number}" for number in range(2, 1000)))
    return next((text for text in names if not Path(text).exists()), name)
