"""Several processes on one output, and locks of processes that are no more."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

from faults.signals import (
    RESULTS,
    a_result_is_there,
    an_epoch_is_kept,
    convert_words,
    denoise_words,
    train_words,
    weights_as_undisturbed,
)
from faults.table import fault
from faults.trial import Trial

_BEAT_S = 5.0


@fault
def two_denoise(trial: Trial) -> None:
    """Two processes denoise into one folder: they share the work."""
    trial.add()
    words = denoise_words(trial, "--json")
    other = trial.start(*words)
    first = trial.start(*words)
    done = [trial.judge(process.finish(), code=0) for process in (other, first)]
    lines = [json.loads(line) for process in done for line in process.stdout.splitlines()]
    worked = sorted(line["input"] for line in lines if line["status"] == "done")
    trial.check(len(worked) == len(RESULTS) == len(set(worked)), "each done by one of them", f"done: {worked}")
    trial.same_results(RESULTS)
    trial.no_leftovers()


@fault
def two_denoise_one_killed(trial: Trial) -> None:
    """Two processes denoise into one folder and one is killed: the other does its work too."""
    trial.add()
    words = denoise_words(trial)
    victim, other = trial.start(*words), trial.start(*words)
    victim.wait_until(a_result_is_there(trial))
    victim.send(signal.SIGKILL)
    victim.finish()
    trial.judge(other.finish(), code=0)
    trial.same_results(RESULTS)


@fault
def two_convert(trial: Trial) -> None:
    """Two processes convert into one store: the second is refused."""
    trial.add()
    first = trial.start(*convert_words())
    first.wait_until(lambda: any(trial.out.glob(".*lock*")))
    first.send(signal.SIGSTOP)
    trial.fault(*convert_words(), code=8, says=f"in use by process {first.pid}")
    first.send(signal.SIGCONT)
    trial.check(first.finish().code == 0, "the first went on", "the first failed")
    trial.same_files(trial.out, trial.bench.store, "*.bin", "the store's bins")


@fault
def two_train(trial: Trial) -> None:
    """Two processes train into one run folder: the second is refused."""
    first = trial.start(*train_words(trial))
    first.wait_until(an_epoch_is_kept(trial, 1))
    first.send(signal.SIGSTOP)
    trial.fault(*train_words(trial), code=8, says=f"in use by process {first.pid}")
    first.send(signal.SIGCONT)
    trial.check(first.finish().code == 0, "the first went on", "the first failed")
    weights_as_undisturbed(trial)


def _foreign_lock(path: Path, beat: int) -> None:
    """Write a lock as a process of another machine would; in place, as that process does."""
    record = {"host": "node7", "pid": 4711, "started": "123", "machine": "another boot", "beat": f"{beat:012d}"}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("r+b" if path.exists() else "wb") as stream:
        stream.write(json.dumps(record).encode() + b"\n")


@fault
def dead_lock(trial: Trial) -> None:
    """The lock of a process that was killed lies in the store: it is taken over at once."""
    trial.add()
    first = trial.start(*convert_words())
    first.wait_until(lambda: any(trial.out.glob(".*lock*")))
    first.send(signal.SIGKILL)
    first.finish()
    trial.check(any(trial.out.glob(".*lock*")), "the lock was left behind", "no lock was left: nothing was tried")
    done = trial.fault(*convert_words(), code=0)
    trial.check(done.seconds < 30, "taken over without waiting", f"waited {done.seconds:.0f} s")
    trial.same_files(trial.out, trial.bench.store, "*.bin", "the store's bins")
    trial.no_leftovers()


@fault
def dead_lock_reused_number(trial: Trial) -> None:
    """The lock of a dead process whose number another process has now."""
    trial.add()
    first = trial.start(*convert_words())
    first.wait_until(lambda: any(lock.stat().st_size for lock in trial.out.glob(".*lock*")))
    first.send(signal.SIGKILL)
    first.finish()
    (lock,) = trial.out.glob(".*lock*")
    record = json.loads(lock.read_bytes())
    lock.write_text(json.dumps({**record, "pid": os.getpid()}) + "\n")
    done = trial.fault(*convert_words(), code=0)
    trial.check(done.seconds < 30, "taken over without waiting", f"waited {done.seconds:.0f} s")
    trial.same_files(trial.out, trial.bench.store, "*.bin", "the store's bins")


@fault
def live_lock_of_another_host(trial: Trial) -> None:
    """A process on another machine converts into this store: refused."""
    trial.add()
    lock = _store_lock(trial)
    ended = threading.Event()

    def beat() -> None:
        count = 0
        while not ended.wait(_BEAT_S):
            count += 1
            _foreign_lock(lock, count)

    _foreign_lock(lock, 0)
    beater = threading.Thread(target=beat, daemon=True)
    beater.start()
    trial.fault(*convert_words(), code=8, says="process 4711 on node7")
    ended.set()
    beater.join()
    trial.check(json.loads(lock.read_bytes())["pid"] == 4711, "its lock stays", "its lock was taken")


@fault
def dead_lock_of_another_host(trial: Trial) -> None:
    """The lock of another machine shows no sign of life: taken over after a minute."""
    trial.add("mic_0001.mrc", "mic_0002.mrc")
    lock = _store_lock(trial)
    _foreign_lock(lock, 7)
    done = trial.fault(*convert_words(), code=0)
    trial.check(50 < done.seconds < 90, "waited for a sign of life for a minute", f"waited {done.seconds:.0f} s")
    trial.check((trial.out / "dataset.json").exists(), "store complete", "no store")


def _store_lock(trial: Trial) -> Path:
    """Find the name of the lock of a store by stopping a first convert there, and empty the folder again."""
    first = trial.start(*convert_words())
    first.wait_until(lambda: any(trial.out.glob(".*lock*")))
    first.send(signal.SIGSTOP)
    (lock,) = trial.out.glob(".*lock*")
    first.send(signal.SIGKILL)
    first.finish()
    for path in trial.out.iterdir():
        path.unlink()
    return lock


@fault
def second_denoise_waits(trial: Trial) -> None:
    """A second process finds all that is left in the hands of the first: it waits and loses nothing."""
    trial.add("mic_0001.mrc", "mic_0002.mrc")
    words = denoise_words(trial)
    first = trial.start(*words)
    first.wait_until(lambda: any((trial.out / ".cryoplug").glob("*.claim")))
    first.send(signal.SIGSTOP)
    second = trial.start(*words)
    second.wait_until(lambda: "works on this output folder too" in second.said)
    first.send(signal.SIGCONT)
    trial.judge(second.finish(), code=0, says="works on this output folder too")
    trial.check(first.finish().code == 0, "the first ended well", "the first failed")
    trial.same_results(RESULTS[:2])
    trial.no_leftovers()
