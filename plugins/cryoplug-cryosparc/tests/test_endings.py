"""However it ends: one sentence, the right exit code, and a job that does not look as if it were running."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryosparc_project import CryosparcProject
from fake_cryosparc import WAIT_S

from cryoplug_cryosparc import denoising, endings, job_log
from cryoplug_cryosparc.thumbnails import Thumbnails

IS_5 = CryosparcProject.major == 5


@pytest.mark.parametrize(
    ("call", "code", "says"),
    [
        ("login", 500, "logging in: "),
        ("load", 500, "loading J1.micrographs: "),
        ("create", 503, "making an External job in P1 W1: "),
        ("add_input", 422, "job J2: connecting J1.micrographs: "),
        ("add_output", 422, "job J2: adding its output: "),
        ("start", 500, "job J2: starting: "),
        ("columns", 500, "job J2: asking for the columns of its output: "),
        ("save", 500, "job J2: saving its output: "),
    ],
)
def test_an_error_of_the_server_is_one_sentence_and_fails_the_job(
    project: CryosparcProject, call: str, code: int, says: str
) -> None:
    if call == "columns" and not IS_5:
        call, says = "save", "job J2: saving its output: "  # version 4 has the columns in the job's record
    project.server.refuse(call, code, "the database is away")
    outcome = project.run()
    assert outcome.code == (2 if call == "login" and not IS_5 else 1)
    assert says in outcome.error and "Traceback" not in outcome.stderr
    assert all(job.status == "failed" for job in project.server.external)
    for job in project.server.external:
        assert says in job.text()


def test_the_same_command_succeeds_when_the_server_is_well_again(project: CryosparcProject) -> None:
    project.server.refuse("save", 500)
    assert project.run().code == 1
    project.server.release_all()
    outcome = project.run()
    assert outcome.code == 0 and "4 skipped" in outcome.stdout
    assert [job.status for job in project.server.external] == ["failed", "completed"]
    assert "J2, begun " in outcome.stderr and "is failed in cryoSPARC, but its run has ended" in outcome.stderr
    rows = project.server.external[1].outputs["micrographs"].dataset
    assert len(rows) == 4
    for name in ("micrograph_blob_denoised", "micrograph_thumbnail_blob_1x", "micrograph_thumbnail_blob_2x"):
        assert all((project.folder / path).is_file() and path.startswith("J3/") for path in rows[f"{name}/path"])


def test_a_server_that_is_gone_is_said_and_nothing_is_lost(project: CryosparcProject) -> None:
    def go() -> None:
        project.wire.close()
        raise ConnectionAbortedError

    project.server.before("save", go)
    outcome = project.run()
    assert outcome.code == 1
    assert "job J2: saving its output: cryoSPARC at " in outcome.error and "does not answer" in outcome.error
    assert "J2 could not be marked as failed: " in outcome.stderr
    assert len(list((project.folder / "J2" / "denoised").rglob("*.mrc"))) == 4


def test_a_server_that_never_was_there_is_said(project: CryosparcProject) -> None:
    project.wire.close()
    outcome = project.run()
    assert outcome.code == 1
    assert f"logging in: cryoSPARC at {project.wire.url} does not answer" in outcome.error


def test_a_login_that_expires_is_said_with_the_way_to_log_in(project: CryosparcProject) -> None:
    def expire() -> None:
        project.server.login_is_valid = False

    project.server.before("upload", expire)
    outcome = project.run()
    assert outcome.code == 2
    assert "job J2: saving its output: " in outcome.error and "does not accept the login" in outcome.error
    way = f"python -m cryosparc.tools login --url {project.wire.url}" if IS_5 else "set CRYOSPARC_LICENSE_ID"
    assert way in outcome.error
    project.server.release_all()
    project.server.login_is_valid = True
    outcome = project.run()
    assert outcome.code == 0 and "J2, begun " in outcome.stderr and "is running in cryoSPARC" in outcome.stderr
    assert [job.status for job in project.server.external] == ["completed"]


def test_a_job_that_is_deleted_in_the_middle_is_said(project: CryosparcProject) -> None:
    def delete() -> None:
        project.server.jobs.pop("J2", None)

    project.server.before("show", delete)
    outcome = project.run()
    assert outcome.code == 1
    assert "J2" in outcome.error and "it is not in cryoSPARC any more; run again to make a new job" in outcome.error
    project.server.release_all()
    assert project.run().code == 0


@pytest.fixture
def slow_writer(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no second micrograph be finished before this process was asked to stop."""
    asked = []
    real_kill, real_make = os.kill, Thumbnails.make

    def kill(number: int, sign: int) -> None:
        real_kill(number, sign)
        asked.append(sign)

    def make(self: Thumbnails, micrograph: Path) -> object:
        made = real_make(self, micrograph)
        limit = WAIT_S / 0.01
        while not asked and limit > 0:
            limit -= 1
            job_log.time.sleep(0.01)
        assert asked, "nobody asked to stop"
        return made

    monkeypatch.setattr(job_log, "LOOK_S", 0.05)
    monkeypatch.setattr(job_log.os, "kill", kill)
    monkeypatch.setattr(Thumbnails, "make", make)
    yield


@pytest.mark.parametrize(("status", "code"), [("killed", 143), ("completed", 143), ("deleted", 1)])
def test_ending_the_job_in_cryosparc_ends_denoising(
    project: CryosparcProject, slow_writer: None, status: str, code: int
) -> None:
    def end() -> None:
        job = project.server.jobs["J2"]
        if status == "deleted":
            job.deleted = True
        elif job.status == "running":
            job.become(status)

    project.server.before("write_log", end)
    outcome = project.run()
    assert outcome.code == code
    assert f"J2 is {status} in cryoSPARC; stopping" in outcome.stderr
    (job,) = project.server.external
    assert job.history == (["running"] if status == "deleted" else ["running", status])
    finished = len(list((project.folder / "J2" / "denoised").rglob("*.mrc")))
    assert finished < 4
    project.server.release_all()
    again = project.run()
    assert again.code == 0 and project.server.external[-1].uid == "J3"
    kept = 0 if status == "deleted" else finished
    assert f"{4 - kept} done" in again.stdout and (f"{kept} skipped" in again.stdout) == (kept > 0)


def test_sigterm_while_denoising_fails_the_job_and_the_same_command_goes_on(
    project: CryosparcProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Thumbnails.make

    def make(self: Thumbnails, micrograph: Path) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(self, micrograph)

    with monkeypatch.context() as patch:
        patch.setattr(Thumbnails, "make", make)
        outcome = project.run()
    assert outcome.code == 143
    (job,) = project.server.external
    assert job.status == "failed" and "stopped by SIGTERM: " in job.text()
    finished = len(list((project.folder / "J2" / "denoised").rglob("*.mrc")))
    assert 1 <= finished < 4
    outcome = project.run()
    assert outcome.code == 0
    assert f"{4 - finished} done, {finished} skipped" in outcome.stdout
    assert [job.status for job in project.server.external] == ["failed", "completed"]


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 143)])
def test_a_signal_while_waiting_for_the_server_fails_the_job(
    project: CryosparcProject, sign: signal.Signals, code: int
) -> None:
    held = project.server.hold("save")

    def send() -> None:
        held.wait_until_reached()
        os.kill(os.getpid(), sign)

    sender = threading.Thread(target=send)
    sender.start()
    outcome = project.run()
    sender.join()
    assert outcome.code == code and "run the same command again to go on" in outcome.error
    (job,) = project.server.external
    assert job.status == "failed" and "cryoplug was stopped by " in job.text()
    assert signal.getsignal(sign) is not endings._raise


def test_an_unexpected_error_fails_the_job(project: CryosparcProject, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_arguments: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(denoising, "fill", break_down)
    outcome = project.run()
    assert outcome.code == 1 and "unexpected RuntimeError: a bug" in outcome.error
    (job,) = project.server.external
    assert job.status == "failed" and "cryoplug: unexpected RuntimeError: a bug" in job.text()


def test_a_server_that_hangs_does_not_hold_up_the_end(
    project: CryosparcProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endings, "MARKING_S", 1)
    project.server.refuse("save", 500)
    project.server.hold("status")
    outcome = project.run()
    assert outcome.code == 1 and "saving its output" in outcome.error
    assert "J2 could not be marked as failed: no answer within 1 s" in outcome.stderr


def test_a_full_disk_in_the_project_fails_the_job(project: CryosparcProject) -> None:
    mounted: list[Path] = []
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_up() -> None:
        place = project.folder / "J2" / "denoised"
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "full", str(place)]
        if os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0:
            mounted.append(place)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[1]))

    project.server.before("start", fill_up)
    try:
        outcome = project.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        for place in mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)
    assert outcome.code == 5
    assert ("No space left" if mounted else "File too large") in outcome.error
    (job,) = project.server.external
    assert job.status == "failed" and "J2/denoised" in job.text()
