"""The template plugin, installed into a fresh environment, does what docs/plugins.md says, which shows all of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

from cryoplug.extensions import OFF_VARIABLE

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = ROOT / "plugins"
TUTORIAL = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
HELP_CPU_S = 0.4
"""Processor time that ``cryoplug --help`` may take, with plugins installed."""
PIP = """#!/bin/sh
# What is needed is there already: nothing is downloaded, and nothing outside this environment is replaced.
shift
exec "{python}" -m pip install --quiet --no-index --no-deps --no-build-isolation --ignore-installed "$@"
"""


@dataclass(frozen=True)
class Environment:
    """A virtual environment with cryoplug of this checkout, and a folder to work in that holds plugins/template."""

    folder: Path

    def run(self, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a line as a shell does, with the environment's programs."""
        hidden = (OFF_VARIABLE, "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        kept = {name: value for name, value in os.environ.items() if name not in hidden}
        search = f"{self.folder / 'env' / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
        return subprocess.run(
            ["/bin/sh", "-c", command],
            env={**kept, **variables, "PATH": search},
            cwd=self.folder / "work",
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """cryoplug as pip installs it; its requirements are those of the running environment."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder / "env", with_pip=False, symlinks=True)
    (site,) = (folder / "env").glob("lib/python*/site-packages")
    shared = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site / "zz_requirements.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in shared))
    pip = folder / "env" / "bin" / "pip"
    pip.write_text(PIP.format(python=folder / "env" / "bin" / "python"))
    pip.chmod(0o755)
    # Copies: a build leaves files beside its sources.
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (folder / "cryoplug").mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / "cryoplug")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    shutil.copytree(ROOT / "cryoplug", folder / "cryoplug" / "cryoplug", ignore=ignored)
    shutil.copytree(PLUGINS / "template", folder / "work" / "plugins" / "template", ignore=ignored)
    found = Environment(folder)
    installed = found.run(f"pip install {folder / 'cryoplug'} && pip install ./plugins/template")
    assert installed.returncode == 0, installed.stderr
    return found


def examples() -> list[tuple[str, str]]:
    """Return every command of the tutorial with the output that is shown below it."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```$", TUTORIAL, flags=re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.replace("\\\n", " ").partition("\n")
            found.append((command, output))
    return found


def at_any_time(text: str) -> str:
    """Take the times out of records and of what is said on stderr."""
    text = re.sub(r'"time": "[-0-9T:.+]+"', '"time": ""', text)
    return re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", "", text, flags=re.MULTILINE)


@pytest.mark.slow
def test_the_tutorial_runs_as_it_is_written(environment: Environment) -> None:
    commands = [command for command, _ in examples()]
    assert len(commands) > 8 and commands[0] == "pip install ./plugins/template"
    for command, output in examples():
        done = environment.run(command)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        assert not output or at_any_time(done.stdout) == at_any_time(output), command


def test_code_of_the_tutorial_is_the_template_and_all_of_it() -> None:
    shown = dict(re.findall(r"^`(plugins/\S+)`:\n\n```\w+\n(.*?)^```$", TUTORIAL, flags=re.MULTILINE | re.DOTALL))
    blocks = re.findall(r"^```(\w+)$", TUTORIAL, flags=re.MULTILINE)
    assert len(shown) == len([kind for kind in blocks if kind != "console"]), "each block of code has its file above it"
    template = PLUGINS / "template"
    files = {path.relative_to(ROOT).as_posix() for path in (*template.rglob("*.py"), template / "pyproject.toml")}
    assert set(shown) == {name for name in files if "/build/" not in name}
    for name, code in shown.items():
        assert code == (ROOT / name).read_text(encoding="utf-8"), f"docs/plugins.md shows another {name}"


@pytest.mark.slow
def test_the_list_names_every_part_of_the_template(environment: Environment) -> None:
    listed = environment.run("cryoplug plugins list --json")
    records = [json.loads(line) for line in listed.stdout.splitlines()]
    parts = [record for record in records if record["distribution"] == "cryoplug-template"]
    assert [(part["group"], part["name"], part["version"], part["state"], part["error"]) for part in parts] == [
        ("commands", "brightness", "0.1.0", "ok", ""),
        ("formats", "npy", "0.1.0", "ok", ""),
        ("models", "one_conv", "0.1.0", "ok", ""),
    ]


@pytest.mark.slow
def test_help_stays_fast_with_plugins(environment: Environment) -> None:
    code = (
        "import time; from cryoplug.cli.main import run; run(['--help']); "
        "import sys; print('CPU', time.process_time(), file=sys.stderr)"
    )
    seconds = []
    for _ in range(3):
        done = environment.run(f'python -c "{code}"')
        assert "brightness" in done.stdout, done.stderr
        seconds.append(float(done.stderr.rpartition("CPU")[2]))
    assert min(seconds) < HELP_CPU_S


@pytest.mark.slow
def test_a_plugin_that_is_uninstalled_is_gone_and_a_broken_one_hurts_nothing(environment: Environment) -> None:
    (site,) = (environment.folder / "env").glob("lib/python*/site-packages")
    broken = site / "broken_plugin-3.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 3\n")
    (broken / "entry_points.txt").write_text(
        "[cryoplug.commands]\nbrightness = broken_plugin:x\n[cryoplug.formats]\nnpy = cryoplug_template.model:ONE_CONV\n"
    )
    try:
        listed = environment.run("cryoplug plugins list")
        assert listed.returncode == 0
        assert re.search(
            r"^brightness +commands +broken-plugin 3 +broken\n +importing .*No module", listed.stdout, re.M
        )
        assert re.search(
            r"^npy +formats +broken-plugin 3 +broken\n +its entry point leads to a ModelSpec", listed.stdout, re.M
        )
        assert environment.run("cryoplug brightness --help").returncode == 0
        python = "python -c \"import numpy; numpy.save('b.npy', numpy.eye(3))\""
        assert environment.run(f"{python} && cryoplug brightness b.npy").stdout == "b.npy: mean 0.333333\n"
    finally:
        shutil.rmtree(broken)


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in PLUGINS.glob("*/pyproject.toml")), ids=lambda path: path.name
)
def test_plugin_is_a_distribution_of_its_own(folder: Path) -> None:
    about = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert about["dependencies"], "a plugin names what it needs"
    assert (folder / "README.md").is_file()
    assert list((folder / "tests").glob("test_*.py"))
    assert f"({folder.name}/README.md)" in (PLUGINS / "README.md").read_text(encoding="utf-8"), "it is not in the index"
