"""Container files and conda recipe say what pyproject.toml says, and what they name is there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from distribution.building import OF_THE_BUILD, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DOCKERFILE = (ROOT / "containers" / "Dockerfile").read_text(encoding="utf-8")
APPTAINER = (ROOT / "containers" / "cryoplug.def").read_text(encoding="utf-8")
RECIPE = (ROOT / "recipe" / "recipe.yaml").read_text(encoding="utf-8")

NAMES_OF_CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
NOT_FOR_USERS = {"test", "lint", "pages", "docs"}
"""Extras for who works on cryoplug itself."""
OF_OTHERS = {"cuda", "all"}
"""Extras that torch brings itself, and that stand for the rest."""
USERS_EXTRAS = {
    name: texts for name, texts in PROJECT["optional-dependencies"].items() if name not in NOT_FOR_USERS | OF_OTHERS
}


def without_comments(text: str) -> str:
    return "\n".join(line for line in text.replace("\\\n", " ").splitlines() if not line.lstrip().startswith("#"))


def steps(word: str) -> list[str]:
    """Give what follows an instruction of the Dockerfile, for each time that it is there."""
    return [rest for line in without_comments(DOCKERFILE).splitlines() for rest in re.findall(rf"^{word} +(.*)$", line)]


def section(name: str) -> list[str]:
    """Give the lines of a section of the Apptainer definition."""
    text = without_comments(APPTAINER).partition(f"\n%{name}\n")[2].partition("\n%")[0]
    return [line.strip() for line in text.splitlines() if line.strip()]


def listed(key: str) -> list[str]:
    """Give a list of the recipe, by the line above it."""
    found = re.search(rf"(?m)^( *)(?:- )?{key}:\n((?:\1 +- .*\n)+)", RECIPE)
    assert found is not None, key
    return [line.strip().removeprefix("- ") for line in found[2].splitlines()]


def conda_requirement(text: str) -> str:
    item = Requirement(text)
    return f"{NAMES_OF_CONDA.get(item.name, item.name)} {item.specifier}"


def test_both_containers_copy_what_a_build_needs() -> None:
    docker = {name for step in steps("COPY") if not step.startswith("--") for name in step.split()[:-1]}
    apptainer = {line.split()[0] for line in section("files")}
    assert docker == apptainer == {*OF_THE_BUILD, "cryoplug"}
    assert all(line.split()[1] == f"/source/{line.split()[0]}" for line in section("files"))
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[0] == "!"}
    assert let_in == docker


def test_both_containers_install_alike_and_name_extras_that_exist() -> None:
    docker = [command.strip() for step in steps("RUN") for command in step.split("&&")]
    pip = [command.replace("${TORCH_OPTIONS}", "{{ TORCH_OPTIONS }}") for command in docker if "/pip " in command]
    assert pip == [line for line in section("post") if "/pip " in line] and len(pip) == 2
    extras = set(re.findall(r'"\.\[(.*)\]"', pip[1])[0].split(","))
    assert extras == USERS_EXTRAS.keys()
    assert PROJECT["optional-dependencies"]["all"] == [f"cryoplug[{','.join(USERS_EXTRAS)}]"]
    assert {line for line in docker if "apt-get" in line} == {line for line in section("post") if "apt-get" in line}


def test_both_containers_start_the_command_on_a_python_that_suits() -> None:
    (script,) = PROJECT["scripts"]
    assert steps("ENTRYPOINT") == [f'["{script}"]'] and section("runscript") == [f'exec {script} "$@"']
    bases = {*re.findall(r"(?m)^ARG BASE=(.*)$", DOCKERFILE), *re.findall(r"(?m)^From: (.*)$", APPTAINER)}
    (base,) = bases
    assert SpecifierSet(PROJECT["requires-python"]).contains(base.removeprefix("python:").removesuffix("-slim"))


@pytest.mark.parametrize("name", ["post", "runscript", "test", "environment"])
def test_the_sections_of_the_apptainer_definition_are_shell(name: str) -> None:
    script = "\n".join(section(name)).replace("{{ TORCH_OPTIONS }}", "--no-cache-dir")
    assert script
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)


def test_the_steps_of_the_dockerfile_are_shell() -> None:
    for step in steps("RUN"):
        subprocess.run(["sh", "-n"], input=step, text=True, check=True)


def test_the_conda_recipe_has_the_version_and_the_requirements_of_the_project() -> None:
    assert re.findall(r'(?m)^  version: "(.*)"$', RECIPE) == [PROJECT["version"]]
    python = f"python {PROJECT['requires-python']}"
    assert listed("run") == [python, *map(conda_requirement, PROJECT["dependencies"])]
    extras = [conda_requirement(text) for texts in USERS_EXTRAS.values() for text in texts]
    assert sorted(listed("run_constraints")) == sorted(extras)
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    assert listed("host") == [python, "pip", *map(conda_requirement, build)]
    assert listed("entry_points") == [f"{name} = {target}" for name, target in PROJECT["scripts"].items()]
    assert f"license: {PROJECT['license']}\n" in RECIPE and f'summary: "{PROJECT["description"]}"' in RECIPE


def test_the_commands_of_the_recipe_s_test_are_understood() -> None:
    commands = [shlex.split(line) for line in listed("script") if line.startswith("cryoplug ")]
    assert len(commands) == 3
    for words in commands[1:]:
        flags = {word for word in words if word.startswith("-")}
        shown = subprocess.run(
            [sys.executable, "-m", "cryoplug", words[1], "--help"], capture_output=True, text=True, check=True
        ).stdout
        assert all(flag in shown for flag in flags), words


def test_no_file_of_the_packaging_names_a_host() -> None:
    for path in (
        ROOT / "containers" / "Dockerfile",
        ROOT / "containers" / "cryoplug.def",
        ROOT / "recipe" / "recipe.yaml",
    ):
        assert "://" not in path.read_text(encoding="utf-8"), "which index torch comes from is the user's own choice"
