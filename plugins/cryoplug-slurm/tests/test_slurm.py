"""On a real Slurm of two nodes: nothing is lost and nothing is done twice, whatever ends a task."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryoplug.cli.main import guarded
from cryoplug.formats.mrc import write_mrc
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec
from slurm_here import Cluster

from cryoplug_slurm import jobs
from cryoplug_slurm.commands import slurm

COUNT = 12


@pytest.fixture
def project(here: Path) -> Path:
    (here / "mics").mkdir()
    for seed in range(COUNT):
        pixels = np.random.default_rng(seed).normal(50, 4, (200, 220)).astype(np.float32)
        write_mrc(here / "mics" / f"m{seed:02d}.mrc", pixels, pixel_size_angstrom=1.5)
    weights = {name: tensor.numpy() for name, tensor in model_spec("cryo_cnn").build(seed=1).state_dict().items()}
    save_checkpoint(here / "run" / "epoch_0001", Checkpoint("cryo_cnn", weights, normalize="zscore"), 0.5)
    return here


WORDS = ["mics", "--checkpoint", "run", "-o", "out", "--star", "out.star", "--device", "cpu", "--threads", "1"]


def call(*words: str) -> int:
    arguments = [*words]
    return guarded(lambda: slurm.main(arguments, prog_name="cryoplug slurm", standalone_mode=False), arguments)


def submitted(capfd: pytest.CaptureFixture[str], *words: str) -> list[str]:
    capfd.readouterr()
    assert call("submit", *words, "--json") == 0, capfd.readouterr().err
    return list(json.loads(capfd.readouterr().out)["jobs"])


def slow_template() -> Path:
    """Make the template one's own: each micrograph takes its time, so that there is a middle to be killed in."""
    code = (
        "import sys, time; from cryoplug.outputs import journal; real = journal.Journal.append; "
        "journal.Journal.append = lambda *a: (real(*a), time.sleep(0.7))[0]; "
        "from cryoplug.cli.main import main; main(sys.argv[2:])"
    )
    Path("slow.py").write_text(code)
    text = Path(jobs.__file__).with_name("templates").joinpath("denoise.sbatch").read_text()
    first, rest = text.split("@COMMAND@ &")
    Path("own.sbatch").write_text(f'{first}set -- @COMMAND@\nshift 2\n{os.sys.executable} slow.py "$@" &{rest}')
    return Path("own.sbatch")


def journal(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out" / "denoise.jsonl").read_text().splitlines()]


def all_is_done_once(folder: Path) -> None:
    assert len(list((folder / "out").glob("*.mrc"))) == COUNT
    done = Counter(line["input"] for line in journal(folder) if line["status"] == "done")
    assert len(done) == COUNT and set(done.values()) == {1}, done
    assert sum("mics/" in line for line in (folder / "out.star").read_text().splitlines()) == COUNT


def wait_for(folder: Path, files: int) -> None:
    end = time.monotonic() + 60
    while len(list((folder / "out").glob("*.mrc"))) < files:
        assert time.monotonic() < end, "nothing was denoised in a minute"
        time.sleep(0.05)


def test_an_array_denoises_and_a_job_merges(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    numbers = submitted(capfd, "denoise", "--tasks", "3", *WORDS)
    assert len(numbers) == 2
    assert call("follow", *numbers, "--json") == 0
    said = capfd.readouterr()
    states = [json.loads(line)["state"] for line in said.out.splitlines()]
    assert states == ["COMPLETED"] * 4 and "COMPLETED" in said.err
    all_is_done_once(project)
    assert (project / "out" / "report.html").is_file()


def test_a_node_that_dies_gives_its_tasks_to_the_others(
    project: Path, cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    numbers = submitted(capfd, "denoise", "--tasks", "4", "--template", str(slow_template()), *WORDS)
    wait_for(project, 2)
    cluster.kill_node("n2")
    cluster.run("scontrol", "update", "nodename=n2", "state=down", "reason=dead")
    cluster.start_node("n2")
    cluster.run("scontrol", "update", "nodename=n2", "state=resume")
    assert call("follow", *numbers) == 0, capfd.readouterr()
    all_is_done_once(project)


def test_a_task_that_is_asked_to_go_goes_back_into_the_queue_and_on(
    project: Path, cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    """USR1 is what Slurm sends two minutes before the time limit."""
    numbers = submitted(capfd, "denoise", "--tasks", "2", "--template", str(slow_template()), *WORDS)
    wait_for(project, 2)
    cluster.run("scancel", "--signal=USR1", "--batch", f"{numbers[0]}_0")
    assert call("follow", *numbers) == 0, capfd.readouterr()
    assert "back in the queue 1 times so far" in capfd.readouterr().err
    all_is_done_once(project)


def test_cancel_ends_all_and_the_same_command_does_what_is_left(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("denoise", "--tasks", "2", "--template", str(slow_template()), *WORDS)
    numbers = submitted(capfd, *words)
    wait_for(project, 2)
    assert call("cancel", *numbers) == 0, capfd.readouterr()
    assert "COMPLETED" not in capfd.readouterr().out
    assert not [path for path in (project / "out").rglob("*") if "partial" in path.name or path.suffix == ".claim"]
    again = submitted(capfd, *words)
    assert call("follow", *again) == 0, capfd.readouterr()
    all_is_done_once(project)


def test_a_task_whose_disk_is_full_is_named_and_the_same_command_does_what_is_left(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own = slow_template()
    full = own.read_text().replace("cd @FOLDER@", '[ "$SLURM_ARRAY_TASK_ID" = 1 ] && ulimit -f 60\ncd @FOLDER@')
    Path("full.sbatch").write_text(full)
    numbers = submitted(capfd, "denoise", "--tasks", "2", "--template", "full.sbatch", *WORDS)
    assert call("follow", *numbers) == 3
    log = next((project / "slurm-logs").glob(f"cryoplug-merge-{numbers[1]}.log")).read_text()
    assert "shard 1 of 2 did not come to the end" in log
    assert not Path("out.star").exists()
    again = submitted(capfd, "denoise", "--tasks", "2", *WORDS)
    assert call("follow", *again) == 0, capfd.readouterr()
    all_is_done_once(project)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("denoise", "mics"), "--output"),
        (("denoise", *WORDS, "--strengt", "2"), "--strengt"),
        (("denoise", *WORDS, "--watch"), "--watch"),
        (("denoise", *WORDS, "--shard", "0/2"), "--shard"),
        (("train", "store"), "give --save"),
        (("train", "store", "--save", "--epochs", "many"), "many"),
    ],
)
def test_what_the_command_would_refuse_is_refused_before_anything_is_submitted(
    words: tuple[str, ...], said: str, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("submit", *words) == 2
    assert said in capfd.readouterr().err


def test_a_template_with_an_unknown_field_is_refused(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("mine").write_text("#!/bin/bash\n@COMAND@\n")
    assert call("submit", "denoise", *WORDS, "--template", "mine") == 2
    assert "@COMAND@" in capfd.readouterr().err


def test_two_nodes_train_together_and_go_on_after_preemption(
    project: Path, cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    Path("store").mkdir()
    for name in ("noisy", "clean"):
        rng.random((20, 24, 24), np.float32).tofile(f"store/{name}_train.bin")
    capfd.readouterr()
    assert call("template", "train") == 0
    text = capfd.readouterr().out
    # Both nodes are this machine, whose name may not lead to itself.
    text = text.replace('head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)', "head=127.0.0.1")
    Path("own.sbatch").write_text(text.replace("--rdzv-backend=c10d", "--rdzv-backend=c10d --local-addr=127.0.0.1"))
    words = ["store", "--patch-size", "24", "--batch-size", "1", "--epochs", "3", "--save", "--device", "cpu"]
    more = ["--threads", "1", "--no-evaluation", "--checkpoint-minutes", "0"]
    how = ["--nodes", "2", "--processes", "1", "--template", "own.sbatch"]
    (number,) = submitted(capfd, "train", *how, *words, *more)
    metrics = project / "saved_models" / "cryo_cnn" / "metrics.jsonl"
    end = time.monotonic() + 120
    while not metrics.is_file():
        log = "".join(path.read_text() for path in (project / "slurm-logs").glob("*"))
        assert time.monotonic() < end, log
        time.sleep(0.1)
    cluster.run("scancel", f"--signal={signal.Signals.SIGUSR1.name[3:]}", "--batch", number)
    code = call("follow", number)
    log = "".join(path.read_text() for path in (project / "slurm-logs").glob("*"))
    assert code == 0, log
    assert "2 processes on this machine train together" in log
    assert len(metrics.read_text().splitlines()) == 3
