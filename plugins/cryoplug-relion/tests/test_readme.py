"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from cryoplug.formats.star import read_star
from relion_project import Project

README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.mark.slow
def test_project_without_the_gui(relion_project: Project) -> None:
    (script,) = re.findall(r"^```sh\n(.*?)^```$", README.read_text(), flags=re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=relion_project.folder,
        env=relion_project.environment,
        text=True,
        capture_output=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    project = relion_project.folder / "project"
    processes = read_star(project / "default_pipeline.star").block("pipeline_processes")
    assert processes.column("rlnPipeLineProcessStatus") == ["2", "2", "2"]
    particles = read_star(project / "Extract/job005/particles.star").block("particles")
    assert len(particles.rows) > 10
    assert all(name.startswith("Micrographs/") for name in particles.column("rlnMicrographName"))
