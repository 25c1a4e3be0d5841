"""Check the inputs of a job before it waits in a queue for hours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def comes_later(sbatch: Sequence[str]) -> bool:
    """Tell whether a job waits for other jobs, which may still have to write its inputs."""
    return any(option.startswith(("--dependency", "-d")) for option in sbatch)


def micrographs_of(asked: Mapping[str, Any]) -> tuple[int, str]:
    """Find the micrographs of ``cryoplug denoise``, and read its checkpoint.

    Parameters
    ----------
    asked
        The parsed options of the command.

    Returns
    -------
    tuple
        The number of micrographs; and a remark if some named ones are missing.

    Raises
    ------
    CryoplugError
        The command would refuse them; with the same exit code.
    """
    from dataclasses import fields

    from cryoplug.errors import MissingInputError
    from cryoplug.models.checkpoint import load_checkpoint
    from cryoplug.workflows.denoise import DenoiseRequest
    from cryoplug.workflows.denoise.finding import find_micrographs

    known = {field.name for field in fields(DenoiseRequest)}
    request = DenoiseRequest(**{name: value for name, value in asked.items() if name in known})
    load_checkpoint(request.checkpoint)
    micrographs, _ = find_micrographs(request)
    missing = [item.path for item in micrographs if not item.path.exists()]
    if not missing:
        return len(micrographs), ""
    if len(missing) == len(micrographs):
        raise MissingInputError(f"{missing[0]}: not there; name files, folders, patterns or lists that are")
    return len(micrographs), f"{len(missing)} of {len(micrographs)} micrographs are not there, first {missing[0]}"


def look_at_store(asked: Mapping[str, Any]) -> None:
    """Open the store of ``cryoplug train``, and the checkpoint from which it starts.

    Parameters
    ----------
    asked
        The parsed options of the command.

    Raises
    ------
    CryoplugError
        They are not there, or damaged.
    """
    from cryoplug.cli.train import training_data
    from cryoplug.models.checkpoint import load_checkpoint
    from cryoplug.store.pairs import open_store

    store = training_data(asked["data"], asked["data_dir"])
    with open_store(store, patch_size=asked["patch_size"], crop_size=asked["crop_size"]):
        pass
    if asked["init"] is not None:
        load_checkpoint(asked["init"])
