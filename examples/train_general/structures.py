"""Make particles of real structures, once, for train.py: needs gemmi (``pip install ".[simulate]"``).

    python examples/train_general/structures.py structures/train/* -o structures.npz

get_structures.py fetches the files, and says which are held out for judging.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from library import save

from cryoplug.simulation.structures import particle_from_structure, read_structure


def main() -> None:
    """Read the files, write the particles."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, help="PDB or mmCIF")
    parser.add_argument("-o", "--output", type=Path, required=True, help=".npz file")
    arguments = parser.parse_args()
    models = []
    for path in sorted(arguments.files):
        models.append(particle_from_structure(read_structure(path)))
        print(
            f"{path.name}: {len(models[-1].points_angstrom)} blobs, radius {models[-1].radius_angstrom:.0f} A",
            flush=True,
        )
    save(arguments.output, models)


if __name__ == "__main__":
    main()
