"""The wheel and the source archive in a clean environment: the command works there, far from the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import cryoplug
from cryoplug.formats.mrc import write_mrc
from distribution.building import build

pytestmark = pytest.mark.slow


class CleanEnvironment:
    """A new environment, which borrows the libraries that cryoplug needs from this one instead of downloading them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        (site,) = folder.glob("lib/python*/site-packages")
        # A path in a .pth file: its packages are seen, but not its own .pth files, and so no cryoplug in development.
        (site / "borrowed.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")

    def run(self, *words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment; a failure shows what it said."""
        program, *arguments = map(str, words)
        surroundings = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(
            [self.folder / "bin" / program, *arguments],
            cwd=cwd,
            env=surroundings,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done

    def install(self, archive: Path) -> None:
        """Install what was built, without the network, and see that all it asks for is there."""
        pip = ("python", "-m", "pip", "--quiet", "--disable-pip-version-check")
        # This environment's cryoplug, which is borrowed, too, is none of the new one's: it stays where it is.
        self.run(
            *pip, "install", "--ignore-installed", "--no-index", "--no-deps", "--no-build-isolation", archive,
            cwd=self.folder,
        )  # fmt: skip
        self.run(*pip, "check", cwd=self.folder)


@pytest.fixture
def environment(tmp_path: Path) -> CleanEnvironment:
    return CleanEnvironment(tmp_path / "env")


def try_it(environment: CleanEnvironment, away: Path) -> None:
    """Use what is installed as a person would on the first day."""
    write_mrc(
        away / "a.mrc", np.random.default_rng(1).normal(50, 5, (96, 96)).astype(np.float32), pixel_size_angstrom=2.6
    )
    assert f"cryoplug {cryoplug.__version__}" in environment.run("cryoplug", "--version", cwd=away).stdout
    done = environment.run("cryoplug", "denoise", "a.mrc", "-o", "denoised", "--device", "cpu", cwd=away)
    assert "1 done" in done.stdout and "general model" in done.stderr
    assert (away / "denoised" / "a.mrc").is_file()
    assert "viewer" in (away / "denoised" / "report.html").read_text(encoding="utf-8"), "the page has its scripts"
    assert "licence" in environment.run("cryoplug", "inspect", "general", cwd=away).stdout.lower()
    code = (
        "import importlib.resources as resources, json, cryoplug; package = resources.files('cryoplug'); "
        "print(json.dumps([cryoplug.__file__, *((package / name).is_file() for name in ('py.typed', 'CITATION.cff'))]))"
    )
    where, *held = json.loads(environment.run("python", "-c", code, cwd=away).stdout)
    assert Path(where).is_relative_to(environment.folder) and held == [True, True]


def test_the_wheel_works_in_a_clean_environment(wheel: Path, environment: CleanEnvironment, tmp_path: Path) -> None:
    environment.install(wheel)
    try_it(environment, tmp_path)


def test_the_source_archive_can_be_installed(tree: Path, environment: CleanEnvironment, tmp_path: Path) -> None:
    # It builds the same wheel, which is tried above.
    environment.install(build(tree, "sdist", tmp_path))
    assert cryoplug.__version__ in environment.run("cryoplug", "--version", cwd=tmp_path).stdout
