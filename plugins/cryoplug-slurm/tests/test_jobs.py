"""What is said of jobs, and what is remembered of them, with programs in Slurm's place that answer as it does."""

from __future__ import annotations

import json
import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryoplug.errors import CryoplugError, UsageError
from made_project import WORDS, call, make

from cryoplug_slurm import jobs
from cryoplug_slurm.jobs import FORGOTTEN, Task

UNKNOWN = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
AWAY = "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1"


def record(name: str, state: str, *, exit_code: str = "0:0", reason: str = "None", restarts: int = 0) -> str:
    """Write what ``scontrol show job --oneliner`` says of a task."""
    job, _, task = name.partition("_")
    array = f"ArrayJobId={job} ArrayTaskId={task.strip('[]')} " if task else ""
    fields = f"JobState={state} Reason={reason} Dependency=(null) Restarts={restarts} ExitCode={exit_code}"
    return f"echo {shlex.quote(f'JobId={job} {array}JobName=cryoplug {fields}')}"


class Slurm:
    """Programs that give one answer after the other; the last one for ever."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder

    def answers(self, program: str, *answers: str) -> None:
        cases = "\n".join(f"{number}) {answer};;" for number, answer in enumerate(answers[:-1], start=1))
        turn = self._folder / f"{program}.turn"
        path = self._folder / program
        path.write_text(
            f"#!/bin/sh\necho \"$*\" >> '{path}.called'\nturn=$(($(cat '{turn}' 2>/dev/null || echo 0) + 1))\n"
            f"echo $turn > '{turn}'\ncase $turn in\n{cases}\n*) {answers[-1]};;\nesac\n"
        )
        path.chmod(0o755)

    def called(self, program: str) -> list[str]:
        path = self._folder / f"{program}.called"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def slurm(here: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    monkeypatch.setenv("PATH", f"{here / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(jobs, "POLL_S", 0.01)
    return Slurm(here / "bin")


def both(*records: str) -> str:
    return "; ".join(records)


def test_what_slurm_forgets_while_others_run_is_remembered(slurm: Slurm) -> None:
    slurm.answers(
        "scontrol",
        record("12_[0-2]", "PENDING", reason="Priority"),
        both(record("12_0", "FAILED", exit_code="5:0"), record("12_1", "RUNNING"), record("12_[2]", "PENDING")),
        both(record("12_1", "RUNNING"), record("12_2", "RUNNING")),
        record("12_2", "COMPLETED"),
        UNKNOWN,
    )
    told: list[str] = []
    ended = jobs.follow(["12"], told.append)
    assert ended == [Task("12_0", "FAILED", 5, reason="None"), Task("12_1", FORGOTTEN, reason="None"), ended[2]]
    assert ended[2].state == "COMPLETED" and "12_0: FAILED, exit code 5" in told and "12_1: FORGOTTEN" in told
    assert "12_[0-2]: PENDING" in told, "a queue is no news"


def test_a_forgotten_task_is_no_success(slurm: Slurm, capfd: pytest.CaptureFixture[str]) -> None:
    slurm.answers("scontrol", record("12", "RUNNING"), UNKNOWN)
    assert call("follow", "12", "--json") == 3
    assert json.loads(capfd.readouterr().out)["state"] == FORGOTTEN


def test_a_controller_that_is_away_is_waited_for(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm.answers("scontrol", record("12", "RUNNING"), AWAY, AWAY, record("12", "COMPLETED"))
    told: list[str] = []
    assert [task.state for task in jobs.follow(["12"], told.append)] == ["COMPLETED"]
    (away,) = {text for text in told if "does not answer" in text}
    assert "Unable to contact slurm controller" in away and away.endswith("; asking again")
    monkeypatch.setattr(jobs, "PATIENCE_S", 0.0)
    slurm.answers("scontrol", *[record("12", "RUNNING")] * 9, AWAY)
    with pytest.raises(CryoplugError, match="does not answer"):
        jobs.follow(["12"], told.append)


def test_why_a_job_waits_is_told_when_it_is_not_its_turn_that_is_missing(slurm: Slurm) -> None:
    slurm.answers(
        "scontrol",
        record("12", "PENDING", reason="Resources"),
        record("12", "PENDING", reason="DependencyNeverSatisfied"),
        record("12", "CANCELLED"),
    )
    told: list[str] = []
    jobs.follow(["12"], told.append)
    assert told == ["12: PENDING", "12: PENDING (DependencyNeverSatisfied)", "12: CANCELLED"]


@pytest.mark.parametrize("command", ["follow", "cancel"])
@pytest.mark.parametrize(
    ("number", "answer", "said"),
    [
        ("999", UNKNOWN, "999: Slurm knows no such job; it forgets jobs some minutes after their end"),
        ("twelve", UNKNOWN, "twelve: not the number of a job (allowed: 12, or 12_3"),
        ("--all", UNKNOWN, "No such option '--all'"),
        ("12", "echo 'scontrol: fatal: Could not establish a configuration source' >&2; exit 1", "finds no cluster"),
    ],
    ids=["unknown", "no number", "option", "no cluster"],
)
def test_a_job_that_is_none_is_refused_before_anything_is_ended(
    command: str, number: str, answer: str, said: str, slurm: Slurm, capfd: pytest.CaptureFixture[str]
) -> None:
    slurm.answers("scontrol", answer)
    slurm.answers("scancel", "exit 0")
    assert call(command, number) == 2
    error = capfd.readouterr().err
    assert said in error and "Traceback" not in error and "error: error" not in error
    assert not slurm.called("scancel")


def test_without_slurm_a_sentence_says_what_to_do(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(here))
    for words in (["follow", "12"], ["cancel", "12"]):
        assert call(*words) == 2
        assert "scontrol: not found; log in to a machine of the cluster" in capfd.readouterr().err


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C interrupts, also where what runs the tests ignores it, as a shell does in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_the_waiting_and_not_the_jobs(slurm: Slurm, capfd: pytest.CaptureFixture[str]) -> None:
    slurm.answers("scontrol", record("12", "RUNNING"), f"kill -INT $PPID; {record('12', 'RUNNING')}")
    slurm.answers("scancel", "exit 0")
    assert call("follow", "12") == 130
    assert "the jobs go on; cryoplug slurm follow 12 waits again" in capfd.readouterr().err
    assert not slurm.called("scancel")


def test_cancel_asks_first_and_ends_by_force_later(slurm: Slurm) -> None:
    slurm.answers("scontrol", *[record("12", "RUNNING")] * 3, record("12", "CANCELLED", exit_code="0:15"))
    slurm.answers("scancel", "exit 0")
    told: list[str] = []
    assert [str(task) for task in jobs.cancel(["12"], told.append)] == ["12: CANCELLED, exit code 143"]
    assert slurm.called("scancel") == ["--state=PENDING 12", "--signal=TERM --batch --state=RUNNING 12", "12"]
    assert told == ["12: finishes what it is writing, for 60 s at most"]


def test_a_job_of_somebody_else_is_not_said_to_be_cancelled(
    slurm: Slurm, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jobs, "GRACE_S", 0.05)
    slurm.answers("scontrol", record("12", "RUNNING"))
    slurm.answers("scancel", "echo 'scancel: error: Kill job error on job id 12: Access/permission denied' >&2; exit 1")
    assert call("cancel", "12") == 1
    said = capfd.readouterr()
    assert "12: Slurm does not end it (Kill job error on job id 12: Access/permission denied)" in said.err
    assert not said.out


def test_what_sbatch_complains_of_is_said_once(slurm: Slurm) -> None:
    slurm.answers("sbatch", "echo 'sbatch: error: Batch job submission failed: Invalid partition name' >&2; exit 1")
    with pytest.raises(UsageError, match=r"^sbatch: Batch job submission failed: Invalid partition name; correct"):
        jobs.submit("#!/bin/sh\n")


def test_parts_go_on_when_the_job_that_merges_is_refused(slurm: Slurm, capfd: pytest.CaptureFixture[str]) -> None:
    make(Path.cwd())
    refused = "echo 'sbatch: error: Batch job submission failed: Access/permission denied' >&2; exit 1"
    slurm.answers("sbatch", "cat > array.sbatch; echo 12", f"cat > merge.sbatch; {refused}")
    words = ["--sbatch=--gres=gpu:1", "--sbatch=--mem-per-gpu=8G", "--sbatch=--partition=gpu", "--sbatch=-d afterok:7"]
    assert call("submit", "denoise", *words, *WORDS) == 1
    said = capfd.readouterr().err
    assert "job 12 denoises; when it has ended, run: cryoplug merge out" in said
    assert "the job that merges was refused: sbatch: Batch job submission failed: Access/permission denied" in said
    script = Path("merge.sbatch").read_text()
    assert "--partition=gpu" in script and "gpu:1" not in script and "per-gpu" not in script
    assert [line for line in script.splitlines() if "afterok:7" in line or "afterany" in line] == [
        "#SBATCH --dependency=afterany:12"
    ]
