"""``--dry-run`` writes nothing, and its exit code is that of the run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cryoplug.cli.main import run
from cryoplug.core import plan
from cryoplug.formats.mrc import write_mrc


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        pixels = random.normal(10, 2, (96, 96)).astype(np.float32)
        write_mrc(tmp_path / f"{name}.mrc", pixels, pixel_size_angstrom=3)
    (tmp_path / "bad.mrc").write_text("bad")
    write_mrc(tmp_path / "unknown.mrc", np.eye(96, dtype=np.float32))
    return tmp_path


def everything(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


DENOISE = ["denoise", "-o", "out", "--device", "cpu", "--threads", "1"]
CONVERT = ["convert", "-o", "store", "--patch-size", "48"]


@pytest.mark.parametrize(
    "words",
    [
        [*DENOISE, "a.mrc", "b.mrc"],
        [*DENOISE, "a.mrc", "bad.mrc"],
        [*DENOISE, "bad.mrc"],
        [*DENOISE, "unknown.mrc"],
        [*DENOISE, "missing.mrc"],
        [*DENOISE, "a.mrc", "--checkpoint", "missing"],
        [*DENOISE, "a.mrc", "--device", "cuda:99"],
        [*DENOISE, "a.mrc", "--star", "a.mrc"],
        [*DENOISE, "a.mrc", "-o", "b.mrc"],
        [*DENOISE, "a.mrc", "-o", "b.mrc/below"],
        [*CONVERT, "a.mrc", "b.mrc"],
        [*CONVERT, "a.mrc", "bad.mrc"],
        [*CONVERT, "bad.mrc"],
        [*CONVERT, "missing.mrc"],
        [*CONVERT, "a.mrc", "--pairs", "halves"],
        [*CONVERT, "a.mrc", "-o", "b.mrc/below"],
    ],
    ids=" ".join,
)
def test_it_writes_nothing_and_exits_as_the_run_does(
    here: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(here)
    planned = run([*words, "--dry-run"])
    assert everything(here) == before
    said = capsys.readouterr()
    done = run(words)
    assert planned == done, (said.err, capsys.readouterr().err)


def test_a_run_that_is_finished_has_nothing_to_do(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, name in (([*DENOISE, "a.mrc"], "out"), ([*CONVERT, "a.mrc", "b.mrc"], "store")):
        assert run([*words, "--dry-run", "--json"]) == 0
        first = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert run(words) == 0
        capsys.readouterr()
        assert run([*words, "--dry-run", "--json"]) == 0
        second = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (first["type"], first["to_do"], second["to_do"], second["output"]) == ("plan", first["total"], 0, name)
        assert second["skipped"] == second["total"] == first["total"]


def test_a_disk_that_is_too_small_is_told_before_the_run(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    assert run([*DENOISE, "a.mrc", "--dry-run"]) == 5
    assert "about 38 kB of 1.0 kB free: not enough" in capsys.readouterr().out
