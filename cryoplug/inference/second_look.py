"""Are the particles bright? Where the grey values leave it open, the network is asked: it finds dark particles in one sign."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cryoplug.metrics.appearance import LOPSIDED, Appearance
from cryoplug.models.checkpoint import Checkpoint

if TYPE_CHECKING:
    from cryoplug.inference.network.every_output import EveryOutput

DOUBTFUL = 3.0
"""Standard errors by which one block size must show bright particles, if it is not as lopsided as no noise is, before the network
is asked. One of 46 real micrographs did (3.3); inverted, 21 of 22 that show their particles. Of 60 simulated ones with dirt one
did; at 2 errors it would be four."""
MOST_ASKED = 8
"""Micrographs of a process for which it is asked: one microscope has one sign, and a question takes a second of one core."""
WINDOW_PX = 384
"""Side of each of the two windows that are asked about."""
TIMES = 2.0
"""Factor by which the inverted windows must give more particles (variance). Dark particles gave 2.2 to 900 times as much as the
same particles inverted, in 23 real micrographs."""
LEAST_PART = 0.003
"""Part of the variance that the inverted windows must give. Single frames gave at most 0.0003, in either sign."""


def bright_particles_found(found: Appearance, windows: Sequence[np.ndarray], checkpoint: Checkpoint) -> str:
    """Say that the network finds particles when the contrast is inverted, and hardly any as it is; empty if not.

    Of 47 real micrographs, inverted, grey values alone told 14, and the network 24 more. It told none of 70 as they were (23 of
    them single frames), and none of 120 simulated ones with dirt.

    Parameters
    ----------
    found
        The appearance of the windows.
    windows
        Normalised pixels ``(y, x)``, on the network's grid.
    checkpoint
        A checkpoint that tells particles from ice, and knows dark ones only.
    """
    if not any(value > min(DOUBTFUL * found.skewness_error[side], LOPSIDED) for side, value in found.skewness.items()):
        return ""
    return _network_of(checkpoint.sha256).ask(windows, checkpoint)


class _SecondLook:
    """The network of one checkpoint, as long as it is asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left = MOST_ASKED
        self._network: EveryOutput | None = None

    def ask(self, windows: Sequence[np.ndarray], checkpoint: Checkpoint) -> str:
        with self._lock:
            if not self._left:
                return ""
            self._left -= 1
            network = self._network or _loaded(checkpoint)
            self._network = network if self._left else None
        parts = [_central(window) for window in (windows[0], windows[-1])[: len(windows)]]
        channel = checkpoint.spec.outputs.index("particles")
        dark, bright = (
            float(np.mean([network(sign * part)[channel].var(dtype=np.float64) for part in parts])) for sign in (1, -1)
        )
        if not bright > max(TIMES * dark, LEAST_PART * float(np.mean([part.var(dtype=np.float64) for part in parts]))):
            return ""
        return (
            f"its contrast looks inverted: the network finds {100 * bright / (dark + bright):.0f} % of the particles when it is "
            "inverted, and the rest as it is; look at it, and invert it if so"
        )


@functools.lru_cache(maxsize=1)
def _network_of(sha256: str) -> _SecondLook:
    return _SecondLook()


def _loaded(checkpoint: Checkpoint) -> EveryOutput:
    # Here, because importing torch takes seconds, and `import cryoplug` must not.
    from cryoplug.inference.network.every_output import EveryOutput

    return EveryOutput(checkpoint)


def _central(window: np.ndarray) -> np.ndarray:
    top, left = (max(0, (side - WINDOW_PX) // 2) for side in window.shape)
    return window[top : top + WINDOW_PX, left : left + WINDOW_PX]
