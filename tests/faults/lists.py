"""Lists: STAR files that climb out, are cut, or are huge."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from faults.process import Running
from faults.soundness import digests
from faults.table import fault
from faults.trial import Trial

_MANY = 100_000


def _star(names: Sequence[str]) -> str:
    return "\ndata_\n\nloop_\n_rlnMicrographName #1\n" + "".join(f"{name}\n" for name in names) + "\n"


def _words(trial: Trial, star: str = "list.star", *more: str) -> list[str]:
    return ["denoise", star, "--checkpoint", str(trial.bench.checkpoint), "-o", "out", *more]


def _write(trial: Trial, text: str) -> Path:
    path = trial.folder / "list.star"
    path.write_text(text)
    return path


def _one(trial: Trial, name: str) -> None:
    found = digests(trial.out, "*.mrc")
    good = found.get(name) == trial.bench.reference["mic_0001.mrc"]
    trial.check(good, "result bit-equal to an undisturbed run", f"results: {sorted(found)}")


@fault
def star_climbs(trial: Trial) -> None:
    """Paths in a STAR file that climb out of the project (..): results stay below the output folder."""
    (trial.folder / "project").mkdir()
    trial.add("mic_0001.mrc")
    star = _write(trial, _star(["../in/mic_0001.mrc", "../../../../../../etc/passwd"]))
    star.rename(trial.folder / "project" / "list.star")
    before = set(trial.folder.rglob("*"))
    trial.fault(*_words(trial, "project/list.star"), code=(2, 3), says="passwd")
    outside = [path for path in set(trial.folder.rglob("*")) - before if trial.out not in (path, *path.parents)]
    outside = [path for path in outside if not path.name.startswith(".log")]
    trial.check(not outside, "nothing written outside of the output folder", f"written: {outside}")


@fault
def star_absolute(trial: Trial) -> None:
    """Absolute paths in a STAR file."""
    (path,) = trial.add("mic_0001.mrc")
    _write(trial, _star([str(path)]))
    trial.fault(*_words(trial), code=0)
    found = digests(trial.out, "*.mrc")
    trial.check(
        list(found.values()) == [trial.bench.reference["mic_0001.mrc"]], "result below the output folder", f"{found}"
    )


@fault
def star_missing_files(trial: Trial) -> None:
    """Files of a STAR file are missing: named, the others done, and left out of the STAR file written."""
    trial.add("mic_0001.mrc")
    _write(trial, _star(["in/mic_0001.mrc", "in/gone.mrc"]))
    trial.fault(*_words(trial, "list.star", "--star", "out/m.star"), code=3, says=("in/gone.mrc", "failed"))
    _one(trial, "in/mic_0001.mrc")
    text = (trial.out / "m.star").read_text()
    good = "out/in/mic_0001.mrc" in text and "gone" not in text
    trial.check(good, "the STAR file names what is done and no other", text)


@fault
def star_cut(trial: Trial) -> None:
    """A STAR file whose last line is cut."""
    trial.add("mic_0001.mrc", "mic_0002.mrc")
    text = trial.bench.star.read_text().replace("sim/noisy/", "in/")
    _write(trial, text[: text.index("in/mic_0002") + 14])
    trial.fault(*_words(trial), code=4, says=("list.star", "line"))
    trial.only_results([])


@fault
def star_garbage(trial: Trial) -> None:
    """A STAR file of random bytes."""
    (trial.folder / "list.star").write_bytes(bytes(range(256)) * 40)
    trial.fault(*_words(trial), code=4, says="list.star")
    trial.only_results([])


@fault
def star_twice_the_column(trial: Trial) -> None:
    """A STAR file with the same column twice."""
    trial.add("mic_0001.mrc")
    text = "\ndata_\n\nloop_\n_rlnMicrographName #1\n_rlnMicrographName #2\nin/mic_0001.mrc in/mic_0002.mrc\n"
    _write(trial, text)
    trial.fault(*_words(trial), code=4, says=("list.star", "rlnMicrographName"))
    trial.only_results([])


@fault
def star_written_over_itself(trial: Trial) -> None:
    """The STAR file to write is the STAR file that was given."""
    trial.add("mic_0001.mrc")
    star = _write(trial, _star(["in/mic_0001.mrc"]))
    before = star.read_bytes()
    trial.fault(*_words(trial, "list.star", "--star", "list.star"), code=2, says="inputs are never overwritten")
    trial.check(star.read_bytes() == before, "it is as it was", "it was changed")


@fault
def star_of_somebody_else(trial: Trial) -> None:
    """The STAR file to write exists and is somebody else's."""
    trial.add("mic_0001.mrc")
    precious = _write(trial, _star(["precious.mrc"]))
    before = precious.read_bytes()
    words = ["denoise", "in", "--checkpoint", str(trial.bench.checkpoint), "-o", "out", "--star", "list.star"]
    trial.fault(*words, code=2, says=("list.star", "--overwrite"))
    trial.check(precious.read_bytes() == before, "it is as it was", "it was changed")


@fault
def many_inputs(trial: Trial) -> None:
    """100,000 micrographs in a STAR file: found and planned in seconds and bounded memory."""
    mics = trial.folder / "mics"
    mics.mkdir()
    first = shutil.copy(trial.bench.micrographs / "mic_0001.mrc", trial.folder / "one.mrc")
    second = shutil.copy(first, trial.folder / "two.mrc")
    for number in range(_MANY):
        os.link(first if number % 2 else second, mics / f"mic_{number:06}.mrc")
    _write(trial, _star([f"mics/mic_{number:06}.mrc" for number in range(_MANY)]))
    # Everything is found, planned and looked at; nothing has stood still for an hour, so a signal has to end it.
    words = _words(trial, "list.star", "--watch", "--settle", "3600", "--poll", "0.1")
    running = trial.start(*words)
    running.wait_until(lambda: _opened(running, "list.star"))
    running.wait_until(lambda: not _opened(running, "list.star"))
    time.sleep(1)
    running.send(signal.SIGTERM)
    done = trial.judge(running.finish(), code=143, says=f"0 of {_MANY} micrographs are finished")
    trial.check(done.work_s < 60, "found and planned within a minute", f"took {done.work_s:.0f} s of work")
    trial.check(done.peak_mb < 1000, "in under 1 GB", f"took {done.peak_mb:.0f} MB")


def _opened(running: Running, name: str) -> bool:
    folder = Path(f"/proc/{running.pid}/fd")
    with contextlib.suppress(OSError):
        links = [os.readlink(entry) for entry in folder.iterdir()]  # noqa: PTH115 -- a name of the kernel, no path
        return any(link.endswith(name) for link in links)
    return False
