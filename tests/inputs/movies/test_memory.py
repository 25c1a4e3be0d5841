"""Memory does not grow with the number of frames."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cryoplug.formats.mrc_writer import write_mrc
from inputs.movies.made_movies import (
    write_motion,
    write_stack,
)

MEASURE = """
import sys
from pathlib import Path
import numpy as np
from concurrent.futures import ThreadPoolExecutor
from cryoplug.inputs.movies.gain_of_run import RunGain
from cryoplug.inputs.movies.halves import MovieInput, MovieSummer
from cryoplug.inputs.discovered import DiscoveredMicrograph
from cryoplug.formats import registry
def peak(): return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) / 1024
path = Path(sys.argv[1])
np.fft.rfft(np.ones(8, np.float32))
with ThreadPoolExecutor(2) as pool:
    before = peak()
    MovieSummer(RunGain(Path(sys.argv[2]), None), pool).halves(MovieInput(0, DiscoveredMicrograph(path, path)))
    print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own count of memory")
@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_frames(tmp_path):
    shape = (2000, 2500)
    write_mrc(tmp_path / "gain.mrc", np.ones(shape, np.float32), pixel_size_angstrom=1)
    taken = []
    for count in (4, 16):
        frames = np.random.default_rng(0).poisson(5, (count, *shape))
        movie = write_stack(tmp_path / f"m{count}.mrc", frames)
        write_motion(tmp_path / f"m{count}.star", [(0.5, 0.5)] * count, shape=shape)
        command = [sys.executable, "-c", MEASURE, str(movie), str(tmp_path / "gain.mrc")]
        taken.append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    frame_mb = shape[0] * shape[1] * 4 / 2**20
    assert max(taken) < 10 * frame_mb
    assert taken[1] < taken[0] + frame_mb
