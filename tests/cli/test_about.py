"""What cryoplug tells of itself: its version, how it is cited, and an example of its configuration file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

import cryoplug
from cryoplug.cli.citation import read_citation
from cryoplug.cli.config import _ABOUT_CRYOPLUG
from cryoplug.cli.main import COMMANDS, cli, run
from cryoplug.models import shipped
from cryoplug.models.checkpoint import load_checkpoint


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run(list(words)) == 0
    return capsys.readouterr().out


def test_the_version_is_told_without_torch() -> None:
    code = "import sys; from cryoplug.cli.main import run; run(['--version']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"cryoplug {cryoplug.__version__} (cryo-EM micrograph denoiser)\n")


@pytest.mark.parametrize("words", [("--version", "--json"), ("--json", "--version")])
def test_the_version_as_json_says_what_results_depend_on(capsys: pytest.CaptureFixture[str], words) -> None:
    record = json.loads(printed(capsys, *words))
    assert (record["type"], record["cryoplug"]) == ("version", cryoplug.__version__)
    assert {"torch", "python", "cuda", "kernels", "general"} <= record.keys()
    if shipped.is_there():
        checkpoint = load_checkpoint(shipped.FOLDER)
        assert record["general"] == {"model": checkpoint.model_id, "sha256": checkpoint.sha256}


def test_json_before_a_command_is_refused_with_the_right_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--json", "inspect", "x"]) == 2
    assert "--json stands behind the command" in capsys.readouterr().err


def test_a_citation_has_title_authors_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    citation = read_citation()
    assert citation.version == cryoplug.__version__ and citation.title.startswith("cryoplug") and citation.authors
    sentence, entry = printed(capsys, "cite"), printed(capsys, "cite", "--bibtex")
    for text in (sentence, entry):
        assert all(part in text for part in (*citation.authors, citation.title, citation.version))
    assert entry.startswith("@software{cryoplug,\n") and entry.endswith("}\n") and entry.count("{") == entry.count("}")


def test_persons_and_a_doi_are_read_from_a_citation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "CITATION.cff").write_text(
        'title: "T"\nauthors:\n  - family-names: Curie\n    given-names: "Marie"\n  - name: "The others"\nversion: 1.2\n'
        "license: MIT\ndoi: 10.1/x\ndate-released: 2026-05-04\n"
    )
    monkeypatch.setattr("cryoplug.cli.citation.importlib.resources.files", lambda package: tmp_path)
    citation = read_citation()
    assert citation.authors == ("Curie, Marie", "The others")
    assert citation.sentence() == "Curie, Marie; The others (2026). T. Version 1.2. https://doi.org/10.1/x"
    assert "author = {Curie, Marie and {The others}}" in citation.bibtex() and "year = {2026}" in citation.bibtex()


def options_of(name: str) -> set[str]:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return {max(item.opts, key=len).lstrip("-") for item in command.params if isinstance(item, click.Option)}


def test_the_example_of_a_configuration_has_every_option_and_is_accepted_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cryoplug.toml"
    printed(capsys, "config", "-o", str(file))
    tables = re.split(r"(?m)^\[(.+)\]$", file.read_text())[1:]
    found = {
        name: set(re.findall(r"(?m)^#([a-z0-9-]+) =", text)) for name, text in zip(*[iter(tables)] * 2, strict=True)
    }
    wanted = set(COMMANDS) - set(_ABOUT_CRYOPLUG)
    assert found == {name: options_of(name) for name in wanted}
    assert printed(capsys, "--config", str(file), "plugins", "list", "--json") is not None


def test_every_default_of_the_example_is_accepted_where_its_comment_is_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = printed(capsys, "config")
    set_lines = re.sub(r"(?m)^#([a-z0-9-]+ = (?!  #).+)$", r"\1", text)
    assert len([line for table in tomllib.loads(set_lines).values() for line in table]) > 80
    Path("all.toml").write_text(set_lines)
    for command, words in {
        "denoise": ["a.mrc"],
        "convert": ["a.mrc"],
        "train": ["data"],
    }.items():
        more = [] if command == "train" else ["-o", "out"]
        capsys.readouterr()
        assert run(["--config", "all.toml", command, *words, *more]) in (2, 4)
        said = capsys.readouterr().err
        # The defaults got through: what is wrong is only that nothing is there (and two words for one thing in train).
        assert re.search("no such file|no file|not there|give one of them", said), said


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cryoplug.toml"
    file.write_text("mine")
    assert run(["config", "-o", str(file)]) == 2 and file.read_text() == "mine"
    assert run(["config", "denoise", "-o", str(file), "--overwrite"]) == 0 and "[denoise]" in file.read_text()
    assert run(["config", "nonsense"]) == 2
    assert "no command 'nonsense'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "meant"), [("--strenght", "--strength"), ("--quite", "--quiet"), ("--chekpoint", "--checkpoint")]
)
def test_a_misspelt_option_is_answered_with_the_one_that_was_meant(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["denoise", "a.mrc", "-o", "out", typed, "1"]) == 2
    said = capsys.readouterr().err
    assert "Did you mean" in said and meant in said
