"""Watching: files that grow, vanish, come late or never."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

from faults.process import Running
from faults.signals import RESULTS, denoise_words
from faults.table import fault
from faults.trial import Trial

_FAST = ("--watch", "--poll", "0.1", "--settle", "0.5")


def _watch(trial: Trial, *more: str, idle_s: float = 3) -> Running:
    """Start watching ``in``; returns when it has looked once."""
    return trial.start(*denoise_words(trial, *_FAST, "--idle-exit", str(idle_s), *more))


def _wait_for(trial: Trial, running: Running, name: str) -> None:
    running.wait_until((trial.out / name).exists, 60)


def _grow(source: Path, target: Path, pieces: int, pause_s: float) -> None:
    payload = source.read_bytes()
    step = len(payload) // pieces + 1
    with target.open("wb") as stream:
        for start in range(0, len(payload), step):
            stream.write(payload[start : start + step])
            stream.flush()
            time.sleep(pause_s)


@fault
def watch_growing_file(trial: Trial) -> None:
    """A micrograph grows slowly, with pauses longer than --settle."""
    trial.add("mic_0001.mrc")
    running = _watch(trial)
    _wait_for(trial, running, "mic_0001.mrc")
    _grow(trial.bench.micrographs / "mic_0002.mrc", trial.inputs / "mic_0002.mrc", 4, 0.9)
    trial.remember_inputs()
    done = trial.judge(running.finish(), code=0, says="waiting for it to become complete")
    trial.check("failed" not in done.stderr, "no failure in between", "it was taken too early")
    trial.same_results(RESULTS[:2])


@fault
def watch_full_length_first(trial: Trial) -> None:
    """A copy gives a micrograph its full length first and stops half way for longer than --settle."""
    trial.add("mic_0001.mrc")
    payload = (trial.bench.micrographs / "mic_0002.mrc").read_bytes()
    running = _watch(trial)
    _wait_for(trial, running, "mic_0001.mrc")
    half = len(payload) // 2
    (trial.inputs / "mic_0002.mrc").write_bytes(payload[:half] + bytes(len(payload) - half))
    _wait_for(trial, running, "mic_0002.mrc")
    with (trial.inputs / "mic_0002.mrc").open("r+b") as stream:
        stream.seek(half)
        stream.write(payload[half:])
    trial.remember_inputs()
    trial.judge(running.finish(), code=0, says="mic_0002.mrc: done")
    trial.same_results(RESULTS[:2])
    trial.no_leftovers()


@fault
def watch_growing_star(trial: Trial) -> None:
    """The STAR file that is watched grows, in the middle of a line too."""
    trial.add()
    head, rows = _star_lines(trial)
    star = trial.folder / "job.star"
    star.write_text(head + rows[0] + rows[1])
    words = ["denoise", "job.star", "--checkpoint", str(trial.bench.checkpoint), "-o", "out", "--star", "out/m.star"]
    running = trial.start(*words, *_FAST, "--idle-exit", "4")
    _wait_for(trial, running, "in/mic_0001.mrc")
    star.write_text(head + rows[0] + rows[1] + rows[2] + rows[3][:12])
    time.sleep(0.5)
    star.write_text(head + "".join(rows))
    trial.judge(running.finish(), code=0)
    trial.same_results([f"in/{name}" for name in RESULTS])
    text = (trial.out / "m.star").read_text()
    named = [name for name in RESULTS if f"out/in/{name}" in text]
    trial.check(named == RESULTS, "all in the STAR file that is written", f"STAR file written names only {named}")


def _star_lines(trial: Trial) -> tuple[str, list[str]]:
    lines = trial.bench.star.read_text().replace("sim/noisy/", "in/").splitlines(keepends=True)
    rows = [line for line in lines if line.startswith("in/")]
    return "".join(lines[: lines.index(rows[0])]), rows


@fault
def watch_vanishing(trial: Trial) -> None:
    """A micrograph vanishes between being seen and being read, while watching."""
    trial.add("mic_0001.mrc", "mic_0003.mrc")
    running = _watch(trial)
    shutil.copy(trial.bench.micrographs / "mic_0002.mrc", trial.inputs / "mic_0002.mrc")
    _wait_for(trial, running, "mic_0001.mrc")
    time.sleep(0.2)
    (trial.inputs / "mic_0002.mrc").unlink()
    shutil.copy(trial.bench.micrographs / "mic_0004.mrc", trial.inputs / "mic_0004.mrc")
    trial.remember_inputs()
    trial.judge(running.finish(), code=(0, 3))
    trial.same_results(["mic_0001.mrc", "mic_0003.mrc", "mic_0004.mrc"])
    trial.no_leftovers()


@fault
def watch_folder_missing(trial: Trial) -> None:
    """The folder to watch is not there yet."""
    words = ["denoise", "later", "--checkpoint", str(trial.bench.checkpoint), "-o", "out"]
    running = trial.start(*words, *_FAST, "--idle-exit", "6")
    running.wait_until((trial.out / ".cryoplug").exists)
    time.sleep(1)
    (trial.folder / "later").mkdir()
    shutil.copy(trial.bench.micrographs / "mic_0001.mrc", trial.folder / "later" / "mic_0001.mrc")
    trial.judge(running.finish(), code=0, says="later/mic_0001.mrc")
    trial.same_results(RESULTS[:1])


@fault
def watch_never_complete(trial: Trial) -> None:
    """A micrograph never becomes complete: named at the end, the others are done."""
    trial.add("mic_0001.mrc")
    payload = (trial.bench.micrographs / "mic_0002.mrc").read_bytes()
    (trial.inputs / "mic_0002.mrc").write_bytes(payload[: len(payload) // 2])
    trial.judge(_watch(trial).finish(), code=3, says=("mic_0002.mrc", "never became complete"))
    trial.same_results(RESULTS[:1])
    trial.only_results(RESULTS[:1])


@fault
def watch_idle_exit(trial: Trial) -> None:
    """Nothing ever comes: --idle-exit ends it."""
    done = trial.judge(_watch(trial, idle_s=2).finish(), code=0)
    trial.check(done.seconds < 20, "ended by itself", f"took {done.seconds:.0f} s")
    trial.only_results([])


@fault
def watch_sigterm(trial: Trial) -> None:
    """SIGTERM while watching, then the same command again."""
    trial.add()
    words = denoise_words(trial, *_FAST)
    running = trial.start(*words)
    _wait_for(trial, running, "mic_0006.mrc")
    running.send(signal.SIGTERM)
    trial.judge(running.finish(), code=143, says="the same command goes on")
    trial.run(*words, "--idle-exit", "1")
    trial.same_results(RESULTS)
    trial.no_leftovers()


@fault
def watch_kill(trial: Trial) -> None:
    """Kill -9 while watching, then the same command again."""
    trial.add()
    words = denoise_words(trial, *_FAST, "--star", "out/m.star")
    running = trial.start(*words)
    _wait_for(trial, running, "mic_0002.mrc")
    running.send(signal.SIGKILL)
    trial.judge(running.finish(), code=-9)
    trial.run(*words, "--idle-exit", "1")
    trial.same_results(RESULTS)
    trial.no_leftovers()


@fault
def watch_clock_skew(trial: Trial) -> None:
    """The file server's clock is years ahead: times of change lie in the future."""
    for path in trial.add():
        ahead = int(time.time()) + 10 * 365 * 86400
        _set_time(path, ahead)
    done = trial.judge(_watch(trial, idle_s=2).finish(), code=0)
    trial.same_results(RESULTS)
    trial.check(done.seconds < 30, "no waiting for the clock", f"took {done.seconds:.0f} s")
    again = trial.run(*denoise_words(trial))
    trial.check("6 skipped" in again.stdout, "finished ones are known again", f"again: {again.stdout.strip()}")


def _set_time(path: Path, seconds: int) -> None:
    os.utime(path, (seconds, seconds))


@fault
def watch_old_file_times(trial: Trial) -> None:
    """A transfer program keeps old times (rsync -t): a micrograph is replaced by one with an older time."""
    trial.add("mic_0001.mrc")
    running = _watch(trial)
    _wait_for(trial, running, "mic_0001.mrc")
    running.finish()
    shutil.copy(trial.bench.micrographs / "mic_0002.mrc", trial.inputs / "mic_0001.mrc")
    _set_time(trial.inputs / "mic_0001.mrc", 1_000_000_000)
    trial.remember_inputs()
    trial.judge(_watch(trial, idle_s=2).finish(), code=0)
    reference = trial.bench.denoised / "mic_0002.mrc"
    trial.check(
        (trial.out / "mic_0001.mrc").read_bytes() == reference.read_bytes(), "denoised again", "the old result stayed"
    )


@fault
def vanishing_input(trial: Trial) -> None:
    """A micrograph is deleted after the start, before it is read: the others are done."""
    trial.add()
    running = trial.start(*denoise_words(trial))
    running.wait_until(lambda: (trial.out / ".cryoplug").exists())
    (trial.inputs / "mic_0006.mrc").unlink()
    trial.remember_inputs()
    trial.judge(running.finish(), code=3, says="mic_0006.mrc")
    trial.same_results(RESULTS[:5])
    trial.only_results(RESULTS[:5])


@fault
def overwritten_input(trial: Trial) -> None:
    """A micrograph is written anew while it is denoised: the next run does it again."""
    trial.add()
    words = denoise_words(trial)
    running = trial.start(*words)
    running.wait_until(lambda: any((trial.out / ".cryoplug").glob("*.claim")))
    running.send(signal.SIGSTOP)
    shutil.copy(trial.bench.micrographs / "mic_0006.mrc", trial.inputs / "mic_0001.mrc")
    running.send(signal.SIGCONT)
    trial.remember_inputs()
    trial.judge(running.finish(), code=(0, 3))
    trial.run(*words)
    reference = trial.bench.denoised / "mic_0006.mrc"
    trial.check(
        (trial.out / "mic_0001.mrc").read_bytes() == reference.read_bytes(),
        "in the end the result is that of the new pixels",
        "the result is not that of the new pixels",
    )
    trial.same_results(RESULTS[1:])
