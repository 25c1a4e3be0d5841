"""What tests rely on in a forked process: it ends, dies, prints and sees its surroundings as a fresh one does."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from warm_start import WarmStart


def test_a_child_has_its_own_words_folder_and_variables(warm_start: WarmStart, tmp_path: Path) -> None:
    program = "import os, sys; print(sys.argv[1:], os.getcwd(), sorted(os.environ)); print('said', file=sys.stderr)"
    child = warm_start.start("a b", 3, program=program, folder=tmp_path, environment={"ONLY": "this"})
    out, err = child.communicate(timeout=60)
    assert out == f"['a b', '3'] {tmp_path} ['ONLY']\n" and err == "said\n"
    assert child.returncode == 0 and child.pid != os.getpid()


ENDS = [
    ("raise SystemExit(7)", 7),
    ("raise SystemExit(-1)", 255),
    ("raise SystemExit('told')", 1),
    ("raise ValueError('no')", 1),
]


@pytest.mark.parametrize(("program", "code"), [*ENDS, ("raise SystemExit", 0), ("", 0), ("import os; os.abort()", -6)])
def test_the_exit_code_is_that_of_the_program(warm_start: WarmStart, program: str, code: int) -> None:
    child = warm_start.start(program=program)
    assert child.wait(timeout=60) == code
    said = child.communicate()[1]
    assert ("ValueError: no" in said, "told" in said) == ("ValueError" in program, "told" in program)


def test_a_child_waits_for_its_threads_and_does_what_was_left_for_the_end(warm_start: WarmStart) -> None:
    program = (
        "import atexit, threading, time\natexit.register(print, 'at the end')\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()\nprint('program')"
    )
    assert warm_start.start(program=program).communicate(timeout=60)[0].split("\n") == [
        "program",
        "thread",
        "at the end",
        "",
    ]


def test_the_interrupt_of_a_child_is_its_end(warm_start: WarmStart) -> None:
    assert warm_start.start(program="raise KeyboardInterrupt").wait(timeout=60) == -signal.SIGINT


def test_a_killed_child_is_dead_and_one_that_runs_is_not(warm_start: WarmStart) -> None:
    child = warm_start.start(program="import time; time.sleep(600)")
    assert child.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(timeout=0.1)
    child.kill()
    assert child.wait(timeout=60) == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_the_work_of_a_child_is_its_own_and_its_imports_are_done(warm_start: WarmStart) -> None:
    first = warm_start.start(program="import torch; print(torch.ones(3).sum().item())")
    assert first.communicate(timeout=60)[0] == "3.0\n"
    busy = warm_start.start(program="import time\nend = time.process_time() + 1\nwhile time.process_time() < end: pass")
    busy.wait(timeout=120)
    assert first.end is not None and busy.end is not None
    assert busy.end.work_s > 1 and busy.end.work_s > first.end.work_s


def test_a_child_runs_the_command(warm_start: WarmStart, tmp_path: Path) -> None:
    child = warm_start.start("inspect", tmp_path / "gone.mrc")
    printed, said = child.communicate(timeout=60)
    assert child.returncode == 1 and "gone.mrc" in printed + said
