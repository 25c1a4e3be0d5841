"""Call Slurm's programs: submit a script, ask for the state of jobs, end them."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cryoplug.errors import CryoplugError, UsageError

ENDED = frozenset(
    ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE", "PREEMPTED")
)
FORGOTTEN = "FORGOTTEN"
"""State of a task that Slurm has forgotten; how it ended is unknown."""
POLL_S = 2.0
PATIENCE_S = 600.0
"""Most seconds without an answer of Slurm's controller; a restart takes seconds, a failover minutes."""
GRACE_S = 60.0
"""Seconds that a task gets to finish its file after it was asked to end; then Slurm kills it."""
_USUAL_REASONS = frozenset(
    ("", "None", "(null)", "Priority", "Resources", "Dependency", "BeginTime", "JobArrayTaskLimit")
)
"""Reasons for which jobs usually wait; not worth a remark."""
_NO_ANSWER = ("contact", "timed out", "Zero Bytes", "onnection refused", "Communication")
_NO_CLUSTER = ("configuration source", "configuration file", "config file")
_NO_SUCH_JOB = "Invalid job id"


class UnknownJobError(UsageError):
    """Slurm does not know a job, or has forgotten it."""


class NoAnswerError(CryoplugError):
    """Slurm's controller did not answer."""


@dataclass(frozen=True)
class Task:
    """A job, or a task of an array."""

    name: str
    """``12`` or ``12_3``; tasks that wait together are one, ``12_[4-7]``."""
    state: str
    """State in Slurm's word, or `FORGOTTEN`."""
    exit_code: int = 0
    """Exit code of its script; 128 plus the signal, if a signal ended it."""
    restarts: int = 0
    """Number of times that it went back into the queue."""
    reason: str = ""
    """Reason why it waits, in Slurm's word."""

    @property
    def ended(self) -> bool:
        """Whether the task has ended."""
        return self.state in ENDED or self.state == FORGOTTEN

    def __str__(self) -> str:
        text = f"{self.name}: {self.state}"
        if self.state == "PENDING" and self.reason not in _USUAL_REASONS:
            text += f" ({self.reason})"
        if self.restarts:
            text += f", back in the queue {self.restarts} time{'s' * (self.restarts > 1)} so far"
        return text + (f", exit code {self.exit_code}" if self.ended and self.exit_code else "")


def submit(script: str) -> str:
    """Hand a script to sbatch; give the number of the job."""
    return _run(["sbatch", "--parsable"], script).strip().partition(";")[0]


def tasks(job: str) -> list[Task]:
    """Ask Slurm about a job; Slurm remembers ended jobs for some minutes.

    Raises
    ------
    UnknownJobError
        Slurm knows no such job.
    NoAnswerError
        Slurm's controller does not answer.
    """
    if not re.fullmatch(r"\d+(_\d+)?", job):
        raise UsageError(f"{job}: not the number of a job (allowed: 12, or 12_3 for a task of an array)")
    found = []
    for line in _run(["scontrol", "show", "job", "--oneliner", job], job=job).splitlines():
        fields = dict(re.findall(r"(\w+)=(\S*)", line))
        if "JobId" not in fields:
            continue
        name = fields["JobId"]
        if "ArrayJobId" in fields and "ArrayTaskId" in fields:
            number = fields["ArrayTaskId"]
            name = f"{fields['ArrayJobId']}_{number if number.isdigit() else f'[{number}]'}"
        code, _, signal = fields.get("ExitCode", "0:0").partition(":")
        exit_code = int(code) if code != "0" else 128 * (signal not in ("", "0")) + int(signal or 0)
        state, restarts = fields.get("JobState", "?"), int(fields.get("Restarts", "0"))
        found.append(Task(name, state, exit_code, restarts, fields.get("Reason", "")))
    return sorted(found, key=_order)


def follow(jobs: Sequence[str], tell: Callable[[str], None]) -> list[Task]:
    """Wait until jobs have ended, and report each change.

    Slurm forgets a task some minutes after its end, while others of its array may still wait; its last seen state is kept.

    Parameters
    ----------
    jobs
        Numbers of the jobs.
    tell
        Called with a line for each change.

    Returns
    -------
    list
        The last state of each task.

    Raises
    ------
    UnknownJobError
        Slurm never knew one of the jobs, or forgot it before it was first asked.
    NoAnswerError
        The controller was away for longer than `PATIENCE_S`.
    """
    seen: dict[str, dict[str, Task]] = {job: {} for job in jobs}
    told: dict[str, str] = {}
    last_answer = time.monotonic()
    while True:
        try:
            for job in jobs:
                seen[job] = _what_is_known(job, seen[job])
            last_answer = time.monotonic()
        except NoAnswerError as error:
            if time.monotonic() - last_answer > PATIENCE_S or not all(seen.values()):
                raise
            tell(f"{error}; asking again")
        now = [task for job in jobs for task in seen[job].values()]
        for task in now:
            if told.get(task.name) != str(task):
                told[task.name] = str(task)
                tell(str(task))
        if all(task.ended for task in now):
            return sorted(now, key=_order)
        time.sleep(POLL_S)


def cancel(jobs: Sequence[str], tell: Callable[[str], None]) -> list[Task]:
    """End jobs: waiting jobs leave the queue; running jobs are asked to end, and killed after a while.

    Raises
    ------
    CryoplugError
        Slurm did not end a job; the message gives its reason.
    """
    before = [task for job in jobs for task in tasks(job)]  # refuses what is no job before anything is ended
    if running := [task.name for task in before if task.state == "RUNNING"]:
        tell(f"{', '.join(running)}: finishes what it is writing, for {GRACE_S:.0f} s at most")
    for job in reversed(jobs):
        _end(["--state=PENDING", job])
        _end(["--signal=TERM", "--batch", "--state=RUNNING", job])
    _all_ended(jobs)
    said = [_end([job]) for job in jobs]
    if not _all_ended(jobs):
        alive = ", ".join(task.name for job in jobs for task in tasks(job) if not task.ended)
        why = " ".join(filter(None, said)) or "it does not say why"
        raise CryoplugError(f"{alive}: Slurm does not end it ({why}); ask the people of the cluster")
    return [task for job in jobs for task in tasks(job)]


def _what_is_known(job: str, before: dict[str, Task]) -> dict[str, Task]:
    """Ask about a job; tasks that Slurm has forgotten keep their last seen state."""
    try:
        now = {task.name: task for task in tasks(job)}
    except UnknownJobError:
        if not before:
            raise
        now = {}
    # Tasks that waited together are one until they start: 12_[4-7] is then 12_4 and 12_[5-7].
    gone = {name: task for name, task in before.items() if name not in now and (not now or "[" not in name)}
    return {name: task if task.ended else replace(task, state=FORGOTTEN) for name, task in gone.items()} | now


def _all_ended(jobs: Sequence[str]) -> bool:
    end = time.monotonic() + GRACE_S
    while not all(task.ended for job in jobs for task in tasks(job)):
        if time.monotonic() > end:
            return False
        time.sleep(min(POLL_S, 0.5))
    return True


def _order(task: Task) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", task.name)]


def _end(words: list[str]) -> str:
    # It complains of jobs that have ended meanwhile, too; whether it matters, is asked for afterwards.
    done = subprocess.run(["scancel", *words], capture_output=True, text=True, check=False)
    return _plain(done.stderr)


def _run(command: list[str], text: str | None = None, *, job: str = "") -> str:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise UsageError(
            f"{command[0]}: not found; log in to a machine of the cluster, or load its Slurm module"
        ) from error
    if not done.returncode:
        return done.stdout
    said = _plain(done.stderr) or f"exit code {done.returncode}"
    if job and _NO_SUCH_JOB in said:
        raise UnknownJobError(
            f"{job}: Slurm knows no such job; it forgets jobs some minutes after their end; squeue --me lists yours"
        )
    if any(words in said for words in _NO_CLUSTER):
        raise UsageError(f"{command[0]}: finds no cluster ({said}); log in to a machine of one, or set SLURM_CONF")
    if any(words in said for words in _NO_ANSWER):
        raise NoAnswerError(f"{command[0]}: Slurm does not answer ({said})")
    wrong = UsageError if "nvalid" in said else CryoplugError
    raise wrong(f"{command[0]}: {said}; correct the options, or ask the people of the cluster")


def _plain(said: str) -> str:
    """Give the error of a Slurm program on one line, without the program's name before each part."""
    return " ".join(re.sub(r"(?m)^\w+(?: error)?: (?:error: )?", "", said).split())
