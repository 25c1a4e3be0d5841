"""On a real Slurm of two nodes: nothing is lost and nothing is done twice, whatever ends a task."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryoplug.models.checkpoint import load_checkpoint
from made_project import (
    TESTS,
    WORDS,
    all_is_done_once,
    call,
    gated_template,
    make,
    until,
    until_all_stand,
)
from slurm_here import Cluster

from cryoplug_slurm.scripts import template_text


@pytest.fixture
def project(here: Path, cluster: Cluster) -> Path:
    return make(here)


def submitted(capfd: pytest.CaptureFixture[str], *words: str) -> list[str]:
    capfd.readouterr()
    assert call("submit", *words, "--json") == 0, capfd.readouterr().err
    return list(json.loads(capfd.readouterr().out)["jobs"])


def followed(capfd: pytest.CaptureFixture[str], *numbers: str) -> tuple[int, list[dict[str, Any]], str]:
    """Follow jobs; give the exit code, what became of each task, and what was said on the way."""
    capfd.readouterr()
    code = call("follow", *numbers, "--json")
    said = capfd.readouterr()
    return code, [json.loads(line) for line in said.out.splitlines()], said.err


def on_two_nodes(capfd: pytest.CaptureFixture[str], *more: str) -> list[str]:
    """Submit two tasks, each of which has a node to itself and stands still in the middle."""
    numbers = submitted(
        capfd, "denoise", "--tasks", "2", "--sbatch=--exclusive", "--template", gated_template(), *more, *WORDS
    )
    until_all_stand(2)
    return numbers


def test_an_array_denoises_and_a_job_merges(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    numbers = submitted(capfd, "denoise", "--tasks", "3", *WORDS)
    code, tasks, said = followed(capfd, *numbers)
    assert code == 0 and len(numbers) == 2
    assert [task["state"] for task in tasks] == ["COMPLETED"] * 4 and "COMPLETED" in said
    all_is_done_once(project)
    assert (project / "out" / "report.html").is_file()


def test_a_node_that_dies_gives_its_task_to_another(
    project: Path, cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    numbers = on_two_nodes(capfd)
    node = Path("stands-1").read_text()
    assert node != Path("stands-0").read_text()
    cluster.kill_node(node)
    Path("go-on").touch()
    code, tasks, said = followed(capfd, *numbers)
    assert code == 0 and [task["restarts"] for task in tasks] == [0, 1, 0], said
    all_is_done_once(project)


@pytest.mark.slow
def test_preempted_tasks_go_back_into_the_queue_and_on(
    project: Path, cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    numbers = on_two_nodes(capfd, "--sbatch=--partition=main")
    cluster.run("sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=true")
    code, tasks, said = followed(capfd, *numbers)
    assert code == 0 and [task["restarts"] for task in tasks] == [1, 1, 0], said
    all_is_done_once(project)


@pytest.mark.slow
def test_a_task_that_comes_near_its_time_limit_goes_back_into_the_queue_and_on(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    numbers = on_two_nodes(capfd, "--sbatch=--time=1", "--sbatch=--signal=B:USR1@5")
    code, tasks, said = followed(capfd, *numbers)
    assert code == 0 and all(task["restarts"] >= 1 for task in tasks[:2]), said
    assert "back in the queue 1 time so far" in said
    all_is_done_once(project)


def test_a_queue_that_takes_nothing_back_makes_a_failed_task(
    project: Path, cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    """Some clusters forbid it: the task must not look as if it had done all."""
    own = Path(gated_template()).read_text().replace("scontrol requeue", "false")
    Path("gated.sbatch").write_text(own)
    words = ["denoise", "--tasks", "1", "--template", "gated.sbatch", *WORDS]
    (number,) = submitted(capfd, *words)
    until_all_stand(1)
    cluster.run("scancel", "--signal=USR1", "--batch", number)
    code, (task,), _ = followed(capfd, number)
    assert (code, task["state"], task["exit_code"]) == (3, "FAILED", 138)


def test_cancel_ends_all_and_the_same_command_does_what_is_left(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    numbers = on_two_nodes(capfd)
    capfd.readouterr()
    assert call("cancel", *numbers) == 0, capfd.readouterr()
    said = capfd.readouterr()
    assert "COMPLETED" not in said.out and f"{numbers[0]}_0: " in said.out
    assert "finishes what it is writing" in said.err
    assert not [path.name for path in (project / "out").rglob("*") if path.suffix == ".claim" or "partial" in path.name]
    assert len(list((project / "out").glob("*.mrc"))) >= 2 and not Path("out.star").exists()
    again = submitted(capfd, "denoise", "--tasks", "2", *WORDS)
    code, _, said_later = followed(capfd, *again)
    assert code == 0, said_later
    all_is_done_once(project)


def test_a_task_whose_disk_is_full_is_named_and_the_same_command_does_what_is_left(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own = template_text("denoise").replace("cd @FOLDER@", '[ "$SLURM_ARRAY_TASK_ID" = 1 ] && ulimit -f 60\ncd @FOLDER@')
    Path("full.sbatch").write_text(own)
    numbers = submitted(capfd, "denoise", "--tasks", "2", "--template", "full.sbatch", *WORDS)
    code, tasks, _ = followed(capfd, *numbers)
    assert code == 3 and [task["exit_code"] for task in tasks[:2]] == [0, 5]
    log = next((project / "slurm-logs").glob(f"cryoplug-merge-{numbers[1]}.log")).read_text()
    assert "shard 1 of 2 did not come to the end" in log
    assert not Path("out.star").exists()
    assert {line["status"] for line in journal_of_shards(project)} <= {"done"}, "a full disk fails no micrograph"
    again = submitted(capfd, "denoise", "--tasks", "2", *WORDS)
    code, _, said = followed(capfd, *again)
    assert code == 0, said
    all_is_done_once(project)


def journal_of_shards(project: Path) -> list[dict[str, Any]]:
    paths = [path for path in (project / "out").rglob("*.jsonl") if path.is_file()]
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_two_nodes_train_together_and_go_on_after_a_kill_and_after_preemption(
    project: Path, cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    Path("store").mkdir()
    for name in ("noisy", "clean"):
        rng.random((20, 24, 24), np.float32).tofile(f"store/{name}_train.bin")
    # Both nodes are this machine, whose name may not lead to itself.
    text = template_text("train").replace(
        'head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)', "head=127.0.0.1"
    )
    text = text.replace("--rdzv-backend=c10d", "--rdzv-backend=c10d --local-addr=127.0.0.1")
    Path("own.sbatch").write_text(text.replace("-m @COMMAND@", f"'{TESTS / 'gated_train.py'}' @COMMAND@"))
    words = ["train", "store", "--patch-size", "24", "--batch-size", "1", "--epochs", "4", "--save", "--device", "cpu"]
    words += ["--threads", "1", "--no-evaluation", "--checkpoint-minutes", "0"]
    (number,) = submitted(capfd, *words[:1], "--nodes", "2", "--processes", "1", "--template", "own.sbatch", *words[1:])
    until(Path("stands").exists, "the killed process began again, and two epochs are done")
    cluster.run("scancel", "--signal=USR1", "--batch", number)
    code, (task,), said = followed(capfd, number)
    log = "".join(path.read_text() for path in (project / "slurm-logs").glob("*"))
    assert code == 0 and task["restarts"] == 1, (said, log)
    assert "2 processes on this machine train together" in log and log.count("going on from epoch") >= 2
    metrics = (project / "saved_models" / "cryo_cnn" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in metrics] == [1, 2, 3, 4]
    straight(words)
    ends = [next((project / folder / "cryo_cnn").glob("epoch_*")) for folder in ("saved_models", "straight")]
    assert load_checkpoint(ends[0]).sha256 == load_checkpoint(ends[1]).sha256, "not bit for bit"


def straight(words: Sequence[str]) -> None:
    """Train by two processes without Slurm, and without being disturbed."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "cryoplug", *words, "--checkpoint-dir", "straight"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
