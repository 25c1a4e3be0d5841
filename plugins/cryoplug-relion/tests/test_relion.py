"""A project of RELION, driven by RELION itself."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from cryoplug.formats.registry import open_micrograph
from cryoplug.formats.star import read_star
from relion_project import Project

DOCS = Path(__file__).resolve().parents[3] / "docs"
IMPORT, DENOISE = "Import/job001/", "External/job002/"
SUCCEEDED, FAILED, ABORTED = "2", "3", "4"
"""Status of a process in default_pipeline.star of RELION 3.1."""


def wait_for(condition: Callable[[], bool], *, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def run_job(project: Project, job: str) -> None:
    name = f"run{time.monotonic_ns()}"
    project.relion("relion_pipeliner", "--schedule", name, "--RunJobs", job, "--sec_wait_after", "0", check=False)


def start_job(project: Project, job: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["relion_pipeliner", "--schedule", f"run{time.monotonic_ns()}", "--RunJobs", job, "--sec_wait_after", "0"],
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def add_jobs(project: Project, *, checkpoint: str = "", more: str = "") -> None:
    """Add an Import job and a denoise job of its micrographs."""
    text = "do_raw == Yes;is_multiframe == No;fn_in_raw == Micrographs/*.mrc;angpix == 2.5"
    project.relion("relion_pipeliner", "--addJob", "Import", "--addJobOptions", text)
    text = (
        f"fn_exe == cryoplug relion denoise;in_mic == {IMPORT}micrographs.star;nr_threads == 1;"
        f"param1_label == checkpoint;param1_value == {checkpoint or project.checkpoint};{more}"
    )
    project.relion("relion_pipeliner", "--addJob", "External", "--addJobOptions", text)
    run_job(project, IMPORT)


def status(project: Project, job: str) -> str:
    return {row["rlnPipeLineProcessName"]: row["rlnPipeLineProcessStatus"] for row in project.pipeline("processes")}[
        job
    ]


def pid_of_the_job(project: Project) -> int:
    """Find the process that RELION started: of the two, the parent."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            here = (entry / "cwd").resolve() == project.folder.resolve()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if here and b"relion" in words and b"denoise" in words and not words[0].endswith(b"sh"):
            found[int(entry.name)] = parent
    parents = [pid for pid, parent in found.items() if parent not in found]
    return parents[0] if parents else 0


@pytest.fixture
def slow_job(relion_project: Project) -> Iterator[tuple[Project, subprocess.Popen[bytes]]]:
    """A running job that has finished its first micrograph."""
    project = relion_project
    project.micrographs(1, folder="Micrographs")
    project.micrographs(2, 3, 4, folder="Micrographs", side=1024)
    add_jobs(project, more="other_args == --tile 16")
    pipeliner = start_job(project, DENOISE)
    journal = project / DENOISE / "denoise.jsonl"  # the file is there before its line is: only the line says "finished"
    wait_for(lambda: journal.exists() and journal.read_bytes().endswith(b"\n"))
    yield project, pipeliner
    pipeliner.kill()
    pipeliner.wait()


def test_import_denoise_and_continue_after_new_micrographs(relion_project: Project) -> None:
    project = relion_project
    project.micrographs(1, 2, folder="Micrographs")
    add_jobs(project)
    run_job(project, DENOISE)
    assert status(project, DENOISE) == SUCCEEDED
    assert project.pipeline("nodes")[1:] == [
        {"rlnPipeLineNodeName": f"{DENOISE}micrographs_denoised.star", "rlnPipeLineNodeType": "1"},
        {"rlnPipeLineNodeName": f"{DENOISE}logfile.pdf", "rlnPipeLineNodeType": "13"},
    ]
    edges = [tuple(row.values()) for row in project.pipeline("output_edges")]
    assert (DENOISE, f"{DENOISE}micrographs_denoised.star") in edges
    # What RELION's Browse buttons look for.
    assert (project / f".Nodes/1/{DENOISE}micrographs_denoised.star").exists()

    project.micrographs(3, folder="Micrographs")
    for job in (IMPORT, DENOISE):
        run_job(project, job)
        assert status(project, job) == SUCCEEDED
    assert "3 of 3: Micrographs/mic_003.mrc: done" in (project / DENOISE / "run.out").read_text()
    assert (project / DENOISE / "run.out").read_text().endswith("denoise: 1 done, 2 finished before\n")
    assert b"\r" not in (project / DENOISE / "run.out").read_bytes()
    assert (project / DENOISE / "run.err").read_text() == ""
    source = read_star(project / IMPORT / "micrographs.star")
    made = read_star(project / DENOISE / "micrographs_denoised.star")
    assert made.block("optics").rows == source.block("optics").rows
    assert len(made.block("micrographs").rows) == 3


@pytest.mark.slow
def test_picks_on_denoised_micrographs_extract_from_the_raw_ones(relion_project: Project) -> None:
    project = relion_project
    names = project.micrographs(1, 2, folder="Micrographs", side=512)
    add_jobs(project)
    run_job(project, DENOISE)
    for folder in ("AutoPick/job003", "Extract/job004"):
        (project / folder).mkdir(parents=True)
    pick = ["--pickname", "autopick", "--LoG", "--LoG_diam_min", "40", "--LoG_diam_max", "60"]
    project.relion("relion_autopick", "--i", f"{DENOISE}micrographs_denoised.star", "--odir", "AutoPick/job003/", *pick)
    extract = [
        "--coord_dir",
        "AutoPick/job003/",
        "--coord_suffix",
        "_autopick.star",
        "--extract",
        "--extract_size",
        "32",
    ]
    target = ["--part_star", "Extract/job004/particles.star", "--part_dir", "Extract/job004/"]
    project.relion("relion_preprocess", "--i", f"{IMPORT}micrographs.star", *extract, *target)
    particles = read_star(project / "Extract/job004/particles.star").block("particles")
    assert len(particles.rows) >= 10
    assert set(particles.column("rlnMicrographName")) == set(names)
    # The first particle is a piece of the raw micrograph, pixel by pixel.
    row = dict(zip(particles.columns, particles.rows[0], strict=True))
    number, stack = row["rlnImageName"].split("@")
    with open_micrograph(project / stack, section=int(number)) as source:
        piece = source.read_rows(0, 32)
    with open_micrograph(project / row["rlnMicrographName"]) as source:
        whole = source.read_rows(0, source.shape[0])
    x, y = (int(float(row[f"rlnCoordinate{axis}"])) for axis in "XY")
    around = [whole[y - 16 + dy : y + 16 + dy, x - 16 + dx : x + 16 + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    # RELION rounds its own way; noise tells one pixel from the next.
    assert max(np.corrcoef(piece.ravel(), raw.ravel())[0, 1] for raw in around) > 0.999


@pytest.mark.slow
def test_coarser_filtered_micrographs_are_picked_and_their_picks_turned_back_fit_the_raw_ones(
    relion_project: Project,
) -> None:
    project = relion_project
    names = project.micrographs(1, 2, folder="Micrographs", side=512)
    more = {"highpass": "600", "lowpass": "15", "output_angpix": "5"}
    fields = [f"param{i}_label == {name};param{i}_value == {value}" for i, (name, value) in enumerate(more.items(), 2)]
    add_jobs(project, more=";".join(fields))
    run_job(project, DENOISE)
    assert status(project, DENOISE) == SUCCEEDED, (project / DENOISE / "run.err").read_text()
    assert "multiply rlnCoordinateX and rlnCoordinateY" in (project / DENOISE / "run.out").read_text()
    star = read_star(project / DENOISE / "micrographs_denoised.star")
    assert [float(size) for size in star.block("optics").column("rlnMicrographPixelSize")] == [5.0]
    written = f"{DENOISE}{names[0]}"
    assert "(x,y,z,n)= 256 x 256 x 1 x 1" in (said := project.relion("relion_image_handler", "--i", written, "--stats"))
    assert float(re.search(r"angpix ?= ?([.\d]+)", said)[1]) == 5.0

    (project / "AutoPick/job003").mkdir(parents=True)
    pick = ["--pickname", "autopick", "--LoG", "--LoG_diam_min", "40", "--LoG_diam_max", "60", "--shrink", "0"]
    project.relion("relion_autopick", "--i", f"{DENOISE}micrographs_denoised.star", "--odir", "AutoPick/job003/", *pick)
    script = re.search(r"^for picks in .*?^done$", (DOCS / "relion.md").read_text(), flags=re.MULTILINE | re.DOTALL)[0]
    script = script.replace("job005", "job003").replace("*= 4", "*= 2")
    project.relion("bash", "-euc", script)
    for number, name in enumerate(names, 1):
        (picks,) = (project / "AutoPick/job003").rglob(f"{Path(name).stem}_autopick.star")
        block = read_star(picks).blocks[0]
        found = np.array([[float(value) for value in block.column(f"rlnCoordinate{axis}")] for axis in "YX"]).T
        places = np.random.default_rng(number).uniform(20, 492, (14, 2))  # of the discs; see make_micrograph
        inside = places[((places > 40) & (places < 472)).all(1)]
        near = [np.hypot(*(found - place).T).min() for place in inside]
        assert np.median(near) < 4, "pixels of the raw micrograph"


def test_failure_is_failed(relion_project: Project) -> None:
    relion_project.micrographs(1, folder="Micrographs")
    add_jobs(relion_project, checkpoint="nowhere")
    run_job(relion_project, DENOISE)
    assert status(relion_project, DENOISE) == FAILED
    assert "no such folder" in (relion_project / DENOISE / "run.err").read_text()


def test_command_with_pipeline_control_added_by_relion(relion_project: Project) -> None:
    # RELION adds it to every command in which it finds "relion_".
    relion_project.micrographs(1, folder="Micrographs")
    shutil.copytree(relion_project.checkpoint, relion_project / "relion_model" / "epoch_0001")
    add_jobs(relion_project, checkpoint="relion_model")
    run_job(relion_project, DENOISE)
    assert "--pipeline_control" in (relion_project / DENOISE / "note.txt").read_text()
    assert status(relion_project, DENOISE) == SUCCEEDED


def test_abort_is_aborted(slow_job: tuple[Project, subprocess.Popen[bytes]]) -> None:
    project, pipeliner = slow_job
    (project / DENOISE / "RELION_JOB_ABORT_NOW").touch()
    pipeliner.wait(timeout=60)
    assert status(project, DENOISE) == ABORTED
    assert not (project / DENOISE / "RELION_JOB_ABORT_NOW").exists()


def test_killed_job_goes_on_when_it_is_run_again(slow_job: tuple[Project, subprocess.Popen[bytes]]) -> None:
    project, pipeliner = slow_job
    pid = pid_of_the_job(project)
    assert pid
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not pid_of_the_job(project))
    pipeliner.kill()  # nobody tells it: it would wait for ever
    pipeliner.wait()
    assert project.ends(DENOISE) == []
    assert not (project / DENOISE / "micrographs_denoised.star").exists()
    shutil.rmtree(project / ".relion_lock", ignore_errors=True)
    run_job(project, DENOISE)
    assert status(project, DENOISE) == SUCCEEDED
    assert "finished before" in (project / DENOISE / "run.out").read_text()


@contextmanager
def x_server() -> Iterator[str]:
    """Run an X server of 800 x 700 pixels; gives its display's name.

    Without -noreset it would start anew, deaf for a moment, whenever its last window or screenshot goes.
    """
    read_end, write_end = os.pipe()
    command = ["Xvfb", "-displayfd", str(write_end), "-screen", "0", "800x700x24", "-noreset"]
    server = subprocess.Popen(command, pass_fds=[write_end], stderr=subprocess.DEVNULL)
    os.close(write_end)
    try:
        yield f":{os.read(read_end, 16).decode().strip()}"
    finally:
        os.close(read_end)
        server.terminate()
        server.wait()


@pytest.mark.slow
def test_relion_shows_a_denoised_micrograph(relion_project: Project, tmp_path: Path) -> None:
    for program in ("relion_display", "Xvfb", "xwd"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (on Debian: apt-get install relion-gui xvfb x11-apps)")
    project = relion_project
    project.micrographs(1, folder="Micrographs", side=512)
    add_jobs(project)
    run_job(project, DENOISE)
    with x_server() as display:
        shown = subprocess.Popen(
            ["relion_display", "--i", f"{DENOISE}Micrographs/mic_001.mrc", "--scale", "1", "--sigma_contrast", "3"],
            cwd=project.folder,
            env={**project.environment, "DISPLAY": display},
            stderr=subprocess.DEVNULL,
        )

        def greys() -> int:
            assert shown.poll() is None, "relion_display ended by itself"
            command = ["xwd", "-root", "-silent", "-display", display]
            picture = subprocess.run(command, capture_output=True, check=True).stdout
            pixels = np.frombuffer(picture[-800 * 700 * 4 :], np.uint8).reshape(-1, 4)[:, :3]
            return len(np.unique(pixels[(pixels == pixels[:, :1]).all(axis=1)][:, 0]))

        try:
            # A window of menus and buttons has few greys, a micrograph nearly all.
            wait_for(lambda: greys() > 100, seconds=30)
        finally:
            shown.kill()
            shown.wait()
