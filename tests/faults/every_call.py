"""Calls to the disk that go wrong: the first one, the second one, and so on until a run makes no more of them.

A random moment finds what is often wrong; this finds what is wrong between two particular calls.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from faults.process import Surroundings
from faults.signals import RESULTS, convert_words, denoise_words, train_words, weights_as_undisturbed
from faults.soundness import unsound
from faults.table import fault
from faults.trial import Trial

_GOES_WRONG = Path(__file__).with_name("failing_call.py")
_MOST_CALLS = 60
"""More would mean that the calls never end."""
_KILLED = -9


def _injected(trial: Trial, call: str, what: str, when: str) -> Surroundings:
    """Give surroundings in which a call of `os` goes wrong; ``.hit`` in the row's folder appears when it does."""
    marker = trial.folder / ".hit"
    marker.unlink(missing_ok=True)
    return Surroundings({"FAULTS_CALL": f"{call}:{what}:{when}:{marker}"}, first=_GOES_WRONG)


def _was_hit(trial: Trial) -> bool:
    return (trial.folder / ".hit").exists()


def _each(trial: Trial, words: list[str], call: str, what: str, *, step: int = 1) -> Iterator[int]:
    """Run a command into an empty ``out``, each time with another call that goes wrong; give the number of the call."""
    for number in range(1, _MOST_CALLS, step):
        shutil.rmtree(trial.out, ignore_errors=True)
        running = trial.start(*words, how=_injected(trial, call, what, str(number)))
        done = running.finish()
        if not _was_hit(trial):
            trial.check(number > 1, f"{number - 1} calls of {call}", f"{call} was never called")
            return
        wanted = _KILLED if what == "KILL" else 5
        if number == 1:
            trial.judge(done, code=wanted, says=() if what == "KILL" else os.strerror(5))
        elif done.code != wanted:
            trial.problems.append(f"call {number}: exit code {done.code}, not {wanted}: {done.line()}")
        if broken := unsound(trial.out):
            trial.problems.append(f"call {number}: under its final name: {broken}")
        yield number
    trial.problems.append(f"more than {_MOST_CALLS} calls of {call}")


def _for_each(
    trial: Trial, words: list[str], call: str, what: str, check: Callable[[], None], *, step: int = 1
) -> None:
    problems = len(trial.problems)
    for number in _each(trial, words, call, what, step=step):
        facts = len(trial.facts)
        trial.run(*words)
        check()
        trial.no_leftovers()
        del trial.facts[facts:]
        if len(trial.problems) > problems:
            trial.problems.append(f"(at call {number} of {call})")
            return
    trial.facts.append("after each of them nothing incomplete under a final name")
    trial.facts.append("the same command then gave what an undisturbed run gives, to the bit, and left nothing behind")


def _denoise_words(trial: Trial) -> list[str]:
    return denoise_words(trial, "--star", "out/m.star")


@fault
def each_fsync_fails_denoise(trial: Trial) -> None:
    """The disk fails at each fsync of denoise in turn (EIO)."""
    trial.add("mic_0001.mrc")
    _for_each(trial, _denoise_words(trial), "fsync", "EIO", lambda: trial.same_results(RESULTS[:1]))


@fault
def each_rename_fails_denoise(trial: Trial) -> None:
    """The disk fails at each renaming of denoise in turn (EIO)."""
    trial.add("mic_0001.mrc")
    _for_each(trial, _denoise_words(trial), "replace", "EIO", lambda: trial.same_results(RESULTS[:1]))


@fault
def killed_at_each_fsync_denoise(trial: Trial) -> None:
    """Kill -9 at each fsync of denoise in turn."""
    trial.add("mic_0001.mrc")
    _for_each(trial, _denoise_words(trial), "fsync", "KILL", lambda: trial.same_results(RESULTS[:1]))


@fault
def killed_at_each_rename_denoise(trial: Trial) -> None:
    """Kill -9 at each renaming of denoise in turn."""
    trial.add("mic_0001.mrc")
    _for_each(trial, _denoise_words(trial), "replace", "KILL", lambda: trial.same_results(RESULTS[:1]))


@fault
def killed_at_each_fsync_convert(trial: Trial) -> None:
    """Kill -9 at each third fsync of convert in turn."""
    trial.add()
    store = trial.bench.store
    same = lambda: trial.same_files(trial.out, store, "*.bin", "the store's bins")  # noqa: E731 - one idea, one line
    _for_each(trial, convert_words(), "fsync", "KILL", same, step=3)


@fault
def killed_at_each_rename_convert(trial: Trial) -> None:
    """Kill -9 at each renaming of convert in turn."""
    trial.add()
    store = trial.bench.store
    same = lambda: trial.same_files(trial.out, store, "*.bin", "the store's bins")  # noqa: E731
    _for_each(trial, convert_words(), "replace", "KILL", same)


@fault
def killed_at_each_rename_train(trial: Trial) -> None:
    """Kill -9 at each renaming of train in turn."""
    _for_each(trial, train_words(trial), "replace", "KILL", lambda: weights_as_undisturbed(trial), step=2)


@fault
def stale_handle(trial: Trial) -> None:
    """The file server forgets a handle for a moment (ESTALE at the third read)."""
    trial.add()
    trial.fault(*denoise_words(trial), code=0, how=_injected(trial, "preadv", "ESTALE", "3"))
    trial.check(_was_hit(trial), "the read failed once", "no read failed")
    trial.same_results(RESULTS)


@fault
def bad_disk(trial: Trial) -> None:
    """The disk of the inputs fails and stays so (EIO): every micrograph is named."""
    trial.add()
    words = denoise_words(trial)
    trial.fault(
        *words, code=5, says=("mic_0006.mrc", "Input/output error"), how=_injected(trial, "preadv", "EIO", "1+")
    )
    trial.only_results([])
    trial.no_leftovers()
    trial.run(*words)
    trial.same_results(RESULTS)
