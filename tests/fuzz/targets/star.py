"""STAR files of RELION: parsing, the table of images, and writing what was read."""

from __future__ import annotations

from pathlib import Path

from cryoplug.formats.star import format_star, image_table, read_star
from fuzz.targets import Target

_SEEDS = (
    b"\n# version 30001\n\ndata_optics\n\nloop_ \n_rlnOpticsGroupName #1 \n_rlnOpticsGroup #2 \n"
    b"_rlnMicrographPixelSize #3 \nopticsGroup1            1     1.250000 \n \n\n"
    b"data_micrographs\n\nloop_ \n_rlnMicrographName #1 \n_rlnOpticsGroup #2 \n_rlnDefocusU #3 \n"
    b"MotionCorr/job002/a_1.mrc  1  12345.6 \n'MotionCorr/job002/a 2.mrc'  1  1.2e4 \n\"x y\"  1  nan \n \n",
    b"data_\n\nloop_\n_rlnMicrographName #1\n_rlnMagnification #2\n_rlnDetectorPixelSize #3\na.mrc 10000 1.25\n"
    b"b.mrc 10000 1.25 # a note\n",
    b"data_movies\nloop_\n_rlnMicrographMovieName #1\n_rlnOpticsGroup #2\nm_1.tiff 1\nm_2.tiff 1\n\n"
    b"data_general\n_rlnTomoName a\n_rlnPixelSize 1.1\n",
    b"data_particles\r\nloop_\r\n_rlnImageName #1\r\n_rlnCoordinateX #2\r\n000001@stack.mrcs 1.5\r\n",
)
_WORDS = (
    b"loop_",
    b"data_",
    b"data_optics",
    b"_rlnMicrographName",
    b"'",
    b'"',
    b"#",
    b";",
    b"\0",
    b"\xff",
    b"\n",
    b"a ",
)


def _run(folder: Path, payload: bytes) -> None:
    path = folder / "input.star"
    path.write_bytes(payload)
    star = read_star(path)
    format_star(star)
    image_table(star, "either")


TARGET = Target(seeds=lambda: _SEEDS, run=_run, words=_WORDS)
