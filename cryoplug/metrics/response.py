"""What a network does to each spatial frequency: its effective frequency response."""

from __future__ import annotations

import numpy as np

from cryoplug.core.micrograph import ImageF32
from cryoplug.metrics.rings import Curve, Rings, spectrum


class FrequencyResponse:
    """Which part of each spatial frequency a denoiser lets through, over images of one shape.

    X are the Fourier terms of the input, Y those of the output. In every ring the response is
    ``sum Re(Y conj X) / sum |X|^2``: the gain of the linear filter that is most like the denoiser on these images. But a
    network is not a filter: because it can separate signal from noise, it keeps more signal than a filter could.
    """

    def __init__(self) -> None:
        self._rings: Rings | None = None
        self._crossed: Curve = np.zeros(0)
        self._power: Curve = np.zeros(0)

    def add(self, before: ImageF32, after: ImageF32) -> None:
        """Add an input and an output of the denoiser, ``(y, x)``, in the same unit."""
        if self._rings is None:
            self._rings = Rings.of((before.shape[0], before.shape[1]))
            self._crossed, self._power = np.zeros(len(self._rings.count)), np.zeros(len(self._rings.count))
        x, y = spectrum(before), spectrum(after)
        self._crossed += self._rings.cross(y, x)
        self._power += self._rings.cross(x, x)

    def curve(self) -> tuple[Curve, Curve]:
        """Give frequencies and gain.

        Returns
        -------
        frequency, gain
            Rings from the first to 0.5 cycles per pixel. Gain 1: unchanged; 0: removed; NaN if the input has no power there.
            Empty if nothing was added.
        """
        if self._rings is None:
            return np.zeros(0), np.zeros(0)
        shown = self._rings.to_nyquist
        with np.errstate(divide="ignore", invalid="ignore"):
            gain = np.where(self._power > 0, self._crossed / self._power, np.nan)
        return self._rings.frequency[shown], gain[shown]
