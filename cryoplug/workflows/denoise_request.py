"""What to denoise, with what, and where to."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryoplug.core.normalization import KINDS
from cryoplug.errors import UsageError
from cryoplug.inference.devices import device_name
from cryoplug.inference.orientations import ASKED as TTA
from cryoplug.inference.precision import PRECISIONS
from cryoplug.inference.regrid import Regrid
from cryoplug.models.checkpoint import Checkpoint

MAX_ANGSTROM = 1e6
"""Longer lengths are no pixel sizes."""


@dataclass(frozen=True)
class DenoiseRequest:
    """What to denoise, with what, and where to."""

    inputs: tuple[str, ...]
    """Files, folders, patterns, STAR files and cryoSPARC datasets."""
    checkpoint: Path
    """Run folder, ``epoch_NNNN`` folder or founding folder."""
    output: Path
    """Folder for the denoised MRC files; made when missing."""
    star: Path | None = None
    """STAR file to write; None: none."""
    normalize: str | None = None
    """``percentile``, ``zscore`` or ``none``; None takes the checkpoint's own."""
    angpix: float | None = None
    """Pixel size in angstrom that the network sees; 0: the micrograph's own; None: what its training data were cropped
    to, or the micrograph's own."""
    strength: float = 1.0
    """Part of the denoised image in the result; the rest is raw."""
    merge_highres: float | None = None
    """Resolution in angstrom beyond which Fourier terms are raw; None: none are."""
    halves: bool = False
    """Denoise every exposure by its two halves, which must be at hand, and their sum."""
    even: tuple[str, ...] = ()
    """With `halves`: where the even halves are; else they are looked for beside the inputs. There need be no inputs then."""
    odd: tuple[str, ...] = ()
    """And the odd ones."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    gpu: tuple[int, ...] = ()
    """Numbers of GPUs among those that CUDA_VISIBLE_DEVICES shows, from 0. One is the same as ``cuda:N``; of several each
    gets a process of its own."""
    precision: str = "auto"
    """How exactly a GPU computes: ``auto``, ``float32``, ``float16`` or ``bf16``; see `cryoplug.inference.precision`."""
    tta: str = "auto"
    """Whether the network is asked in eight orientations: ``auto``, ``on`` or ``off``; see `cryoplug.inference.orientations`."""
    tile: int = 0
    """Side of a tile in pixels; 0 chooses."""
    threads: int = 0
    """CPU threads; 0 takes all cores."""
    max_memory_bytes: int | None = None
    """Memory of the process when it computes on the CPU; None: no limit."""
    float16: bool = False
    """Write float16 (mode 12) instead of float32."""
    overwrite: bool = False
    """Redo finished files, and replace files that came about in another way."""
    watch: bool = False
    """Go on looking for new micrographs."""
    poll_s: float = 15.0
    """Watching: seconds between two looks."""
    settle_s: float = 60.0
    """Watching: a micrograph is taken when its size and time have stood still for so many seconds."""
    idle_exit_s: float | None = None
    """Watching: end when nothing happened for so many seconds; None: go on until a signal comes."""

    def __post_init__(self) -> None:
        problems = []
        for name in ("inputs", "even", "odd"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.inputs and not self.even:
            problems.append("no input (allowed: files, folders, patterns, lists; or --halves with --even and --odd)")
        if self.normalize is not None and self.normalize not in KINDS:
            problems.append(f"--normalize {self.normalize!r} (allowed: {', '.join(KINDS)})")
        if self.angpix is not None and not (math.isfinite(self.angpix) and 0 <= self.angpix < MAX_ANGSTROM):
            problems.append(
                f"--angpix {self.angpix} (allowed: a pixel size in angstrom, or 0 for the micrograph's own)"
            )
        if not 0 <= self.strength <= 1:
            problems.append(f"--strength {self.strength} (allowed: 0 for raw to 1 for denoised)")
        resolution = self.merge_highres
        if resolution is not None and not (math.isfinite(resolution) and 0 < resolution < MAX_ANGSTROM):
            problems.append(f"--merge-highres {resolution} (allowed: a resolution in angstrom above 0)")
        if self.tile < 0:
            problems.append(f"--tile {self.tile} (allowed: 0 for automatic, or a side in pixels)")
        if self.threads < 0:
            problems.append(f"--threads {self.threads} (allowed: 0 for all cores, or a number)")
        if self.max_memory_bytes is not None and self.max_memory_bytes < 1:
            problems.append(f"--max-memory {self.max_memory_bytes} (allowed: above 0)")
        for name, value in (("poll", self.poll_s), ("settle", self.settle_s), ("idle-exit", self.idle_exit_s)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                problems.append(f"--{name} {value} (allowed: seconds, 0 or more)")
        if (self.even or self.odd) and not self.halves:
            problems.append("--even and --odd belong to --halves; give it too")
        if bool(self.even) != bool(self.odd):
            problems.append("--even and --odd belong together; give both")
        if self.halves and self.watch:
            problems.append("--halves with --watch: halves may come later than their micrograph; give one of the two")
        if self.idle_exit_s is not None and not self.watch:
            problems.append("--idle-exit belongs to --watch; give both")
        if self.precision not in PRECISIONS:
            problems.append(f"--precision {self.precision!r} (allowed: {', '.join(PRECISIONS)})")
        if self.tta not in TTA:
            problems.append(f"--tta {self.tta!r} (allowed: {', '.join(TTA)})")
        problems += self._gpu_problems()
        if problems:
            raise UsageError("; ".join(problems))

    @property
    def device_name(self) -> str:
        """What ``device`` and ``gpu`` say together; of several GPUs the first."""
        return device_name(self.device, self.gpu[0] if self.gpu else None)

    @property
    def dtype(self) -> str:
        """Type of the pixels that are written."""
        return "float16" if self.float16 else "float32"

    def _gpu_problems(self) -> Iterator[str]:
        if len(self.gpu) > 1:
            shown = ",".join(map(str, self.gpu))
            if len(set(self.gpu)) < len(self.gpu):
                yield f"--gpu {shown} (allowed: each GPU once)"
            if self.device not in ("auto", "cuda"):
                yield f"--gpu {shown} and --device {self.device} name different devices; give one of them"
            if self.watch:
                yield (
                    f"--gpu {shown} with --watch (allowed: one GPU); start one such command for each GPU, into the same "
                    "folder: each micrograph is done by one of them"
                )
        for number in self.gpu if len(self.gpu) == 1 else ():
            try:
                device_name(self.device, number)
            except UsageError as error:
                yield str(error)

    def regrid(self, checkpoint: Checkpoint) -> Regrid:
        """Say what is done around the network of a checkpoint."""
        return Regrid.of(checkpoint, angpix=self.angpix, strength=self.strength, merge_highres=self.merge_highres)
