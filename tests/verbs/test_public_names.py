"""What ``import cryoplug`` offers: quickly, to a person, to an editor and to a type checker."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import cryoplug

ROOT = Path(__file__).resolve().parents[2]

USER = """
from pathlib import Path
from typing import assert_type

import numpy as np
import numpy.typing as npt

import cryoplug

image: npt.NDArray[np.uint8] = np.ones((64, 64), np.uint8)
assert_type(cryoplug.denoise(image, pixel_size_angstrom=1.1, target="particles"), npt.NDArray[np.float32])
done = cryoplug.denoise(["a.mrc", Path("b.mrc")], "out", star="out/all.star", progress=print, note=print)
assert_type(done, cryoplug.Outcome)
assert_type(done.outputs, tuple[Path, ...])
for failure in done.failures:
    assert_type(failure, cryoplug.FileResult)
judged = cryoplug.evaluate("a_EVN.mrc", "judged", require_better_than="gaussian")
assert_type(judged.met, bool | None)
assert_type(cryoplug.simulate("made", defocus=(1, 2)).lists, tuple[Path, ...])
with cryoplug.open_store("data") as store:
    noisy, clean = store.pair(0)
    assert_type(noisy, npt.NDArray[np.float32])

cryoplug.denoise("a.mrc")  # type: ignore[call-overload]
cryoplug.denoise(image, pixel_size_angstrom=1.1, star="a.star")  # type: ignore[call-overload]
cryoplug.denoise("a.mrc", "out", target="particle")  # type: ignore[call-overload]
cryoplug.evaluate("a.mrc", "out", tiles=3)  # type: ignore[call-arg]
cryoplug.simulated  # type: ignore[attr-defined]
"""
"""A script of a user; where a comment says that mypy must complain, it must."""


def in_a_process(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *options, "-c", code], env=environment, capture_output=True, text=True, check=True
    )


def test_importing_cryoplug_loads_nothing_that_takes_time() -> None:
    loaded = in_a_process("import sys; before = {*sys.modules}; import cryoplug; print(*({*sys.modules} - before))")
    of_others = {name.partition(".")[0] for name in loaded.stdout.split()} - sys.stdlib_module_names
    assert of_others == {"cryoplug"} and "cryoplug.verbs" not in loaded.stdout


def test_the_names_are_the_same_for_a_person_an_editor_and_a_star_import() -> None:
    tree = ast.parse(Path(cryoplug.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    for_editors = {
        alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert for_editors == cryoplug._HOMES
    assert cryoplug.__all__ == sorted(["__version__", *for_editors]) == dir(cryoplug)
    assert all(getattr(cryoplug, name) is not None for name in cryoplug.__all__)
    with pytest.raises(AttributeError, match="no attribute 'denoize'"):
        cryoplug.denoize  # noqa: B018


def test_every_public_name_is_explained() -> None:
    for name in set(cryoplug.__all__) - {"__version__"}:
        text = getattr(cryoplug, name).__doc__ or ""
        assert len(text.splitlines()[0]) > 15, name


@pytest.mark.slow
def test_a_user_s_script_is_checked_strictly(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(USER, encoding="utf-8")
    # The script has nothing of torch, which takes mypy half a minute to read.
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = True\n[mypy-torch.*]\nfollow_imports = skip\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=mypy.ini", "--cache-dir=cache", "script.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in done.stdout.splitlines() if line.startswith("script.py")]
    assert done.returncode == 0 and not complaints, done.stdout + done.stderr
