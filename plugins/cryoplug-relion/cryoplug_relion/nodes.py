"""``RELION_OUTPUT_NODES.star``: what a job made, for RELION's project and its Browse buttons.

RELION 3.1 reads the numbers, 4 and 5 the labels; each keeps quiet about the other column, so both are always written.
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
    """In RELION 3.1."""
    label_4: str
    """In RELION 4."""
    label_5: str
    """In RELION 5. It takes the label of 4, too, but then no other job offers the file."""


MICROGRAPHS = Kind(1, "MicrographsData.star.relion", "MicrographGroupMetadata.star.relion")
LOGFILE = Kind(13, "LogFile.pdf.relion", "LogFile.pdf.relion")
PARAMETERS = Kind(15, "ProcessData.json.cryoplug.model", "ParamsData.json.cryoplug.model")
"""What a job found out and another one needs. RELION has no type for networks; this is that of polishing, a text."""


@dataclass(frozen=True)
class Node:
    """One output of a job."""

    path: Path
    """From the project's folder, inside the job's folder."""
    kind: Kind
    """Its type."""


def write_nodes(folder: Path, nodes: Sequence[Node], release: str) -> Path:
    """Write the file for RELION and read it back.

    Parameters
    ----------
    folder
        Of the job.
    nodes
        What it made; the files exist.
    release
        One of `cryoplug_relion.release.RELEASES`.

    Raises
    ------
    StorageError
        What is on the disk is not what was written.
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
