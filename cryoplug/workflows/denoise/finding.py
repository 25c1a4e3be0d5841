"""Find the micrographs of a run, and their halves if it uses halves."""

from __future__ import annotations

from pathlib import Path

from cryoplug.inputs.discovered import whole_stacks
from cryoplug.inputs.discovery import DiscoveredMicrograph, Discovery, discover, find
from cryoplug.outputs.planning import without_own_outputs
from cryoplug.workflows.denoise.halves import exposures
from cryoplug.workflows.denoise.request import DenoiseRequest


def find_micrographs(request: DenoiseRequest) -> tuple[list[DiscoveredMicrograph], list[Path]]:
    """Find the micrographs that a request names.

    Parameters
    ----------
    request
        The request; its inputs and halves are searched.

    Returns
    -------
    tuple
        The micrographs, without results of earlier runs; then the files that are left out because they only accompany a
        micrograph (halves, masks, power spectra).
    """
    found = find(request.inputs) if request.inputs else Discovery(())
    micrographs = without_own_outputs(whole_stacks(found.micrographs), request.output, named=request.inputs)
    if request.halves:
        even, odd = (
            discover(inputs, side=side) if inputs else []
            for inputs, side in ((request.even, "even"), (request.odd, "odd"))
        )
        micrographs = exposures(micrographs, even, odd)
    used = {path.absolute() for item in micrographs for path in (item.even, item.odd) if path is not None}
    return micrographs, [path for path in found.companions if not (request.halves and path.absolute() in used)]
