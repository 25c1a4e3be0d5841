"""The notebook in examples/ runs from its first cell to its last one."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "notebook.py"


def test_it_is_made_of_cells_with_words_before_the_code() -> None:
    titles = re.findall(r"(?m)^# %% (.*)$", NOTEBOOK.read_text(encoding="utf-8"))
    code = [title for title in titles if title != "[markdown]"]
    assert code[1:] == ["Simulate", "Denoise an array", "Denoise files", "Look", "Evaluate"]
    assert [first == "[markdown]" for first in titles[0::2][:6]] == [True] * 6


@pytest.mark.slow
def test_every_cell_runs_and_leaves_what_it_promises(
    general_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv("CRYOPLUG_NOTEBOOK_SIZE", "256")
    left = runpy.run_path(str(NOTEBOOK))
    assert left["denoised"].shape == left["raw"].shape == (256, 256)
    assert len(left["done"].outputs) == 3 and left["judged"].summary.micrographs == 3
    for name in ("look.png", "denoised/report.html", "denoised/micrographs.star", "evaluation/evaluation.json"):
        assert (tmp_path / "notebook_output" / name).stat().st_size > 100, name
    assert "Judged on 3 images by the truth." in capsys.readouterr().out
