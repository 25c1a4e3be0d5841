"""``RELION_OUTPUT_NODES.star``: the outputs of a job, for RELION's project and its Browse buttons.

RELION 3.1 reads the numbers, RELION 4 and 5 read the labels. Each ignores the other column, so both are always written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryoplug.errors import StorageError
from cryoplug.formats.star import StarBlock, StarFile, read_star, write_star

FILE_NAME = "RELION_OUTPUT_NODES.star"
_BLOCK = "output_nodes"
_NAME, _NUMBER, _LABEL = "rlnPipeLineNodeName", "rlnPipeLineNodeType", "rlnPipeLineNodeTypeLabel"
_VERSION_COMMENTS = {"3.1": "# version 30001", "4": "# version 30001", "5": "# version 50001"}


@dataclass(frozen=True)
class Kind:
    """A type of file in RELION's project."""

    number: int
    """Number of the type in RELION 3.1."""
    label_4: str
    """Label of the type in RELION 4."""
    label_5: str
    """Label of the type in RELION 5. RELION 5 also accepts the label of RELION 4, but then no other job offers the file."""


MICROGRAPHS = Kind(1, "MicrographsData.star.relion", "MicrographGroupMetadata.star.relion")
LOGFILE = Kind(13, "LogFile.pdf.relion", "LogFile.pdf.relion")
PARAMETERS = Kind(15, "ProcessData.json.cryoplug.model", "ParamsData.json.cryoplug.model")
"""Type for a trained network. RELION has no type for networks; this is the type of polishing parameters, a text file."""


@dataclass(frozen=True)
class Node:
    """One output of a job."""

    path: Path
    """Path relative to the project's folder; inside the job's folder."""
    kind: Kind
    """Type of the file."""


def write_nodes(folder: Path, nodes: Sequence[Node], release: str) -> Path:
    """Write the file for RELION and read it back.

    Parameters
    ----------
    folder
        Of the job.
    nodes
        Outputs of the job; the files exist.
    release
        One of `cryoplug_relion.release.RELEASES`.

    Raises
    ------
    StorageError
        The disk holds something other than what was written.
    """
    label = {"3.1": lambda kind: kind.label_4, "4": lambda kind: kind.label_4, "5": lambda kind: kind.label_5}[release]
    rows = [[str(node.path), str(node.kind.number), label(node.kind)] for node in nodes]
    block = StarBlock(_BLOCK, True, [_NAME, _NUMBER, _LABEL], rows, [_VERSION_COMMENTS[release]])
    path = folder / FILE_NAME
    write_star(path, StarFile([block], path))
    found = read_star(path).block(_BLOCK)
    if found is None or found.rows != rows:
        raise StorageError(f"{path}: reading it back gave something else than was written; check the disk")
    return path
