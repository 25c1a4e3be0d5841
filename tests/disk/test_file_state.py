"""Laws of telling whether a file has changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cryoplug.disk.file_state import MISSING, file_content, file_state


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.mrc"
    path.write_bytes(b"12345")
    return path


def test_a_file_that_is_left_alone_has_not_changed(file: Path) -> None:
    assert file_state(file) == file_state(file) is not None


def test_other_bytes_of_the_same_length_are_a_change(file: Path) -> None:
    before = file_state(file)
    file.write_bytes(b"54321")
    os.utime(file, ns=(1, 1))
    assert before is not None and file_content(file) != before.content


def test_a_copy_with_its_time_has_the_same_content_and_is_another_file(file: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy2(file, tmp_path / "b.mrc"))
    ours, its = file_state(file), file_state(copy)
    assert ours is not None and its is not None
    assert ours.content == its.content and ours.same_file != its.same_file


def test_permissions_are_no_change_while_a_file_is_read(file: Path) -> None:
    before = file_state(file)
    file.chmod(0o600)
    after = file_state(file)
    assert before is not None and after is not None and before.same_file == after.same_file and before != after


def test_an_open_descriptor_tells_the_same(file: Path) -> None:
    with file.open("rb") as stream:
        assert file_state(stream.fileno()) == file_state(file)


@pytest.mark.parametrize("name", ["missing.mrc", "nul\0byte.mrc"])
def test_a_file_that_is_not_there_is_missing_and_comes_as_a_change(tmp_path: Path, name: str) -> None:
    assert file_state(tmp_path / name) is None and file_content(tmp_path / name) == MISSING
