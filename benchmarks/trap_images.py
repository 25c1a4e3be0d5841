"""Micrographs without particles that tempt a denoiser: noise, bare ice, carbon and gold edges, crystals, hot pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cryoplug.simulation.micrograph import SimulationSettings, simulate_micrograph

Image64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Trap:
    """One image and what is known about it."""

    name: str
    pixels: Image64
    """``(y, x)``, counts."""
    pixel_size_angstrom: float
    empty: bool = True
    """No particle is there: what comes out of a particle channel is invented."""
    truth_fraction: float | None = 0.0
    """Part of the variance that is structure, were all noise gone; None: not known, or of an edge."""
    region: npt.NDArray[np.bool_] | None = None
    """Inside of an edge, for the halo."""
    hot: npt.NDArray[np.int64] | None = None
    """Places ``(n, 2)`` of hot pixels; `twin` is the same image without them."""
    twin: str | None = None
    inverted: bool = False
    """Particles are bright: `denoise` must say so."""


def simulated_traps(settings: SimulationSettings) -> list[Trap]:
    """Make all traps that need no file.

    Parameters
    ----------
    settings
        Size, pixel size, dose, optics; the molecule for the inverted micrograph.
    """
    size, pixel = settings.size_px, settings.pixel_size_angstrom
    rng = np.random.default_rng([settings.seed, 77])
    bare = simulate_micrograph(replace(settings, particles=0), 0)
    clean = bare.clean.astype(np.float64)
    grain_fraction = float(clean.var() / bare.noisy.var())
    grain = _grain(size, pixel, rng)
    y, x = np.mgrid[:size, :size] / size
    carbon = x + 0.15 * y > 0.7
    gold = np.hypot(x - 0.5, y - 0.5) > 0.62
    balls = _discs(size, rng, radii_px=[300 / pixel, 120 / pixel, 60 / pixel])
    traps = [
        Trap("white noise", rng.poisson(settings.counts_per_pixel, (size, size)).astype(float), pixel),
        Trap("bare ice", bare.noisy.astype(float), pixel, truth_fraction=grain_fraction),
        Trap(
            "carbon edge",
            rng.poisson(clean * np.where(carbon, 0.75 + 0.08 * grain, 1)).astype(float),
            pixel,
            truth_fraction=None,
            region=carbon,
        ),
        Trap(
            "gold edge",
            rng.poisson(clean * np.where(gold, 0.08 + 0.01 * grain, 1)).astype(float),
            pixel,
            truth_fraction=None,
            region=gold,
        ),
        Trap(
            "ice balls", rng.poisson(clean * _crystals(balls)).astype(float), pixel, truth_fraction=None, region=balls
        ),
    ]
    hot = rng.integers(0, size, (12, 2))
    spoilt = bare.noisy.astype(float)
    spoilt[tuple(hot.T)] = np.geomspace(1e3, 1e6, len(hot))
    traps.append(Trap("hot pixels", spoilt, pixel, truth_fraction=grain_fraction, hot=hot, twin="bare ice"))
    full = simulate_micrograph(settings, 0).noisy.astype(float)
    traps.append(Trap("particles", full, pixel, empty=False))
    traps.append(Trap("particles, inverted", full.max() - full, pixel, empty=False, inverted=True))
    return [replace(trap, pixels=np.asarray(trap.pixels, float)) for trap in traps]


def noise_like(pixels: Image64, rng: np.random.Generator, *, longest_px: float) -> Image64:
    """Make Gaussian noise with the mean and the radial power spectrum of a micrograph.

    Periods longer than `longest_px` pixels get the power of that period: gradients and large dirt are no noise.
    """
    middle = np.median(pixels)
    spread = np.quantile(np.abs(pixels - middle), 0.68) or 1.0
    clipped = np.clip(pixels, middle - 6 * spread, middle + 6 * spread)
    shape = pixels.shape
    power = np.abs(np.fft.rfft2(clipped - clipped.mean())) ** 2
    radius = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None])
    ring = np.minimum((radius * min(shape)).round().astype(int), min(shape) // 2)
    mean = np.bincount(ring.ravel(), power.ravel()) / np.maximum(np.bincount(ring.ravel()), 1)
    lowest = int(np.ceil(min(shape) / longest_px))
    mean[:lowest] = mean[lowest]
    noise = np.fft.rfft2(rng.standard_normal(shape)) * np.sqrt(mean[ring] / pixels.size)
    noise[0, 0] = 0
    return np.fft.irfft2(noise, shape) + middle


def _grain(size: int, pixel: float, rng: np.random.Generator) -> Image64:
    """Give the grain of amorphous carbon, rms 1, mostly of 5 to 20 angstrom."""
    fine = ndimage.gaussian_filter(rng.standard_normal((size, size)), 3 / pixel, mode="wrap")
    result: Image64 = fine / fine.std()
    return result


def _discs(size: int, rng: np.random.Generator, radii_px: list[float]) -> npt.NDArray[np.bool_]:
    y, x = np.mgrid[:size, :size]
    inside = np.zeros((size, size), bool)
    for radius in radii_px:
        centre = rng.uniform(radius, size - radius, 2) if 2 * radius < size else np.full(2, size / 2)
        inside |= np.hypot(y - centre[0], x - centre[1]) < radius
    return inside


def _crystals(inside: npt.NDArray[np.bool_]) -> Image64:
    """Give the transmission of ice balls: dark where they are thick, with a bright fringe around."""
    depth = ndimage.distance_transform_edt(inside)
    fringe = ndimage.distance_transform_edt(~inside)
    result: Image64 = np.where(inside, 1 - 0.5 * np.tanh(depth / 15), 1 + 0.1 * np.exp(-fringe / 6))
    return result
