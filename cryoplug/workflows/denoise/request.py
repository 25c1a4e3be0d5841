"""What to denoise, with what, and where to."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from cryoplug.core.pixel_size import pixel_size_problems
from cryoplug.core.shard import Shard
from cryoplug.errors import UsageError, not_allowed
from cryoplug.inference.settings import ApplySettings, unsaid_identity
from cryoplug.machine.devices import device_name
from cryoplug.models.checkpoint import Checkpoint
from cryoplug.reports.page_name import page_name_problems

MAX_VOLTAGE_KV = 5000
MOST_PROCESSES = 64
"""Most processes on a GPU that anybody may ask for."""
PAGE_NAME = "report.html"
"""Name of the page in the output folder."""


@dataclass(frozen=True)
class DenoiseRequest(ApplySettings):
    """What to denoise, with which checkpoint, and where to write; the fields of `ApplySettings` say how."""

    inputs: tuple[str, ...]
    """Files, folders, patterns, STAR files and cryoSPARC datasets."""
    checkpoint: Path
    """Run folder, ``epoch_NNNN`` folder or founding folder."""
    output: Path
    """Folder for the denoised MRC files; made when missing."""
    star: Path | None = None
    """STAR file to write; None: do not write one."""
    voltage_kv: float | None = None
    """Acceleration voltage (kV) for a STAR file made from plain files; None: taken from the header, if it is there."""
    spherical_aberration_mm: float | None = None
    """Spherical aberration (mm) for a STAR file made from plain files; None: taken from the header, if it is there."""
    halves: bool = False
    """Denoise every exposure from its two halves and write their sum; both halves must be there."""
    even: tuple[str, ...] = ()
    """With `halves`: the even halves; empty: searched beside the inputs. With even and odd halves, `inputs` may be empty."""
    odd: tuple[str, ...] = ()
    """With `halves`: the odd halves."""
    pixel_size: float | None = None
    """Pixel size of all micrographs in angstrom, as the user states it; it overrides list and header."""
    gpu: tuple[int, ...] = ()
    """Numbers of GPUs, from 0, among those in CUDA_VISIBLE_DEVICES. One number is the same as ``cuda:N``; with several,
    each GPU gets processes of its own."""
    processes: int | None = None
    """Number of processes that share each GPU; None: as many as files, cores and memory allow, see
    `cryoplug.workflows.denoise.processes`."""
    float16: bool = False
    """Write float16 (mode 12) instead of float32."""
    shard: Shard | None = None
    """The part of the micrographs to work on; None: all. `merge` then writes the STAR file and the page of all parts."""
    overwrite: bool = False
    """Denoise finished micrographs again, and replace files with the same name from other sources."""
    watch: bool = False
    """Keep looking for new micrographs."""
    poll_s: float = 15.0
    """With `watch`: seconds between two looks for new files."""
    settle_s: float = 60.0
    """With `watch`: seconds for which the size and time of a file must not change before it is denoised."""
    idle_exit_s: float | None = None
    """With `watch`: end after this many seconds without a new file; None: go on until a signal comes."""
    previews: bool = True
    """Write a picture of each micrograph, raw, denoised and removed, into ``previews`` below the output folder."""
    report: Path | None = None
    """Path of the page of the run (HTML); None: ``report.html`` in the output folder, or no page without `previews`."""

    def __post_init__(self) -> None:
        for name in ("inputs", "even", "odd"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        super().__post_init__()

    def problems(self) -> Iterator[str]:
        """Give all mistakes of the request, as messages for the command line."""
        if not self.inputs and not self.even:
            yield "no input (allowed: files, folders, patterns, lists; or --halves with --even and --odd)"
        yield from super().problems()
        if self.pixel_size is not None:
            yield from pixel_size_problems(self.pixel_size)
        for name, value in (("poll", self.poll_s), ("settle", self.settle_s), ("idle-exit", self.idle_exit_s)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                yield f"--{name} {value} (allowed: seconds, 0 or more)"
        for flag, unit, value in (("--voltage", "kV", self.voltage_kv), ("--cs", "mm", self.spherical_aberration_mm)):
            if value is not None and self.star is None:
                yield f"{flag} belongs to --star; give both"
            if value is not None and not 0 < value < MAX_VOLTAGE_KV:
                yield f"{flag} {value} (allowed: {unit}, above 0)"
        if (self.even or self.odd) and not self.halves:
            yield "--even and --odd belong to --halves; give it too"
        if bool(self.even) != bool(self.odd):
            yield "--even and --odd belong together; give both"
        if self.halves and self.watch:
            yield "--halves with --watch: halves may come later than their micrograph; give one of the two"
        yield from page_name_problems(self.report)
        if self.shard is not None and self.watch:
            yield "--shard with --watch: commands that watch share a folder by themselves; leave --shard out"
        if self.idle_exit_s is not None and not self.watch:
            yield "--idle-exit belongs to --watch; give both"
        yield from self._gpu_problems()

    @property
    def settings(self) -> ApplySettings:
        """How to apply the checkpoint, and on which device; ``device`` and ``gpu`` together choose it."""
        return replace(super().settings, device=self.device_name)

    def identity(self, checkpoint: Checkpoint) -> dict[str, str]:
        """Give everything that determines the pixels of an output, except the input."""
        return {
            **super().identity(checkpoint),
            "dtype": self.dtype,
            "halves": "yes" if self.halves else "no",
            "pixel_size": "none" if self.pixel_size is None else f"{self.pixel_size:.10g}",
        }

    @property
    def page(self) -> Path | None:
        """Path of the page of the run; None: no page is written."""
        if self.report is not None:
            return self.report
        return self.output / PAGE_NAME if self.previews else None

    @property
    def device_name(self) -> str:
        """The device that ``device`` and ``gpu`` choose together; with several GPUs, the first."""
        return device_name(self.device, self.gpu[0] if self.gpu else None)

    @property
    def dtype(self) -> str:
        """Type of the pixels that are written."""
        return "float16" if self.float16 else "float32"

    def _gpu_problems(self) -> Iterator[str]:
        if self.processes is not None and not 1 <= self.processes <= MOST_PROCESSES:
            yield not_allowed("--processes", self.processes, f"1 to {MOST_PROCESSES}")
        elif self.processes is not None and self.processes > 1:
            if self.device == "cpu":
                yield f"--processes {self.processes} with --device cpu: they share a GPU; on a CPU, give --threads"
            if self.watch:
                yield (
                    f"--processes {self.processes} with --watch (allowed: 1); start so many such commands, with the same output "
                    "folder; they share the micrographs"
                )
        if len(self.gpu) > 1:
            shown = ",".join(map(str, self.gpu))
            if len(set(self.gpu)) < len(self.gpu):
                yield f"--gpu {shown} (allowed: each GPU once)"
            if self.device not in ("auto", "cuda"):
                yield f"--gpu {shown} and --device {self.device} name different devices; give one of them"
            if self.watch:
                yield (
                    f"--gpu {shown} with --watch (allowed: one GPU); start one such command for each GPU, with the "
                    "same output folder; the commands share the micrographs"
                )
        for number in self.gpu if len(self.gpu) == 1 else ():
            try:
                device_name(self.device, number)
            except UsageError as error:
                yield str(error)


@functools.cache
def unsaid() -> Mapping[str, str]:
    """Give the settings that an old record means but does not name, because they could not be chosen then."""
    defaults = {**unsaid_identity(), "dtype": "float32", "halves": "no", "pixel_size": "none"}
    return MappingProxyType(defaults)
