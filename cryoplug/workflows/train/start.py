"""Where training starts: from random weights, or from a checkpoint, whose network is then trained further."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryoplug.core.fourier_crop import SAME_PIXEL_SIZE
from cryoplug.errors import UsageError
from cryoplug.models.checkpoint import Checkpoint, load_checkpoint
from cryoplug.models.one_output import image_alone
from cryoplug.models.shipped import is_general, start_of

if TYPE_CHECKING:
    from cryoplug.store.manifest import Manifest
    from cryoplug.workflows.train.request import TrainRequest

_UNCLIPPED = ("zscore", "robust")
"""Normalizations that give plain noise a deviation of one; on micrographs they differ a little."""


@dataclass(frozen=True, eq=False)
class Start:
    """The checkpoint that training starts from."""

    checkpoint: Checkpoint
    """The checkpoint, reduced to one output, the image."""
    sha256: str
    """Hash of all weights of the original checkpoint, with further outputs."""
    name: str
    """Its name, for messages."""

    @property
    def note(self) -> str:
        """The remark for the user."""
        dropped = "" if self.sha256 == self.checkpoint.sha256 else "; its output image is trained further"
        return f"starting from {self.name} sha256:{self.sha256[:12]}{dropped}"

    def details(self, manifest: Manifest | None) -> dict[str, Any]:
        """Give details for the new checkpoint; its hash is recorded with the training recipe.

        If the network knew a range of pixel sizes, it now knows that of the store best, so micrographs are cropped to it.
        """
        if self.checkpoint.angpix_range is None or manifest is None or manifest.pixel_size_angstrom is None:
            return {}
        return {"angpix": manifest.pixel_size_angstrom}


def started(request: TrainRequest) -> tuple[TrainRequest, Start | None]:
    """Load the checkpoint of ``--init``, and take its network and options, unless the user chose others.

    Raises
    ------
    UsageError
        Another network was asked for.
    InputError
        The checkpoint cannot be used.
    """
    from cryoplug.training.config import TrainConfig

    if request.init is None:
        return request, None
    named = load_checkpoint(start_of(request.init))
    name = "the small general model" if is_general(request.init) else str(request.init)
    start = Start(image_alone(named), named.sha256, name)
    config, model = request.config, named.model_id
    chosen = "model" in request.given or config.model != TrainConfig().model
    if chosen and config.model != model:
        raise UsageError(f"--init {request.init}: holds {model}, but --model is {config.model}; make them agree")
    options = config.model_options or start.checkpoint.config
    return dataclasses.replace(request, config=dataclasses.replace(config, model=model, model_options=options)), start


def check_store(start: Start, manifest: Manifest | None) -> None:
    """Refuse a store whose pixels are unlike those of the starting checkpoint; for bare bins this is not known.

    Raises
    ------
    UsageError
        They are normalised in another way, or their pixel size is outside its range.
    """
    if manifest is None:
        return
    trained, here = start.checkpoint.normalize, manifest.normalize
    if trained != here and not (trained in _UNCLIPPED and here in _UNCLIPPED):
        wanted = " or ".join(_UNCLIPPED) if trained in _UNCLIPPED else trained
        raise UsageError(
            f"--init: {start.name} learnt from micrographs normalised by {trained}, but those of this store are by {here}; "
            f"convert them with --normalize {wanted}"
        )
    sizes = start.checkpoint.angpix_range
    if sizes is None:
        return
    low, high = sizes[0] * (1 - SAME_PIXEL_SIZE), sizes[1] * (1 + SAME_PIXEL_SIZE)
    advice = f"convert them with --angpix {start.checkpoint.angpix:g}"
    knows = f"--init: {start.name} knows pixel sizes of {sizes[0]:g} to {sizes[1]:g} A"
    for entry in manifest.micrographs:
        size = entry.pixel_size_angstrom
        if size is None:
            raise UsageError(f"{knows}, but {entry.name} of this store has an unknown one; {advice} and --pixel-size")
        if not low <= size <= high:
            raise UsageError(f"{knows}, but {entry.name} of this store has {size:g} A; {advice}")
