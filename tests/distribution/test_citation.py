"""How cryoplug is cited: CITATION.cff, which the package holds, too."""

from __future__ import annotations

import importlib.resources
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import cryoplug
from distribution.building import ROOT

CITATION = ROOT / "CITATION.cff"


def test_the_package_has_the_citation_of_the_repository_which_is_its_one_source() -> None:
    packed = importlib.resources.files("cryoplug") / "CITATION.cff"
    assert packed.read_text(encoding="utf-8") == CITATION.read_text(encoding="utf-8")
    assert (ROOT / "cryoplug" / "CITATION.cff").readlink() == Path("../CITATION.cff")


def test_the_citation_names_this_version_and_its_licence() -> None:
    fields = dict(re.findall(r'(?m)^([a-z-]+): "?(.+?)"?$', CITATION.read_text(encoding="utf-8")))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert fields["version"] == cryoplug.__version__ == project["version"]
    assert fields["license"] == project["license"]
    assert fields["cff-version"] == "1.2.0" and {"message", "title", "type"} <= fields.keys()


@pytest.mark.slow
def test_cffconvert_finds_the_citation_valid(tmp_path: Path) -> None:
    # In an environment of its own: it needs an old jsonschema.
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
    install = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "cffconvert==2.0.0"]
    environment = {**os.environ, "PYTHONPATH": ""}
    got = subprocess.run([*install, "setuptools<81"], env=environment, capture_output=True, text=True, check=False)
    if got.returncode:
        pytest.skip(f"cffconvert cannot be installed here: {got.stderr.strip().splitlines()[-1]}")
    checked = subprocess.run(
        [python.with_name("cffconvert"), "--validate", "-i", CITATION],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0 and "valid" in checked.stdout, checked.stdout + checked.stderr
