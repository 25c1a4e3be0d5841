"""Slurm's own programs: submit a script, ask what became of jobs, end them."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryoplug.errors import CryoplugError, UsageError

ENDED = frozenset(
    ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE", "PREEMPTED")
)
POLL_S = 2.0
GRACE_S = 60.0
"""A task that was asked to end finishes what it is writing; after so long Slurm ends it."""


@dataclass(frozen=True)
class Task:
    """A job, or a task of an array."""

    name: str
    """``12`` or ``12_3``; tasks that wait together are one, ``12_[4-7]``."""
    state: str
    """Slurm's word."""
    exit_code: int = 0
    """Of its script; 128 plus the signal that ended it."""
    restarts: int = 0
    """How often it went back into the queue."""

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.state in ENDED


def submit(script: str) -> str:
    """Hand a script to sbatch; give the number of the job."""
    return _run(["sbatch", "--parsable"], script).strip().partition(";")[0]


def tasks(job: str) -> list[Task]:
    """Ask Slurm about a job, which remembers those that ended for some minutes.

    Raises
    ------
    UsageError
        It knows no such job.
    """
    if not re.fullmatch(r"\d+(_\d+)?", job):
        raise UsageError(f"{job}: not the number of a job (allowed: 12, or 12_3 for a task of an array)")
    found = []
    for line in _run(["scontrol", "show", "job", "--oneliner", job]).splitlines():
        fields = dict(re.findall(r"(\w+)=(\S*)", line))
        if "JobId" not in fields:
            continue
        name = fields["JobId"]
        if "ArrayJobId" in fields and "ArrayTaskId" in fields:
            number = fields["ArrayTaskId"]
            name = f"{fields['ArrayJobId']}_{number if number.isdigit() else f'[{number}]'}"
        code, _, signal = fields.get("ExitCode", "0:0").partition(":")
        exit_code = int(code) if code != "0" else 128 * (signal not in ("", "0")) + int(signal or 0)
        found.append(Task(name, fields.get("JobState", "?"), exit_code, int(fields.get("Restarts", "0"))))
    return sorted(found, key=lambda task: [int(part) for part in re.findall(r"\d+", task.name)])


def follow(jobs: Sequence[str], tell: Callable[[str], None], *, poll_s: float = POLL_S) -> list[Task]:
    """Wait until jobs have ended, and tell what changes meanwhile; give what became of each task."""
    told: dict[str, tuple[str, int]] = {}
    while True:
        now = [task for job in jobs for task in tasks(job)]
        for task in now:
            if told.get(task.name) != (task.state, task.restarts):
                told[task.name] = task.state, task.restarts
                again = f", back in the queue {task.restarts} times so far" if task.restarts else ""
                tell(f"{task.name}: {task.state}{again}{f', exit code {task.exit_code}' if task.exit_code else ''}")
        if all(task.ended for task in now):
            return now
        time.sleep(poll_s)


def cancel(jobs: Sequence[str], *, grace_s: float = GRACE_S) -> list[Task]:
    """End jobs: what waits leaves the queue, what runs is asked to end, and is ended by force after a while."""
    for job in jobs:
        tasks(job)  # refuse what is no job before anything is ended
    for job in reversed(jobs):
        _end(["--state=PENDING", job])
        _end(["--signal=TERM", "--batch", "--state=RUNNING", job])
    end = time.monotonic() + grace_s
    while time.monotonic() < end and not all(task.ended for job in jobs for task in tasks(job)):
        time.sleep(min(POLL_S, 0.5))
    for job in jobs:
        _end([job])
    return [task for job in jobs for task in tasks(job)]


def _end(words: list[str]) -> None:
    # It complains of jobs that have ended meanwhile; what became of them is asked for afterwards.
    subprocess.run(["scancel", *words], capture_output=True, check=False)


def _run(command: list[str], text: str | None = None) -> str:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise UsageError(
            f"{command[0]}: not found; log in to a machine of the cluster, or load its Slurm module"
        ) from error
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        wrong = UsageError if "nvalid" in said else CryoplugError
        raise wrong(f"{command[0]}: {said}; correct the options, or ask the people of the cluster")
    return done.stdout
