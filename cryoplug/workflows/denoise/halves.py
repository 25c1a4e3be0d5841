"""Which exposures `denoise --halves` works on, and the proof that two files are halves of one."""

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
    """Bring micrographs and halves together, each exposure once.

    Parameters
    ----------
    micrographs
        As discovered: whole exposures whose halves a STAR file names, or which lie beside them or in folders of their own;
        or halves themselves. May be empty when `even` and `odd` are given.
    even, odd
        The halves, where they were named; they are paired with each other and with `micrographs` by their names.

    Returns
    -------
    list
        Each with ``even`` and ``odd``; ``path`` is the whole exposure where that was found, else the even half. Behind them
        those of which a half is missing: they are to fail by name, for none is denoised in another way than the rest.

    Raises
    ------
    PairingError
        None has halves, or some that were named belong to no other.
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
    """Call a result after its exposure, ``X.mrc``, where that is not there and the even half, ``X_EVN.mrc``, stands for it."""
    names = [
        without_side(item.relative, endings) if item.path in (item.even, item.odd) else item.relative for item in found
    ]
    alone = {name for name, count in Counter(names).items() if count == 1}
    return [replace(item, relative=name) if name in alone else item for item, name in zip(found, names, strict=True)]


def pair_prover() -> Callable[[MicrographSource, MicrographSource, tuple[float | None, ...]], list[str]]:
    """Give what compares the halves of one exposure after another.

    Copies of one image and halves of different shape are refused. Without common signal there is a remark: thin ice has
    none, and nothing is learnt from the pair here.
    """
    proof = PairProof(halves=True, accept_unproven=True)

    def prove(even: MicrographSource, odd: MicrographSource, sizes: tuple[float | None, ...]) -> list[str]:
        proof.check_files(even, odd, sizes)
        return proof.check_pixels(even, odd, pixel_size_angstrom=sizes[0] or sizes[1])

    return prove
