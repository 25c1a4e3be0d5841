"""What a convert is asked to do, checked before any file is opened."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryoplug.errors import UsageError
from cryoplug.store.manifest import DTYPES, PAIR_REGIMES
from cryoplug.store.pairs import FORMATS, store_target
from cryoplug.workflows.pairing import PairedInput

NORMALIZATIONS = ("percentile", "zscore")


@dataclass(frozen=True)
class ConvertRequest:
    """Micrographs in, a store of training pairs out."""

    inputs: tuple[str, ...]
    """Files, folders, globs and STAR files: the micrographs (``noise``) or the noisy ones (``clean``)."""
    output: Path
    """Folder of the store; for ``hdf5`` also a file name."""
    pairs: str = "noise"
    """``noise``: noise is added to each micrograph. ``clean``: a clean file for each. ``halves``: even and odd."""
    clean: tuple[str, ...] = ()
    """The clean micrographs."""
    even: tuple[str, ...] = ()
    """One half of each exposure; becomes the noisy side."""
    odd: tuple[str, ...] = ()
    """The other half; becomes the clean side."""
    format: str = "bin"
    """``bin`` or ``hdf5``."""
    dtype: str = "float32"
    """``float32``, or ``float16`` for half the bytes."""
    patch_size: int = 1024
    """Side of the square patches in pixels."""
    stride: int = 512
    """Pixels from one patch to the next, in y and in x."""
    normalize: str | None = None
    """``percentile`` or ``zscore``; None: percentile for noise, zscore for two files."""
    test_split: float = 0.1
    """Part of the micrographs, 0 to 1, whose patches are kept for testing."""
    seed: int = 0
    """Decides split and noise, not negative."""
    overwrite: bool = False
    """Replace a finished store."""
    threads: int = 0
    """Threads that make patches; 0: as many as there are CPUs, at most 4. The result does not depend on it."""

    def __post_init__(self) -> None:
        """Collect everything that is wrong and say it at once."""
        for name in ("inputs", "clean", "even", "odd"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "output", Path(self.output))
        problems = [
            f"{flag} is {value!r}; allowed: {', '.join(allowed)}"
            for flag, value, allowed in (
                ("--pairs", self.pairs, PAIR_REGIMES),
                ("--format", self.format, FORMATS),
                ("--dtype", self.dtype, DTYPES),
                ("--normalize", self.kind, NORMALIZATIONS),
            )
            if value not in allowed
        ]
        for flag, number, minimum in (
            ("--patch-size", self.patch_size, 1),
            ("--stride", self.stride, 1),
            ("--seed", self.seed, 0),
            ("threads", self.threads, 0),
        ):
            if number < minimum:
                problems.append(f"{flag} is {number}; allowed: {minimum} or more")
        if not (math.isfinite(self.test_split) and 0 <= self.test_split <= 1):
            problems.append(f"--test-split is {self.test_split}; allowed: 0 to 1")
        needed = {"noise": {"INPUT"}, "clean": {"INPUT", "--clean"}, "halves": {"--even", "--odd"}}.get(self.pairs)
        lists = {"INPUT": self.inputs, "--clean": self.clean, "--even": self.even, "--odd": self.odd}
        if needed is not None:
            for flag, values in lists.items():
                if flag in needed and not values:
                    problems.append(f"--pairs {self.pairs} needs {flag}")
                if flag not in needed and values:
                    problems.append(f"--pairs {self.pairs} does not use {flag}; leave it out or change --pairs")
        if not problems:
            store_target(self.output, self.format)
        if problems:
            raise UsageError("; ".join(problems))

    @property
    def kind(self) -> str:
        """The kind of normalization: as asked, else what suits the regime.

        The halves of an exposure are centred near zero, where the founding recipe's clip at 0 would cut half of the
        noise away and with it the reason why learning from halves works.
        """
        return self.normalize or ("percentile" if self.pairs == "noise" else "zscore")

    @property
    def target(self) -> Path:
        """The folder or file that is written."""
        return store_target(self.output, self.format)

    def identity(self, pairs: Iterable[PairedInput]) -> dict[str, Any]:
        """Return what decides the pixels of the store: options, and a digest of the inputs' names, sizes and times."""
        files = [[str(item.relative), *_state(item.path)] for pair in pairs for item in pair.files]
        return {
            "pairs": self.pairs,
            "dtype": self.dtype,
            "patch_size": self.patch_size,
            "stride": self.stride,
            "normalize": self.kind,
            "test_split": self.test_split,
            "seed": self.seed,
            "inputs": hashlib.sha256(json.dumps(files).encode()).hexdigest(),
        }


def _state(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return -1, -1  # Missing is a state too: once it is there, the request is another one.
    return status.st_size, status.st_mtime_ns
