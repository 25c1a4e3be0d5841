"""How one logs in, and what is said when that does not work."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from cryosparc_project import CryosparcProject

IS_5 = CryosparcProject.major == 5
only_5 = pytest.mark.skipif(not IS_5, reason="cryosparc-tools 4 has no login command")
only_4 = pytest.mark.skipif(IS_5, reason="cryosparc-tools 5 logs in by a command")


@only_5
def test_the_login_command_of_cryosparc_tools_is_all_that_is_needed(
    project: CryosparcProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.home / "cryosparc-tools" / "auth.json").unlink()
    monkeypatch.delenv("CRYOSPARC_BASE_URL")
    words = ["--url", project.wire.url, "--email", "ali@example.com", "--password", "p"]
    subprocess.run(
        [sys.executable, "-m", "cryosparc.tools", "login", *words], check=True, capture_output=True, env=os.environ
    )
    assert project.run().code == 0


@only_5
def test_without_a_login_the_command_is_said(project: CryosparcProject) -> None:
    (project.home / "cryosparc-tools" / "auth.json").unlink()
    outcome = project.run()
    assert outcome.code == 2
    assert f"python -m cryosparc.tools login --url {project.wire.url}" in outcome.error


@only_5
def test_an_unknown_address_asks_for_it(project: CryosparcProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRYOSPARC_BASE_URL")
    path = project.home / "cryosparc-tools" / "auth.json"
    known = json.loads(path.read_text())
    path.write_text(json.dumps({**known, "http://elsewhere:39000": known[project.wire.url]}))
    outcome = project.run()
    assert outcome.code == 2
    assert f"which cryoSPARC? (logged in to {project.wire.url}, http://elsewhere:39000) give --url" in outcome.error
    assert project.run("--url", f"{project.wire.url}/").code == 0


@only_4
@pytest.mark.parametrize("name", ["CRYOSPARC_LICENSE_ID", "CRYOSPARC_EMAIL", "CRYOSPARC_PASSWORD"])
def test_a_variable_that_is_not_set_is_named(
    project: CryosparcProject, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv(name)
    outcome = project.run()
    assert outcome.code == 2 and f"{name}: not set; cryosparc-tools 4 logs in by these variables" in outcome.error


@only_4
@pytest.mark.parametrize("debug", [(), ("--debug",)])
def test_a_wrong_password_is_said_and_never_shown(
    project: CryosparcProject, monkeypatch: pytest.MonkeyPatch, debug: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CRYOSPARC_PASSWORD", "hunter2")
    command = (*debug, "cryosparc", "denoise", "--project", "P1", "--workspace", "W1", "--exposures", "J1")
    outcome = project.run(command=command)
    assert outcome.code == 2 and "does not accept the login" in outcome.error
    assert "hunter2" not in outcome.stderr + outcome.stdout


def test_a_server_of_another_version_is_remarked(project: CryosparcProject) -> None:
    project.server.version = "v6.1.0"
    outcome = project.run()
    assert outcome.code == 0
    assert "v6.1.0 may not be compatible with current cryosparc-tools version" in outcome.stderr
