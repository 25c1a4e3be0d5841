"""Signals: schedulers that kill, warn and take away."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

from faults.bench import CONVERT, MICROGRAPHS, TRAIN
from faults.process import Finished, Running
from faults.soundness import PARTIAL, unsound
from faults.table import fault
from faults.trial import Trial

RESULTS = [f"mic_{number:04}.mrc" for number in range(1, MICROGRAPHS + 1)]
"""Names of the results of the bench's micrographs."""


def denoise_words(trial: Trial, *more: str) -> list[str]:
    """Give the command that denoises ``in`` to ``out``."""
    return ["denoise", "in", "--checkpoint", str(trial.bench.checkpoint), "-o", "out", *more]


def convert_words(*more: str) -> list[str]:
    """Give the command that makes the bench's store anew."""
    return ["convert", "in", "-o", "out", *CONVERT, *more]


def train_words(trial: Trial) -> list[str]:
    """Give the command that repeats the bench's run of training."""
    return ["train", str(trial.bench.store), *TRAIN, "--checkpoint-dir", "out"]


def interrupted(trial: Trial, words: list[str], number: int, happened: Callable[[], bool]) -> Finished:
    """Start a command, send a signal when something has happened, and wait for the end."""
    running = trial.start(*words)
    if not running.wait_until(happened):
        trial.problems.append("ended before the signal could be sent")
    running.send(number)
    done = running.finish()
    broken = unsound(trial.out)
    trial.check(not broken, "nothing incomplete under a final name at that moment", f"at that moment: {broken}")
    return done


def a_result_is_there(trial: Trial) -> Callable[[], bool]:
    """Tell when the first denoised micrograph stands in ``out``."""
    return lambda: any(trial.out.glob("*.mrc"))


def something_is_half_written(trial: Trial) -> Callable[[], bool]:
    """Tell when a micrograph is being written."""
    return lambda: any(PARTIAL in path.name for path in trial.out.glob(".mic_*"))


def an_epoch_is_kept(trial: Trial, epoch: int) -> Callable[[], bool]:
    """Tell when training has kept the checkpoint of an epoch."""
    return (trial.out / "cryo_cnn" / f"epoch_{epoch:04}").exists


def weights_as_undisturbed(trial: Trial) -> None:
    """Check that training came to the bits of the undisturbed run."""
    run = trial.out / "cryo_cnn"
    trial.same_files(run, trial.bench.checkpoint, "epoch_*/conv*.bin", "weights")
    trial.same_files(run, trial.bench.checkpoint, "epoch_*/model.safetensors", "model.safetensors")


@fault
def kill_convert(trial: Trial) -> None:
    """Kill -9 while converting, then the same command again."""
    trial.add()
    acknowledged = lambda: len(_lines(trial.out)) >= 2  # noqa: E731
    trial.judge(interrupted(trial, convert_words(), signal.SIGKILL, acknowledged), code=-9)
    trial.check(not (trial.out / "dataset.json").exists(), "no store before it is complete", "a manifest too early")
    trial.run(*convert_words())
    trial.same_files(trial.out, trial.bench.store, "*.bin", "the store's bins")
    trial.no_leftovers()


def _lines(out: Path) -> list[str]:
    journals = [path for path in out.glob(f".*{PARTIAL}*") if path.is_file() and "json" in path.name]
    return [line for path in journals for line in path.read_text().splitlines()]


@fault
def kill_train(trial: Trial) -> None:
    """Kill -9 while training, twice, then the same command again."""
    words = train_words(trial)
    trial.judge(interrupted(trial, words, signal.SIGKILL, an_epoch_is_kept(trial, 1)), code=-9)
    interrupted(trial, words, signal.SIGKILL, an_epoch_is_kept(trial, 2))
    kept = sorted((trial.out / "cryo_cnn").glob("epoch_*"))
    loads = bool(kept) and trial.run("inspect", *kept).code == 0
    trial.check(loads, "the best checkpoint so far still loads", "no checkpoint, or one that does not load")
    trial.run(*words)
    weights_as_undisturbed(trial)
    trial.no_leftovers()


@fault
def kill_denoise(trial: Trial) -> None:
    """Kill -9 while denoising, twice, once in the middle of writing, then the same command again."""
    trial.add()
    words = denoise_words(trial)
    trial.judge(interrupted(trial, words, signal.SIGKILL, something_is_half_written(trial)), code=-9)
    interrupted(trial, words, signal.SIGKILL, a_result_is_there(trial))
    trial.run(*words)
    trial.same_results(RESULTS)
    trial.no_leftovers()


def _stopped_denoise(trial: Trial, number: int, code: int) -> None:
    trial.add()
    words = denoise_words(trial)
    begin = time.monotonic()
    trial.judge(interrupted(trial, words, number, a_result_is_there(trial)), code=code, says="the same command goes on")
    trial.check(time.monotonic() - begin < 20, "ends within seconds", "took too long to end")
    trial.no_leftovers()
    trial.run(*words)
    trial.same_results(RESULTS)


@fault
def sigterm_denoise(trial: Trial) -> None:
    """SIGTERM while denoising, then the same command again."""
    _stopped_denoise(trial, signal.SIGTERM, 143)


@fault
def sigint_denoise(trial: Trial) -> None:
    """SIGINT (Ctrl-C) while denoising, then the same command again."""
    _stopped_denoise(trial, signal.SIGINT, 130)


def _stopped_train(trial: Trial, number: int, code: int) -> None:
    words = train_words(trial)
    done = interrupted(trial, words, number, an_epoch_is_kept(trial, 1))
    trial.judge(done, code=code, says="the same command goes on")
    state = trial.out / "cryo_cnn" / "resume" / "state.safetensors"
    trial.check(state.is_file(), "state saved", "no state was saved")
    trial.run(*words)
    weights_as_undisturbed(trial)


@fault
def sigterm_train(trial: Trial) -> None:
    """SIGTERM while training, then the same command again."""
    _stopped_train(trial, signal.SIGTERM, 143)


@fault
def sigint_train(trial: Trial) -> None:
    """SIGINT (Ctrl-C) while training, then the same command again."""
    _stopped_train(trial, signal.SIGINT, 130)


def _stopped_convert(trial: Trial, number: int, code: int) -> None:
    trial.add()
    first = lambda: len(_lines(trial.out)) >= 2  # noqa: E731
    trial.judge(interrupted(trial, convert_words(), number, first), code=code, says="stopped by")
    trial.run(*convert_words())
    trial.same_files(trial.out, trial.bench.store, "*.bin", "the store's bins")
    trial.no_leftovers()


@fault
def sigterm_convert(trial: Trial) -> None:
    """SIGTERM while converting, then the same command again."""
    _stopped_convert(trial, signal.SIGTERM, 143)


@fault
def sigint_convert(trial: Trial) -> None:
    """SIGINT (Ctrl-C) while converting, then the same command again."""
    _stopped_convert(trial, signal.SIGINT, 130)


@fault
def sigusr1_train(trial: Trial) -> None:
    """SIGUSR1 (Slurm's warning) while training: saves and goes on."""
    running = trial.start(*train_words(trial))
    state = trial.out / "cryo_cnn" / "resume" / "state.safetensors"
    running.wait_until(an_epoch_is_kept(trial, 1))
    running.wait_until(state.exists)
    before = state.stat().st_mtime_ns
    running.send(signal.SIGUSR1)
    trial.check(running.wait_until(lambda: " saved" in running.said), "answered while running", "no answer")
    trial.check(state.stat().st_mtime_ns != before, "state saved at once", "the state was not saved")
    trial.judge(running.finish(), code=0, says="saved")
    weights_as_undisturbed(trial)


@fault
def sigusr1_denoise(trial: Trial) -> None:
    """SIGUSR1 (Slurm's warning) while denoising: goes on."""
    trial.add()
    running: Running = trial.start(*denoise_words(trial))
    running.wait_until(a_result_is_there(trial))
    running.send(signal.SIGUSR1)
    trial.judge(running.finish(), code=0, says="SIGUSR1")
    trial.same_results(RESULTS)


@fault
def terminal_gone(trial: Trial) -> None:
    """SIGHUP (the terminal is gone) while denoising, then the same command again."""
    trial.add()
    words = denoise_words(trial)
    trial.judge(interrupted(trial, words, signal.SIGHUP, a_result_is_there(trial)), code=(-1, 0, 129, 143))
    trial.run(*words)
    trial.same_results(RESULTS)
    trial.no_leftovers()
