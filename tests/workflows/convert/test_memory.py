"""Memory does not grow with the micrograph."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cryoplug.formats.mrc_writer import MrcRowWriter

MEASURE = """
import resource, sys
import cryoplug.cli.convert, cryoplug.workflows.convert, h5py
def peak(): return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) / 1024
before = peak()
cryoplug.cli.convert.convert(sys.argv[1:], standalone_mode=False)
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own count of memory")
@pytest.mark.parametrize("format", ["bin", "hdf5"])
def test_memory_does_not_grow_with_the_micrograph(tmp_path, format):
    wide = tmp_path / "wide.mrc"
    with open(wide, "wb") as stream:
        writer = MrcRowWriter(stream, (9000, 6000), template=None, pixel_size_angstrom=1.0, label="test")
        for y in range(0, 9000, 500):
            writer.write_rows(np.random.default_rng(y).random((500, 6000), np.float32))
        writer.finish()
    command = [sys.executable, "-c", MEASURE, str(wide), "-o", str(tmp_path / "s"), "--stride", "4000"]
    ended = subprocess.run([*command, "--format", format], capture_output=True, text=True, check=True)
    assert float(ended.stdout.split()[-1]) < 400
