"""The blocks of README and docs run, from the first to the last of a page, as a reader types them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from conftest import write_general_model
from documentation.blocks import PAGES, SHELL, Block, blocks, name
from documentation.command_lines import command_lines
from documentation.reader import Reader, lay_out_project
from warm_start import WarmStart

ELSEWHERE = ("docs/commands.md", "docs/plugins.md", "plugins/")
"""A made page without commands; pages whose blocks the tests of the plugins run."""


def runs(block: Block) -> bool:
    """Say whether a block is one that a reader types, here and now."""
    if block.reason or block.language not in ("", "python", *SHELL):
        return False
    return bool(block.language) or bool(command_lines(block.text))


PAGES_WITH_BLOCKS = [
    page for page in PAGES if not name(page).startswith(ELSEWHERE) and any(runs(block) for block in blocks(page))
]


def parameter(page: Path) -> ParameterSet:
    """Mark a page that trains or evaluates: it takes several seconds."""
    long = any(re.search("cryoplug train|evaluate", block.script) for block in filter(runs, blocks(page)))
    return pytest.param(page, id=name(page), marks=[pytest.mark.slow] if long else [])


def test_a_block_that_changes_the_machine_is_not_run() -> None:
    typed = [block for page in PAGES_WITH_BLOCKS for block in filter(runs, blocks(page))]
    changes = re.compile(
        r"\b(?:pip install|venv|apt|apt-get|conda|make|sudo|docker|apptainer|sbatch|curl|wget|rm -r)\b"
    )
    assert [str(block) for block in typed if changes.search(block.script)] == []


@pytest.fixture(scope="module")
def reader(warm_start: WarmStart, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    place = tmp_path_factory.mktemp("r")
    reader = Reader(warm_start, write_general_model(place / "general"), place)
    yield reader
    reader.close()


@pytest.fixture(scope="module")
def project(reader: Reader, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    lay_out_project(reader, folder)
    return folder


@pytest.mark.parametrize("page", [parameter(page) for page in PAGES_WITH_BLOCKS])
def test_a_reader_can_type_every_block_of_a_page(page: Path, reader: Reader, project: Path, tmp_path: Path) -> None:
    folder, answer = tmp_path / "project", ""
    shutil.copytree(project, folder)
    for block in blocks(page):
        if block.mark == "says: 1 lines":  # a verdict, of three lines, is that of a real network
            assert without_numbers(answer.splitlines()[0]) == without_numbers(block.text.strip()), block
        if runs(block):
            run = reader.python if block.language == "python" else reader.type
            done = run(block.script, folder)
            assert done.returncode == 0, f"{block}\n{block.script}\n{done.stdout}\n{done.stderr}"
            answer = done.stdout


def without_numbers(line: str) -> str:
    """Give an answer as it is of fewer and smaller micrographs, too."""
    return re.sub(r"\d+(?:\.\d+)?", "0", line)


def test_a_command_that_fails_is_seen(reader: Reader, project: Path, tmp_path: Path) -> None:
    assert reader.type("cryoplug denoise no_such.mrc -o out\ntrue", tmp_path).returncode == 4
    assert reader.type("cryoplug inspect no_such.mrc | cat", tmp_path).returncode != 0
    assert reader.python("import cryoplug\ncryoplug.no_such_name", tmp_path).returncode == 1
