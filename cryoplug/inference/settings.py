"""How a checkpoint is applied to an image: the settings that `denoise`, `evaluate` and the Python API share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cryoplug
from cryoplug.core.normalization import KINDS
from cryoplug.core.pixel_size import MAX_ANGSTROM
from cryoplug.errors import UsageError, not_allowed
from cryoplug.inference.network.orientations import ASKED as TTA
from cryoplug.inference.network.precision import PRECISIONS
from cryoplug.inference.regrid import Regrid
from cryoplug.inference.target import ONLY_TARGET, TARGETS, choose_target
from cryoplug.machine.devices import device_problems, thread_problems

if TYPE_CHECKING:
    from cryoplug.models.checkpoint import Checkpoint

LABEL_BYTES = 80
"""Length of a label in an MRC header."""
LEAST_HASH = 8
"""Least digits of a checkpoint's hash in a label; 12 if there is room."""
WITHOUT_EFFECT = frozenset({"device", "tile", "threads", "max_memory_bytes"})
"""Fields that only decide where and how fast; the pixels do not depend on them, to rounding."""


@dataclass(frozen=True, kw_only=True)
class ApplySettings:
    """How a checkpoint is applied; the requests of `denoise` and `evaluate` have these fields, too.

    A new option needs three places, and its use: its field and its check here, its help line in `cryoplug.cli.options`, and its
    argument in Python in `cryoplug.verbs.applied`. The records of finished outputs compare a field, unless it is named in
    `WITHOUT_EFFECT`.

    Raises
    ------
    UsageError
        Something is out of range; all problems are named.
    """

    normalize: str | None = None
    """``percentile``, ``zscore``, ``robust`` or ``none`` (the bare network); None takes the checkpoint's own."""
    angpix: float | None = None
    """Pixel size in angstrom that the network sees; 0 is the micrograph's own; None is that to which the training data were
    cropped, else the micrograph's own."""
    target: str | None = None
    """Output of the network for the result, ``image`` or ``particles``; None: see `cryoplug.inference.target`."""
    strength: float = 1.0
    """Part of the denoised image in the result, 0 to 1; the rest is raw."""
    merge_highres: float | None = None
    """Fourier terms finer than this resolution (angstrom) are taken from the raw micrograph; None takes none."""
    highpass: float | None = None
    """Remove everything larger than this (angstrom) from the result, except for the mean; at this size half of the amplitude
    passes. None removes nothing."""
    lowpass: float | None = None
    """Remove everything finer than this (angstrom) from the result, in the same way. None removes nothing."""
    output_angpix: float | None = None
    """Pixel size in angstrom of the grid to which the result is cropped; None keeps the micrograph's own."""
    device: str = "auto"
    """``auto`` (the first GPU, else the CPU), ``cpu``, ``cuda`` or ``cuda:N``."""
    precision: str = "auto"
    """Precision on a GPU: ``auto``, ``float32``, ``float16`` or ``bf16``; see `cryoplug.inference.network.precision`."""
    tta: str | bool = "auto"
    """Whether to average over eight orientations: ``auto``, ``on`` (or True), ``off`` (or False); see
    `cryoplug.inference.network.orientations`."""
    tile: int = 0
    """Side of a tile in pixels; 0 is automatic. The result does not depend on it, to float32 rounding."""
    threads: int = 0
    """CPU threads; 0 takes every core that this process may use."""
    max_memory_bytes: int | None = None
    """Most memory of the process when it computes on the CPU; see `cryoplug.inference.network.memory_plan`. None for no limit."""

    def __post_init__(self) -> None:
        if isinstance(self.tta, bool):
            object.__setattr__(self, "tta", "on" if self.tta else "off")
        problems = list(self.problems())
        if problems:
            raise UsageError("; ".join(problems))

    def problems(self) -> Iterator[str]:
        """List everything that is out of range, in the words of the command line."""
        if self.normalize is not None and self.normalize not in KINDS:
            yield not_allowed("--normalize", self.normalize, ", ".join(KINDS))
        if self.angpix is not None and not (math.isfinite(self.angpix) and 0 <= self.angpix < MAX_ANGSTROM):
            yield not_allowed("--angpix", self.angpix, "a pixel size in angstrom, or 0 for the micrograph's own")
        if self.target is not None and self.target not in TARGETS:
            yield not_allowed("--target", self.target, ", ".join(TARGETS))
        if not 0 <= self.strength <= 1:
            yield not_allowed("--strength", self.strength, "0 for raw to 1 for denoised")
        for flag, length, allowed in (
            ("--merge-highres", self.merge_highres, "a resolution in angstrom above 0"),
            ("--highpass", self.highpass, "angstrom, above 0"),
            ("--lowpass", self.lowpass, "angstrom, above 0"),
            ("--output-angpix", self.output_angpix, "angstrom, above 0"),
        ):
            if length is not None and not (math.isfinite(length) and 0 < length < MAX_ANGSTROM):
                yield not_allowed(flag, length, allowed)
        if self.highpass is not None and self.lowpass is not None and not self.lowpass < self.highpass:
            yield (
                f"--highpass {self.highpass:g} removes what is larger and --lowpass {self.lowpass:g} what is finer, so nothing "
                "is left (allowed: a low-pass below the high-pass, as in --highpass 1000 --lowpass 20)"
            )
        yield from device_problems(self.device)
        if self.precision not in PRECISIONS:
            yield not_allowed("--precision", self.precision, ", ".join(PRECISIONS))
        if self.tta not in TTA:
            yield not_allowed("--tta", self.tta, ", ".join(TTA))
        if self.tile < 0:
            yield not_allowed("--tile", self.tile, "0 for automatic, or a side in pixels")
        yield from thread_problems(self.threads)
        if self.max_memory_bytes is not None and self.max_memory_bytes < 1:
            yield not_allowed("--max-memory", self.max_memory_bytes, "above 0")

    @property
    def settings(self) -> ApplySettings:
        """These fields alone, without the other fields of a request."""
        return ApplySettings(**{item.name: getattr(self, item.name) for item in dataclasses.fields(ApplySettings)})

    def regrid(self, checkpoint: Checkpoint) -> Regrid:
        """Give the processing before and after the network of a checkpoint."""
        return Regrid.of(
            checkpoint,
            angpix=self.angpix,
            strength=self.strength,
            merge_highres_angstrom=self.merge_highres,
            highpass_angstrom=self.highpass,
            lowpass_angstrom=self.lowpass,
            output_angstrom=self.output_angpix,
        )

    def identity(self, checkpoint: Checkpoint) -> dict[str, str]:
        """Give everything, except for the input, on which the pixels of a result depend, as texts to record and compare."""
        return {
            "checkpoint_sha256": checkpoint.sha256,
            **_texts(self),
            "normalize": self.normalize or checkpoint.normalize,
            "angpix": self.regrid(checkpoint).shown_angpix,
            "target": choose_target(self.target, checkpoint),
        }

    def introduction(self, checkpoint: Checkpoint) -> str:
        """Say in a line which network is applied and how, if the user named none; else empty."""
        if not checkpoint.is_general:
            return ""
        regrid = self.regrid(checkpoint)
        at = "the micrograph's own pixel size" if regrid.angpix is None else f"{regrid.angpix:g} A/px"
        if regrid.angpix_range is not None:
            at += f", or at the micrograph's own {regrid.angpix_range[0]:g} to {regrid.angpix_range[1]:g} A/px"
        target = choose_target(self.target, checkpoint)
        return f"general model sha256:{checkpoint.sha256[:12]} writes the {target}; it works at {at}"

    def label(
        self, checkpoint: Checkpoint, *, precision: str, tta: bool, dtype: str = "float32", halves: bool = False
    ) -> str:
        """Write the label of an MRC file (80 bytes), which says how the image was made.

        Parameters
        ----------
        checkpoint
            The checkpoint that was applied.
        precision, tta
            The values in use, after ``auto`` was decided.
        dtype
            Type of the written pixels.
        halves
            Whether the halves of the exposure went through the network, too.
        """
        angpix = self.regrid(checkpoint).angpix
        start = f"cryoplug {cryoplug.__version__} {checkpoint.model_id} sha256:"
        target = choose_target(self.target, checkpoint)
        parts = [
            f" {target}" if target != ONLY_TARGET else "",
            f" {angpix:g}A/px" if angpix else "",
            f" hp{self.highpass:g}A" if self.highpass else "",
            f" lp{self.lowpass:g}A" if self.lowpass else "",
            f" to {self.output_angpix:g}A/px" if self.output_angpix else "",
            f" {dtype}" if dtype != "float32" else "",
            f" computed in {precision}" if precision != "float32" else "",
            " tta" if tta else "",
            " halves" if halves else "",
        ]
        room = LABEL_BYTES - len(start) - sum(map(len, parts))
        return start + checkpoint.sha256[: max(LEAST_HASH, min(12, room))] + "".join(parts)


def unsaid_identity() -> dict[str, str]:
    """Give the values that `ApplySettings.identity` has in older records, from before there was a choice: the defaults."""
    return {**_texts(ApplySettings()), "target": ONLY_TARGET}


def _texts(settings: ApplySettings) -> dict[str, str]:
    names = [item.name for item in dataclasses.fields(ApplySettings) if item.name not in WITHOUT_EFFECT]
    return {name: _text(getattr(settings, name)) for name in names}


def _text(value: object) -> str:
    if value is None:
        return "none"
    return f"{value:.10g}" if isinstance(value, float) else str(value)
