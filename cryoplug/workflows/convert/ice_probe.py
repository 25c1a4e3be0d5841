"""Find places without particles in a single exposure by the general model, and compare its noise there with its law."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cryoplug.core.micrograph import ArrayMicrograph, MicrographSource
from cryoplug.core.normalization import Normalization, fit_normalization
from cryoplug.metrics.micrograph_noise import MicrographNoise
from cryoplug.metrics.noise_in_ice import WINDOW_PX, IceSpectrum, checked_in_ice
from cryoplug.models.shipped import GENERAL, is_there

if TYPE_CHECKING:
    from typing import Self

    from cryoplug.inference.network.every_output import EveryOutput

_MOST_A_SIDE = 3
"""Most windows in each direction; nine take 3 s on two cores."""


class IceProbe:
    """Holds the general model, which finds places without particles.

    Parameters
    ----------
    network
        A network with the outputs image and particles.
    """

    def __init__(self, network: EveryOutput) -> None:
        self._network = network
        checkpoint = network.checkpoint
        self._normalize = checkpoint.normalize
        self._range = checkpoint.angpix_range or (0.0, np.inf)
        self._channels = tuple(checkpoint.spec.outputs.index(name) for name in ("image", "particles"))

    @classmethod
    def if_there(cls) -> Self | None:
        """Load the general model; None if this build has none."""
        if not is_there():
            return None
        # Here, because importing torch takes seconds that no other regime of convert needs.
        from cryoplug.inference.network.every_output import EveryOutput
        from cryoplug.models.checkpoint import load_checkpoint

        return cls(EveryOutput(load_checkpoint(GENERAL)))

    def checked_in_ice(
        self,
        noise: MicrographNoise,
        network: MicrographSource,
        normalization: Normalization,
        *,
        pixel_size_angstrom: float | None,
    ) -> tuple[MicrographNoise, str]:
        """Compare a law with places without particles; see `cryoplug.metrics.noise_in_ice.checked_in_ice`.

        Nothing is changed if the general model does not know the pixel size, or if the micrograph is too small.

        Parameters
        ----------
        noise
            The law.
        network
            The micrograph on the network's grid.
        normalization
            Normalization of the stored pixels.
        pixel_size_angstrom
            Pixel size of the network's grid; None if unknown.
        """
        side = min(WINDOW_PX, *network.shape)
        known = pixel_size_angstrom is not None and self._range[0] <= pixel_size_angstrom <= self._range[1]
        if pixel_size_angstrom is None or not known or side < WINDOW_PX // 2:
            return noise, ""
        windows = np.stack(
            [_window(network, y, x, side) for y in _starts(network, 0, side) for x in _starts(network, 1, side)]
        )
        own = fit_normalization(ArrayMicrograph(windows.reshape(-1, side), network.path), self._normalize)
        spectrum = IceSpectrum(pixel_size_angstrom)
        for window in windows:
            pixels = own.apply(window)
            outputs = self._network(pixels)
            spectrum.add(pixels, *(outputs[channel] for channel in self._channels))
        scale = own.scale / normalization.scale
        return checked_in_ice(noise, spectrum.found(), scale=scale, pixel_size_angstrom=pixel_size_angstrom)


def _window(source: MicrographSource, y: int, x: int, side: int) -> np.ndarray:
    return source.read_rows(y, y + side)[:, x : x + side]


def _starts(source: MicrographSource, axis: int, side: int) -> list[int]:
    """Give windows that do not overlap, evenly spread."""
    length = source.shape[axis]
    count = min(length // side, _MOST_A_SIDE)
    return [round((index + 0.5) * length / count - side / 2) for index in range(count)]
