"""Names and places: spaces, Unicode, line breaks, links, pipes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from faults.process import Surroundings
from faults.soundness import digests
from faults.table import fault
from faults.trial import Trial

_SOURCE = "mic_0001.mrc"


def _place(trial: Trial, name: str, source: str = _SOURCE) -> Path:
    target = trial.inputs / name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(trial.bench.micrographs / source, target)
    return target


def _words(trial: Trial, *more: str) -> list[str]:
    return ["denoise", "in", "--checkpoint", str(trial.bench.checkpoint), "-o", "out", *more]


def _same_pixels(trial: Trial, name: str, source: str = _SOURCE) -> None:
    found = digests(trial.out, "*.mrc").get(name)
    trial.check(found == trial.bench.reference[source], "result bit-equal to an undisturbed run", f"{name!r}: {found}")


@fault
def spaces_and_unicode(trial: Trial) -> None:
    """Names with spaces, quotes and Unicode, through a STAR file and back."""
    names = ["grid 2/mic 1.mrc", "Prüfung/显微镜_Ω.mrc", "it's.mrc"]
    for name in names:
        _place(trial, name)
    trial.fault(*_words(trial, "--star", "out/m.star"), code=0)
    for name in names:
        _same_pixels(trial, name)
    again = ["denoise", "out/m.star", "--checkpoint", str(trial.bench.checkpoint), "-o", "out2"]
    done = trial.run(*again)
    trial.check("3 done" in done.stdout, "the STAR file that was written leads to all three", done.stdout)


@fault
def newline_in_name(trial: Trial) -> None:
    """A name with a line break that forges an error message."""
    name = "mic\ncryoplug denoise: error: all lost.mrc"
    _place(trial, name)
    done = trial.fault(*_words(trial), code=0, says="mic\\ncryoplug")
    forged = [line for line in done.stderr.splitlines() if line.startswith("cryoplug denoise: error")]
    trial.check(not forged, "no forged line", f"forged: {forged}")
    _same_pixels(trial, name)


@fault
def newline_in_star(trial: Trial) -> None:
    """A name with a line break has no place in a STAR file: said before the work."""
    _place(trial, "mic\n1.mrc")
    trial.fault(*_words(trial, "--star", "out/m.star"), code=(2, 4), says="mic")
    trial.only_results([])


@fault
def name_not_utf8(trial: Trial) -> None:
    """A name in Latin-1, which is not UTF-8."""
    name = os.fsdecode(b"mic_\xe4\xff.mrc")
    _place(trial, name)
    trial.fault(*_words(trial, "--json"), code=0)
    _same_pixels(trial, name)


@fault
def c_locale(trial: Trial) -> None:
    """LC_ALL=C and an ASCII terminal, with Unicode names."""
    name = "显微镜 Ω.mrc"
    _place(trial, name)
    how = Surroundings({"LC_ALL": "C", "LANG": None, "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii:strict"})
    trial.fault(*_words(trial, "--star", "out/m.star"), code=0, how=how)
    _same_pixels(trial, name)


@fault
def long_name(trial: Trial) -> None:
    """A name of 240 bytes, which leaves no room for the name while writing."""
    _place(trial, "m" * 236 + ".mrc")
    trial.fault(*_words(trial), code=2, says="make a link with a shorter name")
    trial.only_results([])


@fault
def link_loop(trial: Trial) -> None:
    """A link to a folder above, and a link to itself: each micrograph once."""
    _place(trial, "a/mic_0001.mrc")
    (trial.inputs / "a" / "up").symlink_to("..")
    (trial.inputs / "self.mrc").symlink_to("self.mrc")
    trial.fault(*_words(trial), code=3, says=("self.mrc", "failed"))
    _same_pixels(trial, "a/mic_0001.mrc")
    trial.only_results(["a/mic_0001.mrc"])


@fault
def dangling_link(trial: Trial) -> None:
    """A link that leads nowhere among the micrographs."""
    _place(trial, "mic_0001.mrc")
    (trial.inputs / "gone.mrc").symlink_to("/nowhere/gone.mrc")
    trial.fault(*_words(trial), code=3, says=("gone.mrc", "failed"))
    trial.only_results(["mic_0001.mrc"])
    _same_pixels(trial, "mic_0001.mrc")


@fault
def link_to_device(trial: Trial) -> None:
    """A link to /dev/zero that is named like a micrograph."""
    _place(trial, "mic_0001.mrc")
    (trial.inputs / "zero.mrc").symlink_to("/dev/zero")
    trial.forget_inputs()
    trial.fault(*_words(trial), code=3, says=("zero.mrc", "a micrograph is a regular file"))
    trial.only_results(["mic_0001.mrc"])


@fault
def pipe_input(trial: Trial) -> None:
    """A named pipe among the micrographs: not waited for."""
    _place(trial, "mic_0001.mrc")
    os.mkfifo(trial.inputs / "pipe.mrc")
    done = trial.fault(*_words(trial), code=3, says=("pipe.mrc", "a micrograph is a regular file"))
    trial.check(done.seconds < 60, "no waiting", "waited for the pipe")
    trial.only_results(["mic_0001.mrc"])


@fault
def dash_input(trial: Trial) -> None:
    """A lone dash for stdin as an input."""
    words = ["denoise", "-", "--checkpoint", str(trial.bench.checkpoint), "-o", "out"]
    trial.fault(*words, code=4, says="-: failed: there is no such file")
    trial.only_results([])


@fault
def stdin_input(trial: Trial) -> None:
    """A pipe into /dev/stdin as an input."""
    reader, writer = os.pipe()
    os.write(writer, (trial.bench.micrographs / _SOURCE).read_bytes()[:1024])
    words = ["denoise", "/dev/stdin", "--checkpoint", str(trial.bench.checkpoint), "-o", "out"]
    done = trial.fault(*words, code=4, says=("/dev/stdin", "regular file"), how=Surroundings(stdin=reader))
    os.close(writer)
    os.close(reader)
    trial.check(done.seconds < 60, "no waiting", "waited for the pipe")
    trial.only_results([])


@fault
def folder_named_mrc(trial: Trial) -> None:
    """A folder with the name of a micrograph."""
    _place(trial, "movie.mrc/mic_0001.mrc")
    trial.fault(*_words(trial), code=0)
    _same_pixels(trial, "movie.mrc/mic_0001.mrc")


@fault
def two_folders_one_name(trial: Trial) -> None:
    """Micrographs of the same name in two folders."""
    _place(trial, "grid1/mic.mrc", "mic_0001.mrc")
    _place(trial, "grid2/mic.mrc", "mic_0002.mrc")
    words = ["denoise", "in/grid1", "in/grid2", "--checkpoint", str(trial.bench.checkpoint), "-o", "out"]
    trial.fault(*words, code=0)
    trial.only_results(["grid1/mic.mrc", "grid2/mic.mrc"])
    _same_pixels(trial, "grid1/mic.mrc", "mic_0001.mrc")
    _same_pixels(trial, "grid2/mic.mrc", "mic_0002.mrc")


@fault
def output_is_input(trial: Trial) -> None:
    """The output folder is the input folder."""
    trial.add()
    words = ["denoise", "in", "--checkpoint", str(trial.bench.checkpoint), "-o", "in"]
    trial.fault(*words, code=2, says="inputs are never overwritten")
    trial.only_results([])


@fault
def output_links_to_input(trial: Trial) -> None:
    """A link in the output folder leads to the input."""
    _place(trial, "mic_0001.mrc")
    trial.out.mkdir()
    (trial.out / "mic_0001.mrc").symlink_to("../in/mic_0001.mrc")
    trial.fault(*_words(trial, "--overwrite"), code=2, says="inputs are never overwritten")


@fault
def output_leads_outside(trial: Trial) -> None:
    """A folder in the output folder is a link to elsewhere."""
    _place(trial, "grid/mic_0001.mrc")
    trial.out.mkdir()
    (trial.folder / "elsewhere").mkdir()
    (trial.out / "grid").symlink_to("../elsewhere")
    trial.fault(*_words(trial), code=2, says="outside of the output folder")
    left = list((trial.folder / "elsewhere").iterdir())
    trial.check(not left, "nothing written there", f"written there: {left}")


@fault
def output_is_file(trial: Trial) -> None:
    """The output folder is a file."""
    _place(trial, "mic_0001.mrc")
    trial.out.write_text("precious")
    trial.fault(*_words(trial), code=2, says="this is a file")
    trial.check(trial.out.read_text() == "precious", "the file is as it was", "the file was changed")


@fault
def output_within_input(trial: Trial) -> None:
    """The output folder lies in the input folder: a second run does not denoise the results."""
    _place(trial, "mic_0001.mrc")
    words = ["denoise", "in", "--checkpoint", str(trial.bench.checkpoint), "-o", "in/results"]
    trial.run(*words)
    trial.remember_inputs()
    done = trial.fault(*words, code=0, says="skipped")
    trial.check("1 skipped" in done.stdout, "one micrograph, as before", done.stdout.strip())
