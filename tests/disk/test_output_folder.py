"""A command that writes into a folder refuses a file, and a name that promises one; a folder that is there may have any name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryoplug.cli.main import run
from cryoplug.disk.output_folder import refuse_file
from cryoplug.errors import UsageError
from cryoplug.formats.mrc import write_mrc


@pytest.mark.parametrize("name", ["a.mrc", "A.MRC", "b.tif", "c.star"])
def test_a_name_like_a_files_is_refused_with_one_that_would_do(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"such as {tmp_path / Path(name).stem}$"):
        refuse_file(tmp_path / name)
    (tmp_path / name).mkdir()
    refuse_file(tmp_path / name)


@pytest.mark.parametrize("name", ["denoised", "v1.2", "2026.11.30", ".hidden", "x.h5"])
def test_other_names_are_taken(tmp_path: Path, name: str) -> None:
    refuse_file(tmp_path / name)


@pytest.mark.parametrize(
    "words", [["denoise", "m.mrc"], ["convert", "m.mrc"], ["evaluate", "m.mrc", "--clean", "t.mrc"], ["simulate"]]
)
def test_every_command_refuses_such_a_name_and_writes_nothing(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("m.mrc", "t.mrc")):
        pixels = np.random.default_rng(number).normal(50, 4, (64, 64)).astype(np.float32)
        write_mrc(Path(name), pixels, pixel_size_angstrom=2.6)
    assert run([*words, "-o", "out.mrc"]) == 2
    assert "out.mrc: this is the name of a file" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.mrc", "t.mrc"]
