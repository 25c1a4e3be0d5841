"""Disks that are full, read-only or forbidden."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from faults.process import NOBODY, Surroundings
from faults.signals import RESULTS, convert_words, denoise_words, train_words, weights_as_undisturbed
from faults.soundness import unsound
from faults.table import fault
from faults.trial import Trial

_FILE_LIMIT = 300_000
"""Bytes: less than a micrograph of the bench has, where no small disk can be mounted."""


def small_disk(trial: Trial, size_kb: int) -> bool:
    """Mount an empty disk of a few kilobytes on ``out``; False where that is not allowed."""
    trial.out.mkdir()
    options = f"size={size_kb}k,mode=777"
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", options, "faults", trial.out], check=False).returncode
    ):
        return False
    trial.at_the_end(lambda: subprocess.run(["umount", "-l", trial.out], check=True))
    return True


def _file_limit() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_LIMIT, _FILE_LIMIT))


def _grow(trial: Trial) -> None:
    subprocess.run(["mount", "-o", "remount,size=200m", trial.out], check=True)


def _full(trial: Trial, words: list[str], size_kb: int, check: Callable[[], None]) -> None:
    """Fill the disk under a command, make room, and let the same command finish."""
    mounted = small_disk(trial, size_kb)
    how = Surroundings() if mounted else Surroundings(before=_file_limit)
    says = "No space left" if mounted else "File too large"
    trial.facts.append(f"by a disk of {size_kb} kB" if mounted else f"by a limit of {_FILE_LIMIT} bytes a file")
    trial.fault(*words, code=5, says=("out", says), how=how)
    broken = unsound(trial.out)
    trial.check(not broken, "nothing incomplete under a final name", f"under its final name: {broken}")
    trial.no_leftovers() if words[0] == "denoise" else None
    if mounted:
        _grow(trial)
    trial.run(*words)
    check()
    trial.no_leftovers()


@fault
def full_denoise(trial: Trial) -> None:
    """Disk full while denoising; after making room the same command goes on."""
    trial.add()
    _full(trial, denoise_words(trial), 3000, lambda: trial.same_results(RESULTS))


@fault
def full_convert(trial: Trial) -> None:
    """Disk full while converting; after making room the same command goes on."""
    trial.add()
    store = trial.bench.store
    _full(trial, convert_words(), 3000, lambda: trial.same_files(trial.out, store, "*.bin", "the store's bins"))


@fault
def full_train(trial: Trial) -> None:
    """Disk full while training; after making room the same command goes on."""
    # Room for one checkpoint and the state, and for no second one.
    _full(trial, train_words(trial), 120, lambda: weights_as_undisturbed(trial))


@fault
def full_stdout(trial: Trial) -> None:
    """Stdout goes to a full disk (/dev/full)."""
    trial.add()
    words = denoise_words(trial, "--json")
    trial.fault(*words, code=5, says="No space left", how=Surroundings(stdout=Path("/dev/full")))
    trial.run(*words)
    trial.same_results(RESULTS)


@fault
def file_size_limit(trial: Trial) -> None:
    """A limit on the size of files (ulimit -f) that a result exceeds."""
    trial.add()
    words = denoise_words(trial)
    trial.fault(*words, code=5, says="File too large", how=Surroundings(before=_file_limit))
    trial.only_results([])
    trial.no_leftovers()
    trial.run(*words)
    trial.same_results(RESULTS)


def _read_only(trial: Trial, words: list[str]) -> None:
    if small_disk(trial, 3000):
        subprocess.run(["mount", "-o", "remount,ro", trial.out], check=True)
        trial.fault(*words, code=5, says=("out", "Read-only file system"))
    else:
        trial.out.chmod(0o555)
        trial.fault(*words, code=5, says=("out", "Permission denied"))
        trial.out.chmod(0o755)
    trial.check(not any(trial.out.iterdir()), "nothing written", f"{sorted(trial.out.iterdir())} was written")


@fault
def read_only_denoise(trial: Trial) -> None:
    """Output of denoise on a disk that can only be read."""
    trial.add("mic_0001.mrc")
    _read_only(trial, denoise_words(trial))


@fault
def read_only_convert(trial: Trial) -> None:
    """Output of convert on a disk that can only be read."""
    trial.add("mic_0001.mrc")
    _read_only(trial, convert_words())


@fault
def read_only_train(trial: Trial) -> None:
    """Output of train on a disk that can only be read: said before the first epoch."""
    _read_only(trial, train_words(trial))


def _as_nobody() -> Surroundings:
    """Run without the rights of root, which no permission stops."""
    if os.geteuid():
        return Surroundings()
    return Surroundings(prefix=("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"))


@fault
def forbidden_output(trial: Trial) -> None:
    """No permission to write into the output folder."""
    trial.add("mic_0001.mrc")
    trial.out.mkdir(mode=0o555)
    trial.fault(*denoise_words(trial), code=5, says=("out", "Permission denied"), how=_as_nobody())
    trial.check(not any(trial.out.iterdir()), "nothing written", "something was written")


@fault
def forbidden_input(trial: Trial) -> None:
    """No permission to read one micrograph of six: the others are done."""
    secret = trial.add()[2]
    secret.chmod(0)
    trial.out.mkdir()
    trial.out.chmod(0o777)
    done = trial.fault(*denoise_words(trial), code=3, says=("mic_0003.mrc", "Permission denied"), how=_as_nobody())
    trial.check(secret.name in done.stderr, "the failed one is named", "the failed one is not named")
    trial.same_results([name for name in RESULTS if name != secret.name])
    trial.check(not (trial.out / secret.name).exists(), "no result for it", "a result for it")
    secret.chmod(0o644)
    trial.run(*denoise_words(trial), how=_as_nobody())
    trial.same_results(RESULTS)


@fault
def forbidden_checkpoint(trial: Trial) -> None:
    """No permission to read the checkpoint."""
    trial.add("mic_0001.mrc")
    shutil.copytree(trial.bench.checkpoint, trial.folder / "model")
    for weights in (trial.folder / "model").rglob("*"):
        weights.chmod(0 if weights.is_file() else 0o755)
    trial.out.mkdir()
    trial.out.chmod(0o777)
    words = ["denoise", "in", "--checkpoint", "model", "-o", "out"]
    trial.fault(*words, code=(4, 5), says="model", how=_as_nobody())
    trial.only_results([])


@fault
def forbidden_folder(trial: Trial) -> None:
    """No permission to search a folder of inputs."""
    trial.add("mic_0001.mrc")
    (trial.inputs / "closed").mkdir()
    trial.remember_inputs()
    (trial.inputs / "closed").chmod(0)
    trial.out.mkdir()
    trial.out.chmod(0o777)
    trial.fault(*denoise_words(trial), code=5, says=("in/closed", "Permission denied"), how=_as_nobody())
    (trial.inputs / "closed").chmod(0o755)
    trial.only_results([])


@fault
def few_open_files(trial: Trial) -> None:
    """Only 24 files may be open at once (ulimit -n)."""
    trial.add()
    limit = Surroundings(before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24)))
    trial.fault(*denoise_words(trial), code=0, how=limit)
    trial.same_results(RESULTS)


@fault
def output_vanishes(trial: Trial) -> None:
    """Somebody deletes the output folder in the middle of a run."""
    trial.add()
    words = denoise_words(trial)
    running = trial.start(*words)
    running.wait_until(lambda: any(trial.out.glob("*.mrc")))
    trial.out.rename(trial.folder / "moved away")
    trial.judge(running.finish(), code=(0, 5))
    shutil.rmtree(trial.out, ignore_errors=True)
    trial.run(*words)
    trial.same_results(RESULTS)
