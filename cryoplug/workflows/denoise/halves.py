"""Find the exposures for `denoise --halves`, and check that two files are halves of one exposure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from cryoplug.core.micrograph import MicrographSource
from cryoplug.inputs.discovered import DiscoveredMicrograph, known_endings
from cryoplug.inputs.half_names import without_side
from cryoplug.inputs.pair_proof import PairProof
from cryoplug.inputs.pairing import halves_of, pair_files


def exposures(
    micrographs: Sequence[DiscoveredMicrograph],
    even: Sequence[DiscoveredMicrograph] = (),
    odd: Sequence[DiscoveredMicrograph] = (),
) -> list[DiscoveredMicrograph]:
    """Pair micrographs with their halves; each exposure occurs once.

    Parameters
    ----------
    micrographs
        Micrographs as they were found: whole exposures, or halves. The halves of an exposure are named by a STAR file,
        lie beside it, or lie in separate folders. May be empty when `even` and `odd` are given.
    even, odd
        The halves, if the user named them; they are paired with each other and with `micrographs` by their file names.

    Returns
    -------
    list
        Exposures with ``even`` and ``odd``; ``path`` is the whole exposure if it was found, else the even half. After
        them the exposures that lack a half: these must fail, because all micrographs of a run are denoised in one way.

    Raises
    ------
    PairingError
        No exposure has halves, or a half that the user named has no partner.
    """
    if even:
        return _named(micrographs, even, odd)
    endings = known_endings()
    whole = {
        (item.even, item.odd): item
        for item in reversed(micrographs)
        if item.even is not None and item.odd is not None and item.path not in (item.even, item.odd)
    }
    halves = halves_of(micrographs)
    found = []
    for one, two in zip(halves.even, halves.odd, strict=True):
        base = whole.get((one.path, two.path))
        found.append(replace(one if base is None else base, even=one.path, odd=two.path))
    found += [replace(item, even=None, odd=None) for item in halves.alone]
    return _with_names_of_exposures(found, endings)


def _named(
    micrographs: Sequence[DiscoveredMicrograph],
    even: Sequence[DiscoveredMicrograph],
    odd: Sequence[DiscoveredMicrograph],
) -> list[DiscoveredMicrograph]:
    pairs = pair_files(even, odd, sides=("even", "odd"))
    partners = {pair.noisy: pair.clean for pair in pairs}
    if not micrographs:
        found = [replace(one, even=one.path, odd=two.path) for one, two in partners.items() if two is not None]
        return _with_names_of_exposures(found, known_endings())
    # A pattern may have found the halves, too.
    taken = {item.path.absolute() for item in (*even, *odd)}
    micrographs = [item for item in micrographs if item.path.absolute() not in taken] or micrographs
    return [
        replace(pair.noisy, even=pair.clean.path, odd=two.path)
        for pair in pair_files(micrographs, even, sides=("input", "even"))
        if pair.clean is not None and (two := partners[pair.clean]) is not None
    ]


def _with_names_of_exposures(
    found: Sequence[DiscoveredMicrograph], endings: frozenset[str]
) -> list[DiscoveredMicrograph]:
    """Name each result after its exposure (``X.mrc``), also if only its halves (``X_EVN.mrc``) are there."""
    names = [
        without_side(item.relative, endings) if item.path in (item.even, item.odd) else item.relative for item in found
    ]
    alone = {name for name, count in Counter(names).items() if count == 1}
    return [replace(item, relative=name) if name in alone else item for item, name in zip(found, names, strict=True)]


def pair_prover() -> Callable[[MicrographSource, MicrographSource, tuple[float | None, ...]], list[str]]:
    """Give a function that compares the two halves of an exposure.

    It refuses two copies of one image, and halves of different shape. Halves without common signal only get a remark:
    thin ice has none, and `denoise` does not learn from the pair.
    """
    proof = PairProof(halves=True, accept_unproven=True)

    def prove(even: MicrographSource, odd: MicrographSource, sizes: tuple[float | None, ...]) -> list[str]:
        proof.check_files(even, odd, sizes)
        return proof.check_pixels(even, odd, pixel_size_angstrom=sizes[0] or sizes[1])

    return prove
