"""The template plugin works as it stands, and plugins/README.md says what is in it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = ROOT / "plugins"
TEMPLATE = PLUGINS / "template"


def project(folder: Path) -> dict:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def plugin_folders() -> list[Path]:
    return sorted(path.parent for path in PLUGINS.glob("*/pyproject.toml"))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with the metadata that pip would write for the template."""
    about = project(TEMPLATE)
    folder = tmp_path / "site" / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n")
    lines = [
        line
        for group, entries in about["entry-points"].items()
        for line in [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    ]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder.parent


def run(site: Path, *arguments: str, module: str = "cryoplug") -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "CRYOPLUG_NO_PLUGINS"}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (site, TEMPLATE, ROOT)))
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, env=environment, cwd=site, capture_output=True, text=True, check=False)


def test_template_offers_a_command_a_model_and_a_format_that_work(site: Path) -> None:
    listed = run(site, "plugins", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    records = [record for record in map(json.loads, listed.stdout.splitlines()) if "template" in record["distribution"]]
    assert {(record["group"], record["name"], record["state"], record["error"]) for record in records} == {
        ("commands", "brightness", "ok", ""),
        ("models", "one_conv", "ok", ""),
        ("formats", "npy", "ok", ""),
    }


def test_command_of_the_template_reads_its_format(site: Path) -> None:
    np.save(site / "a.npy", np.full((3, 4), 2.5, np.float32))
    done = run(site, "brightness", "a.npy")
    assert done.stdout == "a.npy: mean 2.5\n", done.stderr


def test_inspect_uses_the_format_of_a_plugin(site: Path) -> None:
    pixels = np.ones((3, 4), np.float32)
    pixels[0, 0] = np.nan
    np.save(site / "bad.npy", pixels)
    done = run(site, "inspect", "bad.npy", "--json")
    assert done.returncode == 1, done.stderr
    record = json.loads(done.stdout)
    assert record["summary"]["format"].startswith("npy")
    assert record["summary"]["nonfinite_pixels"] == 1
    assert [item["severity"] for item in record["findings"]] == ["error"]


def test_tests_of_the_template_pass(site: Path) -> None:
    arguments = ["-q", "-p", "no:cacheprovider", "-c", str(TEMPLATE / "pyproject.toml"), str(TEMPLATE / "tests")]
    done = run(site, *arguments, module="pytest")
    assert done.returncode == 0, done.stdout + done.stderr


def test_code_in_the_readme_is_the_code_of_the_template() -> None:
    text = (PLUGINS / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w+\n# (\S+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == text.count("```") // 2, "every block names its file in its first line"
    for name, code in blocks:
        assert code in (PLUGINS / name).read_text(encoding="utf-8"), f"{name} no longer holds what the README shows"


@pytest.mark.parametrize("folder", plugin_folders(), ids=lambda path: path.name)
def test_plugin_is_a_distribution_of_its_own(folder: Path) -> None:
    about = project(folder)
    assert about["dependencies"], "a plugin names what it needs"
    assert (folder / "README.md").is_file()
    assert list((folder / "tests").glob("test_*.py"))
