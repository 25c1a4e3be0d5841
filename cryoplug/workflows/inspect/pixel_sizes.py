"""Check whether a list and the headers of its MRC files agree about the pixel size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from cryoplug.core.pixel_size import PixelSizeRemarks, known_pixel_size
from cryoplug.core.results import Finding
from cryoplug.errors import InputError, StorageError
from cryoplug.formats.mrc import read_header
from cryoplug.formats.registry import formats
from cryoplug.inputs.discovered import DiscoveredMicrograph

MOST_HEADERS = 2000
"""Most headers to read, spread over the list; a network disk gives some thousand answers a second."""


def pixel_size_findings(named: Sequence[DiscoveredMicrograph]) -> Iterator[Finding]:
    """Report headers whose pixel size differs from the list; all commands use the list.

    Parameters
    ----------
    named
        The images as the list names them; missing, damaged and non-MRC files are skipped here.
    """
    endings = formats()["mrc"].extensions
    ours = [item for item in named if item.pixel_size_angstrom and item.path.name.lower().endswith(endings)]
    places = np.unique(np.linspace(0, len(ours) - 1, min(len(ours), MOST_HEADERS)).astype(int)) if ours else ()
    remarks = PixelSizeRemarks()
    for place in places:
        item = ours[int(place)]
        try:
            header = read_header(item.path).pixel_size_angstrom
        except (InputError, StorageError):
            continue
        remarks.add(known_pixel_size(None, item.pixel_size_angstrom, header))
    for text in remarks.sentences():
        part = "" if len(places) == len(ours) else f" ({len(places)} of {len(ours)} headers read)"
        yield Finding("warning", "pixel size", text.removeprefix("pixel size: ") + part)
