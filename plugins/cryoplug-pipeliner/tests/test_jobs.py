"""Jobs of the real Pipeliner: success, growth, failure, abort, death, and names with spaces."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from cryoplug.formats.star import read_star
from PIL import Image
from pipeliner.metadata_tools import get_job_metadata
from pipeliner.pipeliner_job import PipelinerJob
from pipeliner.project_graph import ProjectGraph
from pipeliner_project import DENOISE, Project, command_of, parent_of, wait_for

# The Pipeliner leaves its jobs running, on purpose, and never waits for their processes.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


def shown(project: Project, job: PipelinerJob) -> dict[str, dict[str, object]]:
    """Write what Doppio shows, as it does, and read it back: by title."""
    project.api.get_job(job.output_dir).save_results_display_files()
    files = sorted((project / job.output_dir).glob(".results_display*.json"))
    return {record["title"]: record for record in map(json.loads, map(Path.read_text, files))}


def test_failure_then_it_is_mended_then_the_set_grows(project: Project) -> None:
    names = project.micrographs(1, 2)
    project.list(names)
    (project / "MotionCorr").rename(project / "elsewhere")
    job = project.denoise()
    assert project.end(job) == "Failed"
    said = project.said(job)
    assert names[0] in said and "Traceback" not in said
    assert [item["dobj_type"] for item in shown(project, job).values()] == ["pending"]

    (project / "elsewhere").rename(project / "MotionCorr")
    job = project.go_on(job)
    assert project.end(job) == "Succeeded", project.said(job)
    star = f"{job.output_dir}micrographs_denoised.star"
    assert project.nodes()[star] == "MicrographGroupMetadata.star.relion.cryoplug.denoised"
    assert project.nodes()[f"{job.output_dir}logfile.pdf"] == "LogFile.pdf.cryoplug.denoise"
    # The path below MotionCorr/job001/ stays: picks fit the raw micrographs without renaming.
    assert project.denoised(job) == [f"{job.output_dir}Movies/mic {number}.mrc" for number in (1, 2)]
    assert read_star(project / star).block("micrographs").column("rlnDefocusU") == ["10000.5", "10001.5"]

    # One that is new is fine, another one is broken: it is named and left out, and the job has succeeded.
    first = (project / project.denoised(job)[0]).stat()
    names += project.micrographs(3, 4)
    (project / names[3]).write_bytes(b"not an image")
    project.list(names)
    job = project.go_on(job)
    assert project.end(job) == "Succeeded", project.said(job)
    assert "some micrographs failed" in project.said(job)
    assert len(project.denoised(job)) == 3 and project.finished(job) == 3
    assert (project / project.denoised(job)[0]).stat() == first, "what is finished is never done twice"
    check_display(project, job, failed=names[3])
    check_metadata(project, job, failed=names[3])


def check_display(project: Project, job: PipelinerJob, *, failed: str) -> None:
    display = shown(project, job)
    text = display["What was done"]
    assert text["flag"] and "Denoised: 3. Failed: 1." in text["display_data"] and failed in text["display_data"]
    assert display["Denoised micrographs"]["image_names"] == project.denoised(job)
    pictures = display["Before and after: raw, denoised, removed"]["image_names"]
    assert len(pictures) == 3
    for name in pictures:
        with Image.open(project / name) as picture:
            assert picture.width > 3 * 160, "three panels side by side"
    assert (project / display["Report"]["html_file"]).read_text().startswith("<!DOCTYPE html>")
    assert (project / display["Log file"]["file_path"]).read_bytes().startswith(b"%PDF")


def check_metadata(project: Project, job: PipelinerJob, *, failed: str) -> None:
    with ProjectGraph() as pipeline:
        found = get_job_metadata(pipeline.find_process(job.output_dir))
    assert found["run_parameters"]["ProgramsUsed"][0]["Version"]
    results = found["results"]
    assert (results["MicrographCount"], results["FailedMicrographs"]) == (3, [failed])
    assert results["Denoiser"]["model"] == "cryo_cnn" and results["PixelSizeAngstrom"] == 2.5
    assert results["MeanSigmaAfter"] < results["MeanSigmaBefore"]


def long_job(project: Project) -> PipelinerJob:
    """Start a job whose first micrograph is done at once; the other one keeps the general model busy for minutes."""
    project.list(project.micrographs(1) + project.micrographs(2, side=4096))
    return project.denoise(checkpoint="general")


def test_abort_then_kill_then_go_on(project: Project) -> None:
    job = long_job(project)
    wait_for(lambda: project.finished(job) == 1, "the first micrograph")
    project.api.abort_job(job.output_dir)
    assert project.end(job) == "Aborted"
    assert not project.is_alive(job)
    first = (project / f"{job.output_dir}Movies/mic 1.mrc").stat()

    job = project.go_on(job)
    os.kill(project.engine(job), signal.SIGKILL)
    assert project.end(job) == "Failed"
    wait_for(lambda: not project.is_alive(job), "the end of the worker, which dies with the process that watches it")

    project.list(["MotionCorr/job001/Movies/mic 1.mrc", *project.micrographs(3)])
    job = project.go_on(job)
    assert project.end(job) == "Succeeded", project.said(job)
    assert len(project.denoised(job)) == 2
    assert (project / project.denoised(job)[0]).stat() == first, "what is finished is never done twice"


def test_when_the_pipeliner_is_killed_the_job_ends_and_says_so(project: Project) -> None:
    job = long_job(project)
    runner = parent_of(project.engine(job))
    assert any("job_runner" in word for word in command_of(runner))
    os.kill(runner, signal.SIGKILL)
    assert project.end(job) == "Failed"
    wait_for(lambda: not project.is_alive(job), "the end of the job")


def test_the_command_line_of_the_pipeliner_knows_the_jobs(project: Project) -> None:
    available, _, unavailable = project.cli("--available_jobs", "cryoplug").partition("Unavailable")
    assert [word for word in available.split() if word.startswith("cryoplug.")] == [
        "cryoplug.denoise.evaluate",
        DENOISE,
        "cryoplug.denoise.train",
    ]
    assert not unavailable


@pytest.mark.parametrize("name", ["denoise", "train"])
def test_wrong_values_are_refused_before_anything_runs(project: Project, name: str) -> None:
    project.list(project.micrographs(1))
    kind, values, words = {
        "denoise": (DENOISE, {"strength": 3}, "--strength 3"),
        "train": ("cryoplug.denoise.train", {"lr": -1}, "--lr -1"),
    }[name]
    with pytest.raises(ValueError, match=words):
        project.api.run_job({"_rlnJobTypeLabel": kind, "in_mics": project.star, **values})
