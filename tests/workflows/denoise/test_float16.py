"""Results in float16."""

from __future__ import annotations

import json
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryoplug.formats.mrc import validate_mrc, write_mrc
from cryoplug.outputs import planning
from workflows.denoise.denoising import go, micrographs, partials, pixels, statuses


def test_float16_is_half_the_bytes_of_the_same_pixels(here, checkpoints):
    micrographs(here, "a")
    go(checkpoints[0], "a.mrc")
    batch = go(checkpoints[0], "a.mrc", output="half", float16=True)
    assert statuses(batch) == ["done"] and batch.files[0].message == ""
    # mrcfile's own validator overflows on float16, for files that mrcfile wrote, too.
    assert validate_mrc(Path("half/a.mrc")) == []
    wanted = mrcfile.read("out/a.mrc").astype(np.float16)
    with mrcfile.open("half/a.mrc") as mrc:
        assert mrc.data.dtype == np.float16 and np.array_equal(mrc.data, wanted)
        assert float(mrc.header.dmean) == pytest.approx(wanted.mean(dtype=np.float64), rel=1e-6)
        assert float(mrc.header.rms) == pytest.approx(wanted.std(dtype=np.float64), rel=1e-6)
        assert float(mrc.header.dmax) == wanted.max()
        assert mrc.get_labels()[-1].endswith(" float16")


def test_what_float16_cannot_hold_fails_alone_and_what_it_rounds_much_is_told(here, checkpoints):
    write_mrc(here / "a.mrc", pixels(0))
    write_mrc(here / "b.mrc", pixels(1, (900, 90)) * 3000)
    write_mrc(here / "c.mrc", pixels(2) / 4 + 6800)
    batch = go(checkpoints[0], "a.mrc", "b.mrc", "c.mrc", float16=True)
    assert statuses(batch) == ["done", "failed", "done"] and batch.exit_code == 3
    assert "does not fit into float16" in batch.files[1].message and batch.files[1].exit_code == 4
    assert "float16 rounds the pixels by" in batch.files[2].message
    assert not Path("out/b.mrc").exists() and not partials(here)


def test_another_type_of_pixels_is_another_setting(here, checkpoints):
    micrographs(here, "a")
    go(checkpoints[0], "a.mrc")
    batch = go(checkpoints[0], "a.mrc", float16=True)
    assert "was made with dtype float32, now float16" in batch.files[0].message
    record = next(Path("out", planning.RECORD_FOLDER).glob("*.json"))
    values = json.loads(record.read_text())
    del values["settings"]["dtype"]  # as it was before there was a choice
    record.write_text(json.dumps(values))
    assert statuses(go(checkpoints[0], "a.mrc")) == ["skipped"]
