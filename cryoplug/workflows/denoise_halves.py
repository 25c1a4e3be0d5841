"""Which exposures `denoise --halves` works on, and the proof that two files are halves of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from cryoplug.core.micrograph import MicrographSource
from cryoplug.workflows.discovered import DiscoveredMicrograph, known_endings
from cryoplug.workflows.halves_names import half_of
from cryoplug.workflows.pair_proof import PairProof
from cryoplug.workflows.pairing import halves_of


def exposures(micrographs: Sequence[DiscoveredMicrograph]) -> list[DiscoveredMicrograph]:
    """Bring micrographs and halves together, each exposure once.

    Parameters
    ----------
    micrographs
        As discovered: whole exposures whose halves a STAR file names or which lie beside them, or halves themselves.

    Returns
    -------
    list
        Each with ``even`` and ``odd``; ``path`` is the whole exposure where that was found, else the even half.

    Raises
    ------
    PairingError
        Some have no halves; nothing is to be denoised in another way than the rest.
    """
    endings = known_endings()
    whole = {
        (item.even, item.odd): item
        for item in reversed(micrographs)
        if item.even is not None and item.odd is not None and half_of(item.path.name, endings) is None
    }
    even, odd = halves_of(micrographs)
    found = []
    for one, two in zip(even, odd, strict=True):
        base = whole.get((one.path, two.path))
        found.append(replace(one if base is None else base, even=one.path, odd=two.path))
    return found


def pair_prover() -> Callable[[MicrographSource, MicrographSource], list[str]]:
    """Give what compares the halves of one exposure after another.

    Copies of one image and halves of different shape are refused. Without common signal there is a remark: thin ice has
    none, and nothing is learnt from the pair here.
    """
    proof = PairProof(halves=True, accept_unproven=True)

    def prove(even: MicrographSource, odd: MicrographSource) -> list[str]:
        proof.check_files(even, odd, (even.pixel_size_angstrom, odd.pixel_size_angstrom))
        return proof.check_pixels(even, odd)

    return prove
