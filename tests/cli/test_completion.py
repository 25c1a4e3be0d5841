"""What TAB offers, asked as the shells ask."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.shell_completion import ShellComplete, get_completion_class

from cryoplug.cli import completion
from cryoplug.cli.main import cli


def offered(*words: str) -> list[tuple[str, str]]:
    *before, incomplete = words
    found = ShellComplete(cli, {}, "cryoplug", "_CRYOPLUG_COMPLETE").get_completions(before, incomplete)
    return [(item.type, item.value) for item in found]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "saved_models" / "unet").mkdir(parents=True)
    (tmp_path / "a.mrc").touch()
    return tmp_path


def test_commands_and_options_are_completed() -> None:
    assert ("plain", "denoise") in offered("den")
    assert ("plain", "--checkpoint") in offered("denoise", "--che")
    assert ("plain", "--quiet") in offered("denoise", "--qui")


@pytest.mark.parametrize(
    "words",
    [
        ("denoise", ""),
        ("denoise", "Mic"),
        ("convert", "Mic"),
        ("evaluate", "Mic"),
        ("inspect", "Mic"),
        ("train", "da"),
        ("merge", "De"),
        ("denoise", "a.mrc", "-o", "De"),
        ("denoise", "--even", "a"),
        ("evaluate", "--denoised", "a"),
    ],
)
def test_files_are_left_to_the_shell(words: tuple[str, ...]) -> None:
    assert [kind for kind, _ in offered(*words)] == ["file"]


def test_a_checkpoint_is_general_or_a_folder(here: Path) -> None:
    assert offered("denoise", "--checkpoint", "") == [("plain", "general"), ("plain", "saved_models/")]
    assert offered("denoise", "--checkpoint", "saved_models/") == [("plain", "saved_models/unet/")]
    assert offered("train", "data", "--init", "gen") == [("plain", "general")]
    assert offered("denoise", "--checkpoint", "nowhere/") == []


def test_networks_choices_and_devices_are_completed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ("plain", "unet") in offered("train", "--model", "u")
    assert offered("convert", "--pairs", "ha") == [("plain", "halves")]
    assert [value for _, value in offered("denoise", "--device", "")] == ["auto", "cpu", "cuda"]
    (here / "gpus" / "0000:01:00.0").mkdir(parents=True)
    monkeypatch.setattr(completion, "_GPUS", here / "gpus")
    assert [value for _, value in offered("denoise", "--device", "cuda")] == ["cuda", "cuda:0"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_documented_shell_has_its_script(shell: str) -> None:
    found = get_completion_class(shell)
    assert found is not None
    script = found(cli, {}, "cryoplug", "_CRYOPLUG_COMPLETE").source_vars()
    assert script["prog_name"] == "cryoplug"
