"""Surroundings: closed streams, missing folders, wrong configuration."""

from __future__ import annotations

import os
from pathlib import Path

from faults.process import Surroundings
from faults.signals import RESULTS, denoise_words, train_words
from faults.table import fault
from faults.trial import Trial


@fault
def stdout_closed_early(trial: Trial) -> None:
    """The reader of stdout goes away (| head -1): the same command finishes the rest."""
    trial.add()
    words = denoise_words(trial, "--json")
    reader, writer = os.pipe()
    os.close(reader)
    done = trial.fault(*words, code=141, how=Surroundings(stdout=Path(f"/proc/self/fd/{writer}")))
    os.close(writer)
    trial.check("Exception ignored" not in done.stderr, "no noise on stderr", done.line())
    trial.run(*words)
    trial.same_results(RESULTS)
    trial.no_leftovers()


@fault
def stdin_closed(trial: Trial) -> None:
    """Stdin is closed (<&-)."""
    trial.add()
    trial.fault(*denoise_words(trial), code=0, how=Surroundings(before=lambda: os.close(0)))
    trial.same_results(RESULTS)


@fault
def all_streams_closed(trial: Trial) -> None:
    """Stdin, stdout and stderr are closed: nothing is written into the wrong file."""
    trial.add()
    trial.fault(*denoise_words(trial), code=0, how=Surroundings(before=lambda: [os.close(n) for n in (0, 1, 2)]))
    trial.run(*denoise_words(trial))
    trial.same_results(RESULTS)


@fault
def no_tmpdir(trial: Trial) -> None:
    """TMPDIR names a folder that does not exist."""
    trial.add()
    how = Surroundings({name: "/nowhere/tmp" for name in ("TMPDIR", "TEMP", "TMP")})
    trial.fault(*denoise_words(trial), code=0, how=how)
    trial.same_results(RESULTS)


@fault
def no_home(trial: Trial) -> None:
    """HOME cannot be written and does not exist."""
    how = Surroundings({"HOME": "/proc/nowhere", "XDG_CACHE_HOME": None, "XDG_CONFIG_HOME": None, "MPLCONFIGDIR": None})
    trial.fault(*train_words(trial), code=0, how=how)
    trial.same_files(trial.out, trial.bench.runs, "epoch_*/model.safetensors", "weights")


@fault
def bare_environment(trial: Trial) -> None:
    """An empty environment, as cron and some schedulers give."""
    trial.add()
    names = {name: None for name in os.environ}
    trial.fault(*denoise_words(trial), code=0, how=Surroundings(names))
    trial.same_results(RESULTS)


@fault
def working_folder_gone(trial: Trial) -> None:
    """The working folder was deleted."""
    trial.add()
    gone = trial.folder / "gone"
    gone.mkdir()
    words = ["denoise", str(trial.inputs), "--checkpoint", str(trial.bench.checkpoint), "-o", str(trial.out)]
    trial.fault(*words, code=5, says="working folder", how=Surroundings(folder=gone, before=gone.rmdir))
    trial.run(*words)
    trial.same_results(RESULTS)


@fault
def wrong_variable(trial: Trial) -> None:
    """An environment variable with a wrong value (CRYOPLUG_DENOISE_TILE=big)."""
    trial.add("mic_0001.mrc")
    how = Surroundings({"CRYOPLUG_DENOISE_TILE": "big"})
    trial.fault(*denoise_words(trial), code=2, says="big", how=how)
    trial.only_results([])


@fault
def wrong_config(trial: Trial) -> None:
    """A configuration file with a misspelt key."""
    trial.add("mic_0001.mrc")
    (trial.folder / "site.toml").write_text("[denoise]\ntyle = 512\n")
    trial.fault("--config", "site.toml", *denoise_words(trial), code=2, says=("site.toml", "tyle"))
    trial.only_results([])


@fault
def config_not_toml(trial: Trial) -> None:
    """A configuration file that is cut."""
    trial.add("mic_0001.mrc")
    (trial.folder / "site.toml").write_text('[denoise]\nnormalize = "zsc')
    trial.fault("--config", "site.toml", *denoise_words(trial), code=2, says="site.toml")
    trial.only_results([])


@fault
def low_priority_terminal(trial: Trial) -> None:
    """A terminal of 20 columns that knows nothing (TERM=dumb)."""
    trial.add()
    how = Surroundings({"TERM": "dumb", "COLUMNS": "20", "LINES": "2"})
    trial.fault(*denoise_words(trial), code=0, how=how)
    trial.same_results(RESULTS)


@fault
def no_input_at_all(trial: Trial) -> None:
    """An empty folder of inputs."""
    trial.fault(*denoise_words(trial), code=4, says="no micrograph was found")
    trial.only_results([])


@fault
def pattern_without_match(trial: Trial) -> None:
    """A pattern that nothing matches (not expanded by the shell)."""
    words = ["denoise", "in/*.mrc", "--checkpoint", str(trial.bench.checkpoint), "-o", "out"]
    trial.fault(*words, code=4, says="no file matches")
    trial.only_results([])


@fault
def question_at_night(trial: Trial) -> None:
    """Nobody sits at the terminal: an existing result of another program raises no question."""
    trial.add()
    trial.out.mkdir()
    (trial.out / "mic_0001.mrc").write_bytes((trial.bench.micrographs / "mic_0004.mrc").read_bytes())
    done = trial.fault(*denoise_words(trial), code=3, says=("mic_0001.mrc", "--overwrite"))
    kept = (trial.out / "mic_0001.mrc").read_bytes() == (trial.bench.micrographs / "mic_0004.mrc").read_bytes()
    trial.check(kept and done.seconds < 60, "the foreign file stays as it was", "the foreign file was changed")
    trial.same_results(RESULTS[1:])
