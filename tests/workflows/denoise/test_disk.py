"""Disks that are full, broken or closed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from cryoplug.disk import retry
from cryoplug.errors import StorageError
from cryoplug.formats.mrc import MrcRowWriter
from cryoplug.inference.denoiser import Denoiser
from cryoplug.workflows.denoise import run as denoise_module
from workflows.denoise.denoising import go, micrographs, partials, statuses


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.EROFS, "can only be read"), (errno.EACCES, "permission"), (errno.ENOSPC, "free space")],
)
def test_an_output_that_cannot_be_written_is_told_before_the_work(here, checkpoints, monkeypatch, number, advice):
    micrographs(here, "a")
    real = Path.open

    def refusing(self: Path, mode: str = "r", *rest: object, **named: object) -> object:
        if self.parent.name == "out" and "w" in mode:
            raise OSError(number, os.strerror(number))
        return real(self, mode, *rest, **named)

    monkeypatch.setattr(Path, "open", refusing)
    monkeypatch.setattr(Denoiser, "__init__", lambda *arguments, **named: pytest.fail("the work began"))
    with pytest.raises(StorageError, match=f"out: cannot be written: {os.strerror(number)}; .*{advice}") as caught:
        go(checkpoints[0], "a.mrc")
    assert caught.value.exit_code == 5


def test_a_micrograph_on_a_bad_sector_is_failed_by_name_and_the_others_are_done(here, checkpoints, monkeypatch):
    paths = micrographs(here, "abc")
    real = os.preadv

    def failing(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "b.mrc":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", failing)
    monkeypatch.setattr(retry, "PAUSES_S", (0.0,))
    result = go(checkpoints[0], *paths)
    assert (statuses(result), result.exit_code) == (["done", "failed", "done"], 3)
    assert result.files[1].message == f"{paths[1]}: reading failed: Input/output error; check permissions and disk"
    assert not partials(here)


def test_an_output_below_a_file_is_a_storage_error(here, checkpoints):
    micrographs(here, "a")
    Path("file").write_text("")
    with pytest.raises(StorageError, match="file/out: cannot be written: Not a directory"):
        go(checkpoints[0], "a.mrc", output="file/out")


def test_what_is_finished_is_told_though_the_output_can_only_be_read(here, checkpoints, monkeypatch):
    micrographs(here, "a")
    go(checkpoints[0], "a.mrc")
    monkeypatch.setattr(denoise_module, "check_writable", lambda folder: pytest.fail("it tried to write"))
    assert statuses(go(checkpoints[0], "a.mrc")) == ["skipped"]


def test_a_full_disk_stops_everything_and_leaves_no_half_file(here, checkpoints, monkeypatch):
    paths = micrographs(here, "abcdef")
    real = MrcRowWriter.write_rows
    written = []

    def filling(self: MrcRowWriter, rows: np.ndarray) -> None:
        written.append(rows.shape)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(MrcRowWriter, "write_rows", filling)
        with pytest.raises(StorageError, match=r"out/c\.mrc: No space left") as caught:
            go(checkpoints[0], *paths)
    assert caught.value.exit_code == 5
    assert sorted(path.name for path in Path("out").glob("*.mrc")) == ["a.mrc", "b.mrc"]
    assert not partials(here) and len(written) == 3
    assert statuses(go(checkpoints[0], *paths)) == ["skipped", "skipped", "done", "done", "done", "done"]
