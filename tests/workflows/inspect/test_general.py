"""``cryoplug inspect general``: the weights of the package and what their card says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cryoplug.cli.main import run as command_line
from cryoplug.models.checkpoint import load_checkpoint


def test_it_shows_the_facts_of_the_card_and_nothing_is_wrong(
    general_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line(["inspect", "general"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("general: checkpoint, nothing wrong\n")
    for part in (load_checkpoint("general").sha256, "licence  BSD-3-Clause", "image, particles", "robust", "2.6"):
        assert part in text
    assert command_line(["inspect", "general", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["summary"]["card"] == {"data": "none", "licence": "BSD-3-Clause"}
    assert record["summary"]["angpix_range"] == [2.0, 5.0]


def test_a_folder_of_that_name_is_another_thing_and_it_is_said(
    general_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "general").mkdir()
    assert command_line(["inspect", "general"]) == 0
    assert "the folder of that name here is ./general" in capsys.readouterr().out
    assert command_line(["inspect", "./general"]) == 1
    assert "holds no micrograph" in capsys.readouterr().out


def test_damaged_weights_and_a_missing_card_are_found(general_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (general_model / "MODEL_CARD.md").unlink()
    assert command_line(["inspect", "general"]) == 1
    assert "MODEL_CARD.md: missing" in capsys.readouterr().out
    payload = bytearray((general_model / "model.safetensors").read_bytes())
    payload[-3] ^= 1
    (general_model / "model.safetensors").write_bytes(payload)
    assert command_line(["inspect", "general"]) == 1
    assert "damaged: restore it" in capsys.readouterr().out


def test_a_build_without_it_says_so(no_general_model: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["inspect", "general"]) == 1
    assert "this build of cryoplug comes without it" in capsys.readouterr().out
