"""The unit for systemd, the line for cron and the Snakefile of examples/facility, run as far as a test can."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cryoplug.formats.mrc import write_mrc
from cryoplug.formats.star import image_table, read_star
from facility.made_service import FACILITY

UNIT = "cryoplug-denoise@.service"


def systemd_analyze(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here (Debian: apt-get install systemd)")
    return subprocess.run(["systemd-analyze", *words], cwd=cwd, capture_output=True, text=True, check=False)


def test_systemd_understands_every_line_of_the_unit(tmp_path: Path) -> None:
    text = (FACILITY / UNIT).read_text().replace("/opt/cryoplug/bin/python", sys.executable)
    (tmp_path / UNIT).write_text(text)
    done = systemd_analyze("verify", "--man=no", f"./{UNIT}", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / UNIT).write_text(text.replace("KillMode=mixed", "KilMode=mixed"))
    assert "KilMode" in systemd_analyze("verify", "--man=no", f"./{UNIT}", cwd=tmp_path).stderr, "the check can fail"


def test_systemd_calls_the_unit_well_protected() -> None:
    done = systemd_analyze("security", "--offline=yes", "--threshold=25", f"./{UNIT}", cwd=FACILITY)
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_unit_writes_where_the_settings_do_and_nowhere_else() -> None:
    unit, settings = (FACILITY / UNIT).read_text(), (FACILITY / "krios1.toml").read_text()
    (writable,) = re.findall(r"(?m)^ReadWritePaths=(.*)$", unit)
    (mount,) = re.findall(r"(?m)^RequiresMountsFor=(.*)$", unit)
    (output,) = re.findall(r'(?m)^output = "(.*)"$', settings)
    assert output.startswith(f"{writable}/") and writable.startswith(f"{mount}/")


class Cron:
    """The line of the crontab, with a program in cryoplug's place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        variables, self.line = {}, ""
        for line in (FACILITY / "crontab").read_text().splitlines():
            if line.startswith("*/"):
                self.line = line.split(maxsplit=5)[5]
            elif not line.startswith("#"):
                name, _, value = line.partition("=")
                variables[name] = value
        assert "%" not in self.line, "cron makes newlines of them"
        path = f"{folder / 'bin'}{os.pathsep}{variables['PATH']}"
        self.environment = {"PATH": path, "LOG": variables["LOG"], "HOME": str(folder)}

    def cryoplug_does(self, script: str) -> None:
        path = self.folder / "bin" / "cryoplug"
        path.write_text(f"#!/bin/sh\necho \"$@\" > '{self.folder}/called'\n{script}\n")
        path.chmod(0o755)

    def run(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", "-c", self.line],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def cron(tmp_path: Path) -> Cron:
    if shutil.which("flock") is None:
        pytest.skip("no flock here (util-linux)")
    return Cron(tmp_path)


def test_cron_mails_only_when_something_is_wrong(cron: Cron) -> None:
    cron.cryoplug_does("echo all is well; echo really >&2; exit 0")
    done = cron.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (cron.folder / "cryoplug-session.log").read_text() == "all is well\nreally\n"
    cron.cryoplug_does("echo mic.mrc: failed >&2; exit 3")
    done = cron.run()
    assert done.stdout == "cryoplug ended with 3\nmic.mrc: failed\n" and not done.stderr


def test_cron_never_runs_two_at_once(cron: Cron) -> None:
    cron.cryoplug_does("exit 0")
    lock = re.search(r"\S+\.lock", cron.line)
    assert lock is not None
    with open(cron.folder / lock[0], "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = cron.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "") and not (cron.folder / "called").exists()


def test_cron_gives_options_that_cryoplug_knows(cron: Cron) -> None:
    from cryoplug.cli.denoise import denoise

    cron.cryoplug_does("exit 0")
    cron.run()
    words = (cron.folder / "called").read_text().split()
    assert words[0] == "denoise"
    assert denoise.make_context("denoise", words[1:]).params["idle_exit"] == 90.0


@pytest.fixture
def snakemake() -> str:
    found = shutil.which("snakemake")
    if found is None:
        pytest.skip("no snakemake here: make test-facility installs it into an environment of its own")
    return found


@pytest.mark.slow
def test_snakemake_denoises_in_parts_and_does_what_is_new(
    tmp_path: Path, snakemake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "cryoplug").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cryoplug "$@"\n')
    (tmp_path / "bin" / "cryoplug").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(FACILITY.parents[1]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    names = [f"a mic {seed}.mrc" for seed in range(3)]
    for seed, name in enumerate(names):
        pixels = np.random.default_rng(seed).normal(50, 4, (96, 96)).astype(np.float32)
        write_mrc(tmp_path / name, pixels, pixel_size_angstrom=2.6)
    (tmp_path / "bad.mrc").write_bytes(b"x" * 2000)
    listed = tmp_path / "mics.txt"
    command = [
        snakemake,
        "-s",
        str(FACILITY / "Snakefile"),
        "--cores",
        "2",
        "--config",
        "micrographs=mics.txt",
        "parts=2",
    ]
    for count in (2, 3):
        listed.write_text("\n".join([*names[:count], "bad.mrc"]) + "\n")
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        written = image_table(read_star(Path("denoised/micrographs.star"))).block.column("rlnMicrographName")
        assert sorted(written) == [f"denoised/{name}" for name in names[:count]], "what failed is left out"
    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert "Nothing to be done" in again.stderr + again.stdout
