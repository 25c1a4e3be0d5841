"""How far can any denoiser of the even half come in its correlation with the odd half? Asked of the halves' powers alone.

    python benchmarks/halves_ceiling.py Micrographs/*_EVN.mrc [--csv halves_ceiling.csv]

The odd halves (X_ODD beside X_EVN) have noise of the same colour; how much stronger, the powers beyond 0.4 cycles per pixel
tell. What is left of the even half's power without its noise is signal, S; C is the power that both halves share. Where
C is below S, the odd half shows the signal more weakly (or another one). Multiples of the raw correlation, of each pair and
in the mean:

    gaussian   the best Gaussian, fitted on this very pair
    wiener     gain C / E per ring, with E the even half's power, from all other pairs
    signal     S known exactly, and weighted as the odd half shows it, C / S of all pairs: nothing can do better
    shared     the same if what the even half has beyond C were noise
"""

from __future__ import annotations

import argparse
import datetime
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryoplug.errors import CryoplugError
from cryoplug.formats.registry import open_micrograph
from cryoplug.metrics.baselines import gaussian_blur
from cryoplug.metrics.linear import best_gaussian_sigma
from cryoplug.metrics.pixel import correlation
from cryoplug.metrics.rings import Curve, Rings, spectrum
from rows import append_rows

RINGS = 128
NOISE_FROM = 0.4
"""Cycles per pixel beyond which there is next to no signal."""
SIGNIFICANT = 3.0
"""Standard errors by which the shared power of a ring must exceed chance; other rings are left out."""


@dataclass(frozen=True)
class Powers:
    """One pair: power per ring, and correlations."""

    even: Curve
    odd: Curve
    shared: Curve
    """What both have in common."""
    raw: float
    """Correlation of the even half with the odd one."""
    gaussian: float
    """The same of its best blur."""


def main() -> int:
    """Print rings and pairs, and append a CSV row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("even", type=Path, nargs="+", help="even halves, X_EVN.mrc; at least two, of one shape")
    parser.add_argument("--csv", type=Path, default=Path("halves_ceiling.csv"), help="a row is appended to it")
    arguments = parser.parse_args()
    if unnamed := [str(path) for path in arguments.even if "_EVN" not in path.name]:
        parser.error(f"no _EVN in the name of {', '.join(unnamed)}")
    try:
        halves = [(read(path), read(path.with_name(path.name.replace("_EVN", "_ODD")))) for path in arguments.even]
    except CryoplugError as error:
        parser.error(str(error))
    if len(halves) < 2 or len({half.shape for pair in halves for half in pair}) > 1:
        parser.error("needed: two pairs or more, all of one shape")
    rings = Rings.of(halves[0][0].shape, most=RINGS)
    with open_micrograph(arguments.even[0]) as source:
        angpix = source.pixel_size_angstrom or 1.0
    pairs = [measure(even, odd, rings) for even, odd in halves]

    ratio, signal, kept = print_rings(pairs, rings, angpix)
    found = np.array([limits(index, pairs, signal=signal, kept=kept) for index in range(len(pairs))])
    names = ("gaussian", "wiener", "signal", "shared")
    print(f"\n{'pair':40}" + "".join(f"{name:>10}" for name in names))
    for path, row in zip(arguments.even, found, strict=True):
        print(f"{path.name[:39]:40}" + "".join(f"{value:10.3f}" for value in row))
    print(f"{'mean':40}" + "".join(f"{value:10.3f}" for value in found.mean(axis=0)))

    record = {
        "date": datetime.date.today().isoformat(),
        "pairs": len(pairs),
        "shape": "x".join(map(str, rings.shape)),
        "pixel_size_angstrom": f"{angpix:g}",
        "odd_noise_over_even": f"{1 / ratio:.1f}",
        **{name: f"{value:.4f}" for name, value in zip(names, found.mean(axis=0), strict=True)},
    }
    append_rows(arguments.csv, [record], list(record))
    return 0


def read(path: Path) -> np.ndarray:
    """Return a whole micrograph without its mean."""
    with open_micrograph(path) as source:
        pixels = source.read_rows(0, source.shape[0]).astype(np.float32)
    return pixels - pixels.mean()


def measure(even: np.ndarray, odd: np.ndarray, rings: Rings) -> Powers:
    """Measure one pair."""
    one, two = spectrum(even), spectrum(odd)
    blurred = gaussian_blur(even, best_gaussian_sigma(even, odd))
    powers = rings.cross(one, one), rings.cross(two, two), rings.cross(one, two)
    return Powers(*powers, correlation(even, odd), correlation(blurred, odd))


def print_rings(pairs: list[Powers], rings: Rings, angpix: float) -> tuple[float, Curve, np.ndarray]:
    """Print the rings with significant signal; return the noise ratio, the signal S of all pairs, and those rings."""
    even, odd, shared = (np.sum([getattr(pair, name) for pair in pairs], axis=0) for name in ("even", "odd", "shared"))
    outer = (rings.frequency >= NOISE_FROM) & (rings.frequency <= 0.5)
    ratio = float(even[outer].sum() / odd[outer].sum())
    noise = ratio * (odd - shared)
    signal = np.maximum(even - noise, np.maximum(shared, 1e-30))
    chance = np.sqrt(even * odd / rings.count / len(pairs))
    kept = np.flatnonzero((shared > SIGNIFICANT * chance) & (rings.frequency <= NOISE_FROM))
    print(f"noise of the odd halves: {1 / ratio:.1f} times the even halves'\n")
    print(f"{'A':>6}{'C / S':>8}{'S / noise':>11}{'of all C':>10}")
    for index in kept:
        size = f"{angpix / rings.frequency[index]:.0f}" if index else "beyond"
        share = shared[index] / shared[kept].sum()
        numbers = f"{shared[index] / signal[index]:8.2f}{signal[index] / noise[index]:11.2f}{share:10.3f}"
        print(f"{size:>6}{numbers}")
    return ratio, signal, kept


def limits(index: int, pairs: list[Powers], *, signal: Curve, kept: np.ndarray) -> tuple[float, float, float, float]:
    """Return the correlations of one pair as multiples of its raw one."""
    pair = pairs[index]
    others = [other for number, other in enumerate(pairs) if number != index]
    even, shared = (np.sum([getattr(other, name) for other in others], axis=0)[kept] for name in ("even", "shared"))
    gain = np.maximum(shared, 0) / even
    all_odd = pair.odd.sum()
    wiener = (gain * pair.shared[kept]).sum() / np.sqrt((gain**2 * pair.even[kept]).sum() * all_odd)
    weight = np.sum([other.shared for other in pairs], axis=0)[kept] / signal[kept]
    known = np.sqrt(np.maximum(weight * pair.shared[kept], 0).sum() / all_odd)
    common = np.sqrt(np.maximum(pair.shared[kept], 0).sum() / all_odd)
    return pair.gaussian / pair.raw, wiener / pair.raw, known / pair.raw, common / pair.raw


if __name__ == "__main__":
    raise SystemExit(main())
