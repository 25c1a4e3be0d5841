"""The request of a conversion, checked before any file is opened."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cryoplug.core.pixel_size import pixel_size_problems
from cryoplug.disk.file_state import file_content
from cryoplug.errors import UsageError, not_allowed
from cryoplug.inputs.movies.halves import MovieInput
from cryoplug.inputs.pairing import PairedInput
from cryoplug.models.shipped import fingerprint
from cryoplug.store.manifest import DTYPES, MAX_PIXEL_SIZE, PAIR_REGIMES
from cryoplug.store.pairs import FORMATS, store_target

STORES = ("patches", "whole")
NORMALIZATIONS = ("percentile", "zscore", "robust")
AUTO = "auto"
"""The data decide the normalization; see `cryoplug.workflows.convert.grey_scales`."""


def usual_patch_size(store: str) -> int:
    """Give the usual side of patches in pixels, for a store of ``patches`` or of ``whole`` micrographs."""
    return 256 if store == "whole" else 1024


@dataclass(frozen=True)
class ConvertRequest:
    """Micrographs in, a store of training pairs out."""

    inputs: tuple[str, ...]
    """Files, folders, globs and STAR files. ``noise`` and ``single``: the micrographs; ``clean``: the noisy ones;
    ``halves``: movies, or micrographs with halves beside them."""
    output: Path
    """Folder of the store; for ``hdf5`` also a file name."""
    pairs: str = "noise"
    """Where pairs come from. ``noise``: noise is added to each micrograph. ``clean``: a clean file for each. ``halves``: even
    and odd halves. ``single``: only the micrographs; training adds noise with the spectrum measured in each."""
    clean: tuple[str, ...] = ()
    """The clean micrographs."""
    even: tuple[str, ...] = ()
    """Even halves, for the noisy side."""
    odd: tuple[str, ...] = ()
    """Odd halves, for the clean side."""
    gain: Path | None = None
    """Gain reference; frames of movies are multiplied by it."""
    defects: Path | None = None
    """Bad pixels of movies: a list ``x y w h``, or an image that is 0 where pixels are good."""
    accept_unproven: bool = False
    """Whether to accept pairs that share no signal; else they are refused."""
    format: str = "bin"
    """Format of the store: ``bin`` or ``hdf5``."""
    store: str = "patches"
    """``patches``, which may overlap; or ``whole``: each micrograph once, in which training cuts patches anywhere."""
    dtype: str = "float32"
    """``float32``, or ``float16`` for half the bytes."""
    patch_size: int | None = None
    """Side of the square patches in pixels; None lets the data decide, see `cryoplug.workflows.convert.patch_fit`."""
    stride: int | None = None
    """Pixels from one patch to the next, in y and in x; None is half a patch."""
    angpix: float | None = None
    """Pixel size in angstrom to which every micrograph is Fourier-cropped; None does not crop."""
    pixel_size: float | None = None
    """Pixel size of all micrographs in angstrom, as the user states it: it beats list and header (`cryoplug.core.pixel_size`)."""
    normalize: str | None = AUTO
    """``percentile``, ``zscore``, ``robust``, or ``auto`` (the same as None): with ``noise`` the data decide, see
    `cryoplug.workflows.convert.grey_scales`; else zscore."""
    test_split: float = 0.1
    """Part of the micrographs, 0 to 1, whose patches are kept for testing."""
    seed: int = 0
    """Random seed of split and noise, not negative."""
    overwrite: bool = False
    """Whether to replace a finished store."""
    threads: int = 0
    """Threads that make patches; 0 takes one for each CPU, at most 4. The result does not depend on it."""

    def __post_init__(self) -> None:
        """Collect all problems, and raise one error."""
        for name in ("inputs", "clean", "even", "odd"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "output", Path(self.output))
        for name in ("gain", "defects"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else Path(value))
        problems = [
            not_allowed(flag, value, ", ".join(allowed))
            for flag, value, allowed in (
                ("--pairs", self.pairs, PAIR_REGIMES),
                ("--format", self.format, FORMATS),
                ("--store", self.store, STORES),
                ("--dtype", self.dtype, DTYPES),
                ("--normalize", self.normalize or AUTO, (AUTO, *NORMALIZATIONS)),
            )
            if value not in allowed
        ]
        for flag, number, minimum in (
            ("--patch-size", self.patch_size, 1),
            ("--stride", self.stride, 1),
            ("--seed", self.seed, 0),
            ("threads", self.threads, 0),
        ):
            if number is not None and number < minimum:
                problems.append(not_allowed(flag, number, f"{minimum} or more"))
        if self.angpix is not None and not (math.isfinite(self.angpix) and 0 < self.angpix < MAX_PIXEL_SIZE):
            problems.append(not_allowed("--angpix", self.angpix, "a pixel size in angstrom above 0, or not given"))
        if self.pixel_size is not None:
            problems += pixel_size_problems(self.pixel_size)
        if not (math.isfinite(self.test_split) and 0 <= self.test_split <= 1):
            problems.append(not_allowed("--test-split", self.test_split, "0 to 1"))
        problems += self._wrong_lists()
        if self.pairs == "single" and self.kind not in ("zscore", "robust"):
            problems.append(
                f"--normalize {self.kind} cuts noise off, which --pairs single must not (allowed: zscore, robust); leave it out"
            )
        if not problems:
            store_target(self.output, self.format)
        if problems:
            raise UsageError("; ".join(problems))

    def _wrong_lists(self) -> list[str]:
        lists = {"INPUT": self.inputs, "--clean": self.clean, "--even": self.even, "--odd": self.odd}
        if self.pairs == "halves" and self.inputs and (self.even or self.odd):
            return ["--pairs halves takes INPUT (movies, or micrographs with halves beside them) or --even and --odd"]
        if self.pairs != "halves" and (self.even or self.odd):
            return [f"--even and --odd go with --pairs halves, not with --pairs {self.pairs}"]
        if self.pairs != "clean" and self.clean:
            return [f"--clean goes with --pairs clean, not with --pairs {self.pairs}"]
        separate = self.pairs == "halves" and bool(self.even or self.odd)
        needed = {"--even", "--odd"} if separate else {"INPUT", "--clean"} if self.pairs == "clean" else {"INPUT"}
        problems = [f"--pairs {self.pairs} needs {flag}" for flag in lists if flag in needed and not lists[flag]]
        unused = [flag for flag, values in lists.items() if values and flag not in needed]
        if self.pairs != "halves" or separate:
            unused += [f"--{name}" for name in ("gain", "defects") if getattr(self, name) is not None]
        named = f"--pairs {self.pairs}{' with --even and --odd' if separate else ''}"
        return problems + [f"{named} does not use {flag}; leave it out or change --pairs" for flag in unused]

    @property
    def patch_px(self) -> int:
        """Side of the patches in pixels; the usual one while none is chosen."""
        return usual_patch_size(self.store) if self.patch_size is None else self.patch_size

    @property
    def stride_px(self) -> int:
        """Pixels from one patch to the next."""
        return max(1, self.patch_px // 2) if self.stride is None else self.stride

    @property
    def kind(self) -> str:
        """Kind of normalization: as asked; else the usual one for the kind of pairs, until pixels have been looked at.

        The halves of an exposure are centred near zero. The founding recipe's clip at 0 would cut away half of their noise,
        and then learning from halves would not work.
        """
        if self.normalize not in (None, AUTO):
            return self.normalize
        return "percentile" if self.pairs == "noise" else "zscore"

    @property
    def target(self) -> Path:
        """The folder or file to write."""
        return store_target(self.output, self.format)

    def identity(self, pairs: Iterable[PairedInput], exposures: Sequence[int] = ()) -> dict[str, Any]:
        """Return everything that decides the pixels of the store.

        Parameters
        ----------
        pairs
            The inputs; names, sizes and times of their files count (as a digest).
        exposures
            For each input, the number of its exposure, if several belong to one; training never splits those.
        """
        files = []
        state = cache(file_content)  # a stack is asked for once, not for every section
        for pair in pairs:
            files += [[str(item.relative), *state(item.path)] for item in pair.files]
            if isinstance(pair, MovieInput) and (motion := pair.motion_path) is not None:
                files.append(["motion", *state(motion)])
        cropped = {} if self.angpix is None else {"angpix": float(self.angpix)}
        if self.pixel_size is not None:
            cropped["pixel_size"] = float(self.pixel_size)
        # Patches that training cuts have no stride.
        kept = {"stride": self.stride_px} if self.store == "patches" else {"store": self.store}
        given = {name: path for name in ("gain", "defects") if (path := getattr(self, name)) is not None}
        return {
            **{name: [path.name, *file_content(path)] for name, path in given.items()},
            **cropped,
            "pairs": self.pairs,
            "dtype": self.dtype,
            "patch_size": self.patch_px,
            **kept,
            "normalize": self.kind,
            "test_split": self.test_split,
            "seed": self.seed,
            "inputs": hashlib.sha256(json.dumps(files).encode()).hexdigest(),
            **({"exposures": list(exposures)} if exposures else {}),
            **({"general": fingerprint()} if self.pairs == "single" else {}),
        }
