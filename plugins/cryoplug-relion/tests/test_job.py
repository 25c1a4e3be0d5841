"""The folder of a job: what RELION finds there, whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryoplug.formats.star import read_star
from cryoplug.models import shipped
from relion_project import Project

SUCCESS, FAILURE, ABORTED = "RELION_JOB_EXIT_SUCCESS", "RELION_JOB_EXIT_FAILURE", "RELION_JOB_EXIT_ABORTED"


def wait_for(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def worker_of(process: subprocess.Popen[str]) -> int:
    """Give the number of the process that works, while the one that was started watches it."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_for(lambda: bool(children.read_text().split()))
    return int(children.read_text().split()[0])


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.fixture
def long_job(project: Project) -> tuple[Project, str, tuple[str, ...]]:
    """A job whose first micrograph is done at once; the others take some seconds, because their tiles are tiny."""
    names = project.micrographs(1) + project.micrographs(2, 3, 4, side=1024)
    star, job = project.star(names), project.job()
    model = str(project.checkpoint)
    return project, job, ("denoise", "--o", job, "--in_mics", star, "--checkpoint", model, "--tile", "16", "--j", "1")


def begun(project: Project, job: str) -> Callable[[], bool]:
    """Tell whether the job has finished its first micrograph; the journal has a line of it then."""
    journal = project / job / "denoise.jsonl"
    return lambda: journal.exists() and journal.stat().st_size > 0


def test_success_comes_with_star_nodes_and_log(project: Project) -> None:
    star, job = project.star(project.micrographs(1, 2)), project.job()
    done = project.denoise(job, star)
    assert (done.returncode, done.stderr) == (0, "")
    assert project.ends(job) == [SUCCESS]
    assert (project / job / "logfile.pdf").read_bytes().startswith(b"%PDF")
    names = read_star(project / job / "micrographs_denoised.star").block("micrographs").column("rlnMicrographName")
    assert names == ["External/job004/Movies/mic_001.mrc", "External/job004/Movies/mic_002.mrc"]
    assert all((project / name).is_file() for name in names)
    assert done.stdout.splitlines()[-1] == "denoise: 2 done"
    assert "\r" not in done.stdout


@pytest.mark.parametrize(
    ("release", "number", "label"),
    [
        ("3.1", "1", "MicrographsData.star.relion"),
        ("4", "1", "MicrographsData.star.relion"),
        ("5", "1", "MicrographGroupMetadata.star.relion"),
    ],
)
def test_nodes_have_the_label_of_the_release_that_wrote_the_job(
    project: Project, release: str, number: str, label: str
) -> None:
    star, job = project.star(project.micrographs(1)), project.job(release=release)
    project.denoise(job, star)
    nodes = read_star(project / job / "RELION_OUTPUT_NODES.star").block("output_nodes")
    assert nodes.columns == ["rlnPipeLineNodeName", "rlnPipeLineNodeType", "rlnPipeLineNodeTypeLabel"]
    assert nodes.rows == [
        ["External/job004/micrographs_denoised.star", number, label],
        ["External/job004/logfile.pdf", "13", "LogFile.pdf.relion"],
    ]


def test_same_command_again_does_only_what_is_new(project: Project) -> None:
    names, job = project.micrographs(1, 2, 3), project.job()
    star = project.star(names[:2])
    project.denoise(job, star)
    before = (project / job / "Movies/mic_001.mrc").stat().st_mtime_ns
    project.star(names)
    again = project.denoise(job, star)
    assert project.ends(job) == [SUCCESS]
    assert again.stdout.splitlines() == [
        again.stdout.splitlines()[0],
        "denoise: 1 done, 2 finished before",
    ]
    assert "mic_003.mrc: done" in again.stdout
    assert (project / job / "Movies/mic_001.mrc").stat().st_mtime_ns == before
    listed = read_star(project / job / "micrographs_denoised.star").block("micrographs")
    assert len(listed.rows) == 3


def test_a_bad_micrograph_is_named_and_left_out_and_the_job_succeeds(project: Project) -> None:
    names, job = project.micrographs(1, 2, 3), project.job()
    (project / names[1]).write_bytes(b"this is no micrograph")
    done = project.denoise(job, project.star(names))
    assert done.returncode == 3
    assert names[1] in done.stderr
    assert project.ends(job) == [SUCCESS]
    listed = read_star(project / job / "micrographs_denoised.star").block("micrographs")
    assert listed.column("cryoplugMicrographNameRaw") == [names[0], names[2]]


def test_without_a_checkpoint_it_is_the_general_model(project: Project) -> None:
    job, star = project.job(), project.star(project.micrographs(1))
    done = project.run("denoise", "--o", job, "--in_mics", star, "--j", "1")
    if shipped.is_there():
        assert done.returncode == 0 and project.ends(job) == [SUCCESS]
        assert "general model sha256:" in done.stdout, "RELION shows what a job says there"
    else:
        assert project.ends(job) == [FAILURE]
        assert "this build of cryoplug has no general model; give --checkpoint" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["denoise", "--o", "JOB", "--in_mics", "STAR", "--checkpoint", "nowhere", "--j", "1"], "no such folder"),
        (["denoise", "--o", "JOB", "--in_mics", "nowhere.star", "--checkpoint", "MODEL"], "no such file"),
        (["denoise", "--o", "JOB", "--in_mics", "STAR", "--checkpoint", "MODEL", "--sigma", "3", "--j", "1"], "sigma"),
        (["denoise", "--o", "JOB", "--in_mics", "STAR", "--checkpoint", "--j", "4"], "--checkpoint has no value"),
        (["denoise", "--o", "JOB", "--in_movies", "STAR", "--checkpoint", "MODEL"], "movies are not denoised"),
        (["denoise", "--o", "JOB", "--in_parts", "STAR", "--checkpoint", "MODEL"], "leave this field of the job empty"),
        (["denoise", "--o", "JOB", "--in_mics", "STAR", "--checkpoint", "MODEL", "--gpu", "all"], "'--gpu'"),
        (["denoize", "--o", "JOB"], "No such command"),
        (["denoise", "--o=JOB", "--help"], ""),
        (["train", "--o", "JOB", "--in_mics", "STAR"], "have no halves"),
        (["convert", "--o", "JOB"], "no --in_mics and no --in_movies"),
    ],
)
def test_every_other_end_is_a_failure(project: Project, arguments: list[str], reason: str) -> None:
    star, job = project.star(project.micrographs(1)), project.job()
    (project / job / SUCCESS).touch()  # of an earlier run: it must not stay
    words = {"JOB": job, "STAR": star, "MODEL": str(project.checkpoint), "--o=JOB": f"--o={job}"}
    done = project.run(*(words.get(word, word) for word in arguments))
    assert done.returncode != 0
    assert reason in done.stderr
    assert project.ends(job) == [FAILURE]


def test_all_micrographs_bad_is_a_failure_whose_log_says_why(project: Project) -> None:
    names, job = project.micrographs(1, 2), project.job()
    for name in names:
        (project / name).write_bytes(b"this is no micrograph")
    done = project.denoise(job, project.star(names))
    assert done.returncode == 4
    assert project.ends(job) == [FAILURE]
    assert (project / job / "logfile.pdf").is_file()


@pytest.mark.parametrize("limit", ["ulimit -v 400000", "ulimit -f 16"], ids=["memory", "disk"])
def test_memory_or_disk_that_runs_out_is_a_failure(project: Project, limit: str) -> None:
    star, job = project.star(project.micrographs(1)), project.job()
    command = (
        f"{limit}; exec cryoplug relion denoise --o {job} --in_mics {star} --checkpoint {project.checkpoint} --j 1"
    )
    done = subprocess.run(
        ["bash", "-c", command], cwd=project.folder, env=project.environment, capture_output=True, check=False
    )
    assert done.returncode != 0
    assert project.ends(job) == [FAILURE], done.stderr


def test_json_is_one_record_a_line(project: Project) -> None:
    names, job = project.micrographs(1, 2), project.job()
    (project / names[1]).write_bytes(b"this is no micrograph")
    done = project.denoise(job, project.star(names), "--json")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert {record["input"]: record["status"] for record in records} == {names[0]: "done", names[1]: "failed"}
    assert "denoise: 1 done, 1 failed" in done.stderr


def test_wrong_usage_makes_no_folder(project: Project) -> None:
    project.run("denoise", "--o", "External/job009/", "--nonsense")
    assert not (project / "External").exists()


def test_sigterm_is_a_failure_and_the_same_command_goes_on(long_job: tuple[Project, str, tuple[str, ...]]) -> None:
    project, job, arguments = long_job
    process = project.start(*arguments)
    wait_for(begun(project, job))
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert project.ends(job) == [FAILURE]
    again = project.run(*arguments)
    assert project.ends(job) == [SUCCESS]
    assert "finished before" in again.stdout


def test_abort_is_answered_and_the_wish_removed(long_job: tuple[Project, str, tuple[str, ...]]) -> None:
    project, job, arguments = long_job
    process = project.start(*arguments)
    wait_for(begun(project, job))
    (project / job / "RELION_JOB_ABORT_NOW").touch()
    process.communicate(timeout=60)
    assert project.ends(job) == [ABORTED]
    assert not (project / job / "RELION_JOB_ABORT_NOW").exists()


def test_killed_worker_is_a_failure_that_speaks_of_memory(long_job: tuple[Project, str, tuple[str, ...]]) -> None:
    # What the kernel does when memory runs out.
    project, job, arguments = long_job
    process = project.start(*arguments)
    worker = worker_of(process)
    wait_for(begun(project, job))
    os.kill(worker, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 137
    assert "memory" in err
    assert project.ends(job) == [FAILURE]


def test_killed_job_leaves_no_marker_and_no_process_and_goes_on(long_job: tuple[Project, str, tuple[str, ...]]) -> None:
    project, job, arguments = long_job
    process = project.start(*arguments)
    worker = worker_of(process)
    wait_for(begun(project, job))
    process.kill()
    process.communicate(timeout=60)
    wait_for(lambda: not is_alive(worker))
    assert project.ends(job) == []
    again = project.run(*arguments)
    assert project.ends(job) == [SUCCESS]
    assert "finished before" in again.stdout
    assert not list((project / job).rglob("*.cryoplug-partial"))


def test_lines_come_while_the_job_works(long_job: tuple[Project, str, tuple[str, ...]]) -> None:
    project, job, arguments = long_job
    process = project.start(*arguments)
    first = process.stdout.readline()
    assert first.startswith("denoise: 1 of 4: ")
    assert not project.ends(job)
    process.terminate()
    process.communicate(timeout=60)


def test_a_hint_of_slurm_ends_nothing_however_early(project: Project) -> None:
    star, job = project.star(project.micrographs(1)), project.job()
    process = project.start("denoise", "--o", job, "--in_mics", star, "--checkpoint", str(project.checkpoint))
    worker_of(process)
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=120)
    assert project.ends(job) == [SUCCESS]


def test_hang_up_is_a_failure(long_job: tuple[Project, str, tuple[str, ...]]) -> None:
    project, job, arguments = long_job
    process = project.start(*arguments)
    wait_for(begun(project, job))
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert project.ends(job) == [FAILURE]


def test_help_needs_no_folder_and_takes_no_second_process(project: Project) -> None:
    for command in ("denoise", "train", "convert", "share"):
        done = project.run(command, "--help")
        assert done.returncode == 0 and "Example: " in done.stdout.replace("\n  ", " ")
