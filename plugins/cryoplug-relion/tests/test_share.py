"""The files in share/ do what they promise, each of them run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time

import pytest
from as_relion import external_command, job_options
from cryoplug.formats.star import read_star
from relion_project import Project, make_micrograph

from cryoplug_relion.commands import SHARE
from cryoplug_relion.release import release_of_job

RELEASES = {"3.1": "relion3.1", "4": "relion4", "5": "relion5"}
SCHEMES = {"4": "relion4/Schemes/cryoplug", "5": "relion5/Schemes/cryoplug"}


def test_the_command_tells_where_they_are(project: Project) -> None:
    assert project.run("share").stdout == f"{SHARE}\n"


@pytest.mark.parametrize("kind", ["denoise", "train", "convert"])
def test_job_files_of_all_releases_are_the_same_but_for_their_head(kind: str) -> None:
    tables = [job_options(SHARE / folder / kind / "job.star") for folder in RELEASES.values()]
    assert tables[0] == tables[1] == tables[2]
    for release, folder in RELEASES.items():
        assert release_of_job(SHARE / folder / kind) == release


@pytest.mark.slow
@pytest.mark.parametrize("release", sorted(RELEASES))
def test_ready_made_denoise_job_runs(project: Project, release: str) -> None:
    options = job_options(SHARE / RELEASES[release] / "denoise" / "job.star")
    options |= {"in_mic": project.star(project.micrographs(1)), "param1_value": str(project.checkpoint)}
    job = project.job(release=release)
    assert options["param1_label"] == "checkpoint"
    done = subprocess.run(
        ["sh", "-c", external_command(options, job)], cwd=project.folder, env=project.environment, check=False
    )
    assert done.returncode == 0
    assert project.ends(job) == ["RELION_JOB_EXIT_SUCCESS"]


@pytest.mark.slow
def test_ready_made_convert_and_train_jobs_run_and_denoise_takes_what_they_made(project: Project) -> None:
    names = project.micrographs(1, 2, 3)
    project.halves([1, 2, 3], names)
    star = project.star(names)
    small = " --patch_size 64 --stride 48"
    network = " --batch-size 2 --model-option depth=1 --model-option width=4"
    for number, (kind, more) in enumerate({"convert": small, "train": small + network}.items(), start=5):
        options = job_options(SHARE / "relion5" / kind / "job.star")
        options["in_mic"] = star
        # In patches, at the pixels of these small micrographs, and a small network from nothing.
        ready = {"angpix": ("", ""), "store": ("", ""), "init": ("model", "unet"), "minutes": ("epochs", "2")}
        for label in [name for name, value in options.items() if name.endswith("_label") and value in ready]:
            options[label], options[label.replace("_label", "_value")] = ready[options[label]]
        options["other_args"] += more
        job = project.job(f"External/job{number:03d}/", release="5")
        done = subprocess.run(
            ["sh", "-c", external_command(options, job)],
            cwd=project.folder,
            env=project.environment,
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert project.ends(job) == ["RELION_JOB_EXIT_SUCCESS"]
        assert "each is normalised by itself" in done.stdout
    nodes = read_star(project / "External/job006/RELION_OUTPUT_NODES.star").block("output_nodes")
    assert nodes.column("rlnPipeLineNodeTypeLabel") == ["ParamsData.json.cryoplug.model", "LogFile.pdf.relion"]
    denoised = project.job("External/job007/", release="5")
    assert (
        project.run("denoise", "--o", denoised, "--in_mics", star, "--checkpoint", "External/job006/").returncode == 0
    )


def test_queue_script_runs_when_relion_submits_it(relion_project: Project) -> None:
    project = relion_project
    project.micrographs(1, folder="Micrographs")
    shutil.copy(SHARE / "qsub_slurm.sh", project / "qsub_slurm.sh")
    import_job(project)
    options = {
        **{"in_mic": "Import/job001/micrographs.star", "param1_value": str(project.checkpoint), "nr_threads": "1"},
        # What stands for sbatch runs the script at once.
        **{"do_queue": "Yes", "qsub": "bash", "qsubscript": "qsub_slurm.sh", "queuename": "gpu"},
    }
    project.relion(*add_job("relion3.1/denoise", options))
    project.relion("relion_pipeliner", "--schedule", "two", "--RunJobs", "External/job002/", "--sec_wait_after", "0")
    script = (project / "External/job002/run_submit.script").read_text()
    assert "cryoplug relion denoise" in script and not re.search(r"XXX\w+XXX", script)
    assert project.ends("External/job002") == ["RELION_JOB_EXIT_SUCCESS"]


@pytest.mark.parametrize("kind", ["denoise", "train", "convert"])
def test_relion_takes_the_job_files(relion_project: Project, kind: str) -> None:
    relion_project.relion(*add_job(f"relion3.1/{kind}", {"in_mic": "Import/job001/micrographs.star"}))
    (process,) = relion_project.pipeline("processes")
    assert (process["rlnPipeLineProcessName"], process["rlnPipeLineProcessType"]) == ("External/job001/", "99")
    taken = job_options(relion_project / "External/job001/job.star")
    assert taken == job_options(SHARE / "relion3.1" / kind / "job.star") | {"in_mic": "Import/job001/micrographs.star"}


def add_job(kind: str, options: dict[str, str]) -> list[str]:
    """Give the command that adds a ready-made job to a project."""
    text = ";".join(f"{name} == {value}" for name, value in options.items())
    return ["relion_pipeliner", "--addJobFromStar", str(SHARE / kind / "job.star"), "--addJobOptions", text]


def import_job(project: Project) -> None:
    """Import everything in the folder Micrographs."""
    text = "do_raw == Yes;is_multiframe == No;fn_in_raw == Micrographs/*.mrc;angpix == 2.5"
    project.relion("relion_pipeliner", "--addJob", "Import", "--addJobOptions", text)
    project.relion("relion_pipeliner", "--schedule", "one", "--RunJobs", "Import/job001/", "--sec_wait_after", "0")


@pytest.mark.slow
def test_schedule_of_relion_denoises_micrographs_as_they_come(relion_project: Project) -> None:
    project = relion_project
    project.micrographs(1, folder="Micrographs")
    shutil.copytree(SHARE / "relion3.1" / "Schedules", project / "Schedules")
    values = {"checkpoint": str(project.checkpoint), "angpix": "2.5", "max_loops": "2", "wait_sec": "1"}
    for name, value in values.items():
        project.relion("relion_scheduler", "--schedule", "cryoplug", "--set_var", name, "--value", value)
    running = subprocess.Popen(
        ["relion_scheduler", "--schedule", "cryoplug", "--run"],
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.DEVNULL,
    )
    first = project / "External/job002/RELION_JOB_EXIT_SUCCESS"
    end = time.monotonic() + 120
    while not first.exists():
        assert time.monotonic() < end and running.poll() is None
        time.sleep(0.1)
    make_micrograph(project / "Micrographs/new_later.mrc.partial", seed=2)
    os.replace(project / "Micrographs/new_later.mrc.partial", project / "Micrographs/new_later.mrc")
    assert running.wait(timeout=180) == 0
    assert {row["rlnPipeLineProcessStatus"] for row in project.pipeline("processes")} == {"2"}
    listed = read_star(project / "External/job002/micrographs_denoised.star").block("micrographs")
    assert len(listed.rows) == 2
    assert "1 done, 1 finished before" in (project / "External/job002/run.out").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("release", sorted(SCHEMES))
def test_scheme_leads_round_its_jobs_and_its_denoise_job_runs(project: Project, release: str) -> None:
    # The schemer of RELION 4 and 5 is in no package; what can be wrong about the files is looked at here.
    folder = SHARE / SCHEMES[release]
    scheme = read_star(folder / "scheme.star")
    assert scheme.block("scheme_general").rows[0] == ["Schemes/cryoplug/", "WAIT"]
    jobs = scheme.block("scheme_jobs").column("rlnSchemeJobName")
    operators = scheme.block("scheme_operators").column("rlnSchemeOperatorName")
    edges = scheme.block("scheme_edges")
    after = dict(
        zip(edges.column("rlnSchemeEdgeInputNodeName"), edges.column("rlnSchemeEdgeOutputNodeName"), strict=True)
    )
    way, node = [], "WAIT"
    while node not in way:
        way.append(node)
        node = after[node]
    assert node == "WAIT" and sorted(way) == sorted([*jobs, *operators])
    variables = {row[0]: row[1] for name in ("floats", "strings") for row in scheme.block(f"scheme_{name}").rows}
    options = {job: job_options(folder / job / "job.star") for job in jobs}
    used = {value[2:] for table in options.values() for value in table.values() if value.startswith("$$")}
    assert used | {"wait_sec", "maxtime_hr"} == set(variables)
    assert options["denoise"]["in_mic"] == "Schemes/cryoplug/import/micrographs.star"
    options["denoise"] |= {"in_mic": project.star(project.micrographs(1)), "param1_value": str(project.checkpoint)}
    job = project.job(release=release)
    command = external_command(options["denoise"], job)
    subprocess.run(["sh", "-c", command], cwd=project.folder, env=project.environment, check=True)
    assert project.ends(job) == ["RELION_JOB_EXIT_SUCCESS"]
