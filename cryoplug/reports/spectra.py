"""Power spectra for people: raw on the left, denoised on the right, with rings at round resolutions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cryoplug.core.micrograph import MicrographSource
from cryoplug.outputs.pictures import grey_bytes, jpeg
from cryoplug.reports.svg import Axis, Series, line_chart, resolutions

SIDE_PX = 512
"""Side in pixels of the windows whose power is averaged, and of the picture; less for smaller micrographs."""
_MOST_WINDOWS = 12
_SHOWN_BELOW = 1e-4
"""Power below that of the raw micrograph times this is not drawn."""


@dataclass(frozen=True, eq=False)
class PowerSpectrum:
    """Mean power of Hann windows that are spread over an image."""

    power: npt.NDArray[np.float64]
    """Power density ``(y, x)``, with frequency 0 in the middle: grey values squared times square angstrom (times pixels, where
    their size is unknown). So an image has the same power on a coarser grid."""
    pixel_size_angstrom: float | None
    """Pixel size of the image; None if unknown."""

    def rings(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Give the frequencies of rings in cycles per pixel, and the mean power in each."""
        side = len(self.power)
        steps = np.arange(side) - side // 2
        ring = np.rint(np.hypot(steps[:, None], steps[None])).astype(int)
        inside = ring <= side // 2
        sums, counts = (np.bincount(ring[inside], part[inside]) for part in (self.power, np.ones_like(self.power)))
        return np.arange(len(sums)) / side, sums / counts


def power_spectrum(source: MicrographSource, pixel_size_angstrom: float | None) -> PowerSpectrum | None:
    """Average the power of windows spread over a micrograph; None if it is too small."""
    height, width = source.shape
    side = min(SIDE_PX, 2 ** int(np.log2(max(1, min(height, width)))))
    if side < 32:
        return None
    window = np.hanning(side + 1)[:side]
    taper = (window[:, None] * window[None]).astype(np.float32)
    most = max(1, int(np.sqrt(_MOST_WINDOWS)))
    total, count = np.zeros((side, side // 2 + 1)), 0
    for y in _starts(height, side, most):
        rows = source.read_rows(y, y + side)
        for x in _starts(width, side, most + 1):
            block = rows[:, x : x + side]
            terms = np.fft.rfft2((block - block.mean(dtype=np.float64)).astype(np.float32) * taper)
            total += terms.real**2 + terms.imag**2
            count += 1
    full = np.concatenate([total, total[np.r_[0, side - 1 : 0 : -1]][:, side // 2 - 1 : 0 : -1]], axis=1)
    area = (pixel_size_angstrom or 1.0) ** 2
    density = full * (area / (count * float((taper.astype(np.float64) ** 2).sum())))
    return PowerSpectrum(np.fft.fftshift(density), pixel_size_angstrom)


def split_spectrum(raw: PowerSpectrum, denoised: PowerSpectrum) -> bytes:
    """Draw the left half of one spectrum and the right half of the other as a JPEG: logarithms, on one grey scale.

    What a coarser grid cannot hold is black in the right half.
    """
    side = len(raw.power)
    split = np.concatenate([raw.power[:, : side // 2], _at_frequencies_of(raw, denoised)[:, side // 2 :]], axis=1)
    floor = max(float(split.max()) * 1e-30, 1e-300)
    logs = np.log10(np.maximum(split, floor))
    raw_logs = np.log10(np.maximum(raw.power, floor))
    low, high = (float(value) for value in np.percentile(raw_logs, [2, 99.8]))
    span = max(high - low, 1e-6)
    return jpeg(grey_bytes(logs.astype(np.float32), low - span, high))


def _at_frequencies_of(raw: PowerSpectrum, denoised: PowerSpectrum) -> npt.NDArray[np.float64]:
    """Give the power of `denoised` at the frequencies of `raw`, 0 beyond its own highest."""
    side, other = len(raw.power), len(denoised.power)
    finer = (denoised.pixel_size_angstrom or 1.0) / (raw.pixel_size_angstrom or 1.0)
    places = np.rint((np.arange(side) - side // 2) * (finer * other / side)).astype(int) + other // 2
    inside = np.flatnonzero((places >= 0) & (places < other))
    found = np.zeros_like(raw.power)
    found[np.ix_(inside, inside)] = denoised.power[np.ix_(places[inside], places[inside])]
    return found


def ring_radii(spectrum: PowerSpectrum) -> list[tuple[float, str]]:
    """Give the radius of each ring, as a part of the picture's side, and its label."""
    if spectrum.pixel_size_angstrom is None:
        return [(part, f"{part:g} cycles/px") for part in (0.125, 0.25, 0.375)]
    highest = 0.5 / spectrum.pixel_size_angstrom
    return [(spectrum.pixel_size_angstrom / size, f"{size:g} Å") for size in resolutions(highest, apart=0.2)]


def spectrum_chart(raw: PowerSpectrum, denoised: PowerSpectrum) -> str:
    """Draw the mean power in rings of both, on a logarithmic axis."""
    known = raw.pixel_size_angstrom is not None and denoised.pixel_size_angstrom is not None
    curves = []
    for spectrum in (raw, denoised):
        frequency, power = spectrum.rings()
        scale = spectrum.pixel_size_angstrom if known and spectrum.pixel_size_angstrom else 1.0
        curves.append((frequency[1:] / scale, power[1:]))
    lowest = _SHOWN_BELOW * float(curves[0][1].min())
    series = [
        Series(label, frequency, np.where(power >= lowest, power, np.nan), style)
        for style, (label, (frequency, power)) in enumerate(zip(("raw", "denoised"), curves, strict=True))
    ]
    x = Axis("resolution (Å)", resolution=True) if known else Axis("frequency (cycles per pixel)")
    return line_chart(
        series, x, Axis("power", logarithmic=True), title="power spectrum of the raw and the denoised micrograph"
    )


def _starts(length: int, side: int, most: int) -> list[int]:
    count = min(most, max(1, length // side))
    return [round(place) for place in np.linspace(0, length - side, count)] if count > 1 else [(length - side) // 2]
