"""What the README shows works as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from scipion_here import PLUGIN, PROTOCOLS

from cryoplug_scipion import Plugin

README = (PLUGIN / "README.md").read_text()


def _block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    return found


def test_project_without_the_window(tmp_path: Path) -> None:
    (tmp_path / "project.py").write_text(_block("python"))
    script = _block("sh").replace("VENV/cryoplug", Plugin.getHome()).replace("VENV", sys.prefix)
    settings = ("SCIPION_", "EM_ROOT")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(settings)}
    done = subprocess.run(
        ["bash", "-euc", script], cwd=tmp_path, env=clean, text=True, capture_output=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shown = [line.split() for line in done.stdout.splitlines() if line.startswith("mic_000")]
    assert [(name, size) for name, _, size in shown] == [("mic_0001.mrc", "2.6"), ("mic_0002.mrc", "2.6")]


def test_the_tables_name_the_protocols_and_their_outputs() -> None:
    rows = re.findall(r"^\| .* \| `(CryoplugProt\w+)` \| .* \| `(\w+)` \|$", README, flags=re.MULTILINE)
    said = {name: [output.name for output in PROTOCOLS[name]._possibleOutputs] for name, _ in rows}
    assert said == {name: [output] for name, output in rows}
    assert len(rows) == 3
