"""Every command, option and target that a page names is there: a wrong one anywhere fails here."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from documentation.blocks import PAGES, REASONS, ROOT, SHELL, Block, blocks, name
from documentation.command_lines import (
    all_commands,
    all_options,
    command_lines,
    complaint,
    examples_of,
    unknown_options,
)

MADE = ROOT / "docs" / "commands.md"
"""Written from the commands themselves: its blocks are usages, not commands."""
BLOCKS = [block for page in PAGES if page != MADE for block in blocks(page)]
SCRIPTS = [block for block in BLOCKS if block.language in SHELL or (not block.language and command_lines(block.text))]
ABOUT_OTHERS = (
    "docs/alternatives.md",
    "docs/architecture.md",
    "docs/benchmarks.md",
    "docs/faults.md",
    "CONTRIBUTING.md",
    "plugins/",
)
"""Pages that name options of other programs and of scripts without their name beside them."""
FOREIGN = {
    "--even_odd_split",
    "--coord_dir",
    "--like-this",
    "--like_this",
    "--set_var",
    "--addJob",
    "--run",
    "--abort",
    "--o",
    "--in_mics",
    "--j",
    "--pipeline_control",
    "--nproc-per-node",
    "--max-restarts",
    "--shm-size",
    "--build-arg",
    "--gpus",
    "--nv",
    "--array",
}
"""Options of RELION's programs, torchrun, docker and sbatch, and one that stands for any."""


@pytest.mark.parametrize("block", SCRIPTS, ids=str)
def test_cryoplug_takes_every_command_line_of_a_block(block: Block) -> None:
    assert [reason for words in command_lines(block.script) if (reason := complaint(words))] == []


def test_the_pages_have_many_command_lines() -> None:
    assert len([words for block in BLOCKS for words in command_lines(block.script)]) > 60


@pytest.mark.parametrize("page", [page for page in PAGES if name(page) != "docs/faults.md"], ids=name)
def test_options_in_the_text_are_options_of_the_command_that_is_named(page: Path) -> None:
    found = re.findall(r"`cryoplug ([a-z][^`]*)`", page.read_text(encoding="utf-8").replace("\n", " "))
    assert [wrong for words in found if (wrong := unknown_options(words.split()))] == []


@pytest.mark.parametrize("page", [page for page in PAGES if not name(page).startswith(ABOUT_OTHERS)], ids=name)
def test_options_that_stand_alone_are_options_of_some_command(page: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    alone = {word.partition("=")[0] for word in re.findall(r"`(--[a-zA-Z][\w-]*(?:=\S*?)?)[ `]", text)}
    assert alone - all_options() - FOREIGN == set()


COMMANDS = {called: command for called, command in all_commands() if not isinstance(command, click.Group)}


@pytest.mark.parametrize("called", sorted(COMMANDS))
def test_every_command_has_examples_of_itself_and_takes_them(called: str) -> None:
    examples = examples_of(COMMANDS[called])
    assert examples and "..." not in " ".join(examples)
    for text in examples:
        lines = command_lines(text)
        assert [" ".join(["cryoplug", *words]).startswith(called) for words in lines] == [True], text
        assert not [reason for words in lines if (reason := complaint(words))]


@pytest.mark.parametrize("block", SCRIPTS, ids=str)
def test_make_targets_and_files_of_a_block_are_there(block: Block) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?m)^make ([a-z-]+)", block.script):
        assert re.search(rf"(?m)^{target}:", makefile), f"make {target}"
    for path in re.findall(r"(?m)^(?:\S*python3? )((?:examples|benchmarks|docs)/\S+\.py)", block.script):
        assert (ROOT / path).is_file(), path


def test_a_block_that_is_not_run_says_why_in_known_words() -> None:
    assert {block.mark for block in BLOCKS if block.mark.startswith("not run") and block.reason not in REASONS} == set()


@pytest.mark.parametrize(
    "wrong",
    [
        "cryoplug denoise a.mrc -o b --checkpiont x",
        "cryoplug denois a.mrc",
        "cryoplug train d --minutes soon",
        "cryoplug convert a.mrc",
    ],
)
def test_a_wrong_line_is_found(wrong: str) -> None:
    (words,) = command_lines(f"cd x && FOO=1 {wrong} | head -1  # a remark")
    assert complaint(words)
    assert not complaint(["denoise", "a.mrc", "-o", "b"])


def test_a_line_is_found_wherever_it_stands_in_a_script() -> None:
    script = 'cp "$(cryoplug relion share)"/a . && (cryoplug denoise \\\n a.mrc -o b; srun cryoplug merge b) > l # cryoplug train'
    assert sorted(words[0] for words in command_lines(script)) == ["denoise", "merge", "relion"]
    assert command_lines("relion_scheduler --schedule cryoplug --run") == []
