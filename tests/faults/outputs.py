"""Finished work: what is done again, what is kept, and what other hands changed."""

from __future__ import annotations

import os
import shutil

from faults.signals import RESULTS, denoise_words
from faults.soundness import digests
from faults.table import fault
from faults.trial import Trial


def _model(trial: Trial) -> list[str]:
    """Copy the checkpoint, so that it can be changed, and give the command that uses the copy."""
    shutil.copytree(trial.bench.checkpoint, trial.folder / "model")
    return ["denoise", "in", "--checkpoint", "model", "-o", "out"]


@fault
def same_command_twice(trial: Trial) -> None:
    """The same command a second time: nothing is computed or written again."""
    trial.add()
    words = denoise_words(trial)
    trial.run(*words)
    before = {path: path.stat().st_mtime_ns for path in trial.out.glob("*.mrc")}
    done = trial.fault(*words, code=0, says="skipped")
    after = {path: path.stat().st_mtime_ns for path in trial.out.glob("*.mrc")}
    trial.check(before == after and "6 skipped" in done.stdout, "6 skipped, none touched", done.stdout.strip())
    trial.same_results(RESULTS)


@fault
def input_changed(trial: Trial) -> None:
    """A micrograph changed after it was denoised: done again, the others not."""
    trial.add()
    words = denoise_words(trial)
    trial.run(*words)
    shutil.copy(trial.bench.micrographs / "mic_0006.mrc", trial.inputs / "mic_0001.mrc")
    trial.remember_inputs()
    done = trial.fault(*words, code=0, says="mic_0001.mrc: done")
    trial.check("1 done, 5 skipped" in done.stdout, "1 done, 5 skipped", done.stdout.strip())
    same = digests(trial.out, "*.mrc")["mic_0001.mrc"] == trial.bench.reference["mic_0006.mrc"]
    trial.check(same, "its result is that of the new pixels", "its result is that of the old pixels")


@fault
def checkpoint_changed(trial: Trial) -> None:
    """The checkpoint changed after the micrographs were denoised: no mixture; --overwrite does them again."""
    trial.add()
    words = _model(trial)
    trial.run(*words)
    before = digests(trial.out, "*.mrc")
    shutil.rmtree(trial.folder / "model")
    train = ["train", str(trial.bench.store), "--save", "--epochs", "1", "--max-batches", "2", "--checkpoint-dir", "m"]
    trial.run(*train)
    shutil.move(trial.folder / "m" / "cryo_cnn", trial.folder / "model")
    trial.fault(*words, code=2, says=("was made with checkpoint", "--overwrite"))
    trial.check(digests(trial.out, "*.mrc") == before, "the old results stay until then", "old results were changed")
    trial.run(*words, "--overwrite")
    after = digests(trial.out, "*.mrc")
    trial.check(
        all(after[name] != before[name] for name in RESULTS), "then all are done again", "not all were done again"
    )


@fault
def result_changed(trial: Trial) -> None:
    """Another program cut a finished result: named, not taken for finished."""
    trial.add()
    words = denoise_words(trial)
    trial.run(*words)
    with (trial.out / "mic_0003.mrc").open("r+b") as stream:
        stream.truncate(5000)
    trial.fault(*words, code=3, says=("mic_0003.mrc", "was changed after it was written"))
    trial.run(*words, "--overwrite")
    trial.same_results(RESULTS)


@fault
def result_deleted(trial: Trial) -> None:
    """A finished result was deleted: done again."""
    trial.add()
    words = denoise_words(trial)
    trial.run(*words)
    (trial.out / "mic_0003.mrc").unlink()
    done = trial.fault(*words, code=0, says="mic_0003.mrc: done")
    trial.check("1 done, 5 skipped" in done.stdout, "1 done, 5 skipped", done.stdout.strip())
    trial.same_results(RESULTS)


@fault
def records_damaged(trial: Trial) -> None:
    """The records of what is finished are cut, empty and nested a million times: nothing is overwritten."""
    trial.add()
    words = denoise_words(trial)
    trial.run(*words)
    records = trial.out / ".cryoplug"
    (records / "mic_0001.mrc.json").write_bytes(b"")
    (records / "mic_0002.mrc.json").write_text("[" * 500_000)
    text = (records / "mic_0003.mrc.json").read_bytes()
    (records / "mic_0003.mrc.json").write_bytes(text[: len(text) // 2])
    trial.fault(*words, code=3, says=("mic_0003.mrc", "no record says how it was made"))
    trial.same_results(RESULTS)
    trial.run(*words, "--overwrite")
    trial.same_results(RESULTS)


@fault
def records_deleted(trial: Trial) -> None:
    """The folder with the records was deleted: nothing is overwritten without --overwrite."""
    trial.add()
    words = denoise_words(trial)
    trial.run(*words)
    shutil.rmtree(trial.out / ".cryoplug")
    trial.fault(*words, code=2, says=("no record says how it was made", "--overwrite"))
    trial.same_results(RESULTS)


@fault
def journal_cut(trial: Trial) -> None:
    """The journal ends in the middle of a line: the next line begins anew."""
    import json

    trial.add()
    words = denoise_words(trial)
    trial.run(*words)
    journal = trial.out / "denoise.jsonl"
    with journal.open("r+b") as stream:
        stream.truncate(journal.stat().st_size - 30)
    (trial.out / "mic_0001.mrc").unlink()
    trial.fault(*words, code=0)
    last = json.loads(journal.read_text().splitlines()[-1])
    trial.check(last["input"] == "in/mic_0001.mrc", "the new line can be read", f"the last line is of {last['input']}")
    trial.same_results(RESULTS)


@fault
def rests_of_old_runs(trial: Trial) -> None:
    """Half-written files of a run that was killed lie in the output: never taken for micrographs or results."""
    trial.add("mic_0001.mrc")
    (trial.inputs / ".mic_0002.mrc.4711.cryoplug-partial").write_bytes(b"half")
    (trial.inputs / ".mic_0003.mrc").write_bytes(b"hidden")
    done = trial.fault(*denoise_words(trial), code=0)
    trial.check("1 done" in done.stdout, "one micrograph found", done.stdout.strip())
    trial.only_results(RESULTS[:1])


@fault
def older_epoch(trial: Trial) -> None:
    """The file of the best epoch is damaged in a run folder that holds two: never used silently."""
    trial.add("mic_0001.mrc")
    words = _model(trial)
    (epoch,) = (trial.folder / "model").glob("epoch_*")
    shutil.copytree(epoch, epoch.with_name("epoch_0009"))
    (epoch.with_name("epoch_0009") / "loss.txt").write_text("  9.00000000\n")
    weights = epoch / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 8)
    trial.fault(*words, code=4, says=(epoch.name, "model.safetensors"))
    trial.only_results([])


@fault
def killed_overwrite(trial: Trial) -> None:
    """Kill -9 while --overwrite replaces finished results: each is the old one or the new one, whole."""
    import signal

    from faults.signals import interrupted

    trial.add()
    words = [*denoise_words(trial), "--overwrite"]
    trial.run(*words, "--normalize", "none")
    old = digests(trial.out, "*.mrc")
    changed = lambda: digests(trial.out, "*.mrc") != old  # noqa: E731
    trial.judge(interrupted(trial, words, signal.SIGKILL, changed), code=-9)
    found = digests(trial.out, "*.mrc")
    wrong = [name for name in RESULTS if found.get(name) not in (old[name], trial.bench.reference[name])]
    trial.check(not wrong, "each the old one or the new one", f"neither old nor new: {wrong}")
    trial.run(*words)
    trial.same_results(RESULTS)
    trial.no_leftovers()
