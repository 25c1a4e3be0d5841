"""The models that come with the package: the general one, its name and card, and a small one to begin training with."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cryoplug.disk.checked_input import read_limited
from cryoplug.errors import InputError, StorageError, UsageError
from cryoplug.models.epoch_folders import SAFETENSORS_NAME

GENERAL = "general"
"""Its name, wherever a checkpoint is expected. A folder of this name must be written ``./general``, or as a longer path."""
FOLDER = Path(__file__).parent / GENERAL
"""Folder of its files, in a source tree and in an installed package."""
CARD_NAME = "MODEL_CARD.md"
_START_NAME = "start"
_MAX_CARD_BYTES = 1 << 20
_NOT_HERE = (
    "this build of cryoplug has no general model; give --checkpoint (or, for train, --init) with a folder that cryoplug "
    "train has made"
)


def is_general(checkpoint: Path | str) -> bool:
    """Say whether a name means the general model."""
    return str(checkpoint) == GENERAL


def named_checkpoint(name: str | Path) -> Path:
    """Give the path of a checkpoint as a user named it: ``general`` is the model of the package, ``./general`` a folder.

    `Path` makes both the same, so the second one becomes absolute. A `Path("general")` means the model.
    """
    path = Path(name)
    return path.absolute() if is_general(path) and not is_general(name) else path


def is_there() -> bool:
    """Say whether this build contains the weights of the general model."""
    return (FOLDER / SAFETENSORS_NAME).is_file()


def fingerprint() -> str:
    """Give 12 hex digits that identify the weights; empty if this build has none."""
    if not is_there():
        return ""
    return hashlib.sha256((FOLDER / SAFETENSORS_NAME).read_bytes()).hexdigest()[:12]


def path_of(checkpoint: Path | str) -> Path:
    """Give the path of the folder that a checkpoint's name stands for.

    Parameters
    ----------
    checkpoint
        ``general``, or a path. ``Path("./general")`` is the same as ``Path("general")``; the text ``"./general"`` is not.

    Raises
    ------
    UsageError
        The name means the general model, and this build has none.
    """
    if not is_general(checkpoint):
        return Path(checkpoint)
    if not is_there():
        raise UsageError(_NOT_HERE)
    return FOLDER


def start_of(checkpoint: Path | str) -> Path:
    """Give the folder of the checkpoint that training begins with: for ``general``, the small general model.

    It has learnt from the same simulated fields as the general model, but has the shape that the recipe for halves trains from
    nothing. So it makes twice as many steps in a minute; see docs/decisions/0020-training-further-keeps-the-image.md.

    Parameters
    ----------
    checkpoint
        As for `path_of`.

    Raises
    ------
    UsageError
        The name means the general model, and this build has no small one.
    """
    if not is_general(checkpoint):
        return Path(checkpoint)
    if not (start_folder() / SAFETENSORS_NAME).is_file():
        raise UsageError(_NOT_HERE)
    return start_folder()


def start_folder() -> Path:
    """Give the folder of the small general model, which training begins with."""
    return FOLDER / _START_NAME


def namesake_note() -> str:
    """Warn that a folder in the working directory is called ``general``; empty if there is none."""
    if not Path(GENERAL).is_dir():
        return ""
    return "general means the model of the package; the folder of that name here is ./general"


def card_facts() -> dict[str, str]:
    """Read the rows of the first table in the model card, ``| fact | what |``; empty without a card or a table."""
    try:
        text = read_limited(FOLDER / CARD_NAME, _MAX_CARD_BYTES).decode("utf-8", "replace")
    except (InputError, StorageError):
        return {}
    facts: dict[str, str] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.lstrip().startswith("|"):
            if facts:
                break
            continue
        if all(set(cell) <= set("-: ") for cell in cells):
            facts.clear()  # What stood above this line were the titles of the columns.
        elif len(cells) == 2 and cells[0]:
            facts[cells[0]] = cells[1]
    return facts
