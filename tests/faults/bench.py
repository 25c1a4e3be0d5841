"""What the faults are tried on: simulated micrographs, a store, a checkpoint and undisturbed results, made once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from faults.process import Finished, Running, Surroundings
from faults.soundness import digests
from warm_start import WarmStart

MICROGRAPHS = 6
"""Number of micrographs."""
SIDE_PX = 512
"""Their side."""
PATCH_PX = 64
"""Side of the patches of the store, without overlap."""
CONVERT = ("--patch-size", str(PATCH_PX), "--stride", str(PATCH_PX))
"""Options that the store was made with."""
TRAIN = ("--save", "--epochs", "3", "--batch-size", "16", "--max-batches", "8")
"""Options of the undisturbed run of training."""


class Bench:
    """Makes everything in `root`; no row may change it.

    Parameters
    ----------
    root
        An empty folder.
    warm
        Where processes are forked from; None: each of them starts like a user's.
    """

    def __init__(self, root: Path, warm: WarmStart | None = None) -> None:
        self.root = root
        self.warm = warm
        self.micrographs = root / "sim" / "noisy"
        self.star = root / "sim" / "micrographs.star"
        self.store = root / "store"
        self.runs = root / "models"
        self.checkpoint = self.runs / "cryo_cnn"
        self.denoised = root / "denoised"
        self._cryoplug(["simulate", "-o", "sim", "--count", str(MICROGRAPHS), "--size", str(SIDE_PX)])
        self._cryoplug(["convert", "sim/noisy", "-o", "store", *CONVERT])
        self._cryoplug(["train", "store", *TRAIN, "--checkpoint-dir", "models"])
        self._cryoplug(["denoise", "sim/noisy", "--checkpoint", "models/cryo_cnn", "-o", "denoised"])
        good = self._cryoplug(["inspect", "sim/noisy/mic_0001.mrc"])
        self.inspect_work_s, self.inspect_mb = good.work_s, good.peak_mb
        self.reference = digests(self.denoised, "*.mrc")
        """SHA-256 of each undisturbed result."""
        self.all_digests = digests(root)

    def _cryoplug(self, words: Sequence[str]) -> Finished:
        done = Running(words, self.root / f"log-{words[0]}", Surroundings(folder=self.root), self.warm).finish()
        if done.code:
            raise SystemExit(f"cryoplug {' '.join(words)}: exit code {done.code}\n{done.stderr}")
        return done
