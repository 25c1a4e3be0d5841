"""After a death without a word, and when there is nothing left to do."""

from __future__ import annotations

import json

import pytest
from cryosparc_project import CryosparcProject, exposures
from fake_cryosparc import Refusal


def test_a_live_run_is_left_alone_and_after_kill_9_the_next_run_goes_on_in_its_job(project: CryosparcProject) -> None:
    held = project.server.hold("save")
    with project.start() as process:
        held.wait_until_reached()
        second = project.run()
        process.kill()
    assert second.code == 8 and "in use by process" in second.error
    project.server.release_all()
    (job,) = project.server.external
    assert job.status == "running"
    sorted((project.folder / "J2" / "denoised").rglob("*.mrc"))[0].unlink()
    outcome = project.run()
    assert outcome.code == 0, outcome.stderr
    assert "1 done, 3 skipped" in outcome.stdout
    assert "is running in cryoSPARC, but its run has ended" in outcome.stderr
    assert "going on in J2 with what is finished" in outcome.stderr
    assert project.server.external == [job] and job.history == ["running", "completed"]
    assert "cryoplug goes on here; the run that began " in job.text()
    assert len(job.outputs["micrographs"].dataset) == 4
    assert not list(project.folder.glob(".cryoplug_*"))


def test_after_kill_9_before_the_job_ran_the_next_run_starts_it(project: CryosparcProject) -> None:
    held = project.server.hold("start")
    with project.start() as process:
        held.wait_until_reached()
        process.kill()
    project.server.release_all()
    (job,) = project.server.external
    assert job.status == "building"
    project.server.calls.clear()
    assert project.run().code == 0
    assert job.history == ["running", "completed"] and project.server.external == [job]
    assert "add_output" not in project.server.calls and "add_input" not in project.server.calls


@pytest.mark.parametrize("status", ["running", "failed"])
def test_a_death_between_saving_and_completing_needs_nothing_but_completing(
    project: CryosparcProject, status: str
) -> None:
    project.run()
    (job,) = project.server.external
    job.become(status)
    project.server.calls.clear()
    outcome = project.run()
    assert outcome.code == 0
    assert f"the output of J2 was saved, but it is {status} in cryoSPARC; marking it as completed" in outcome.stderr
    assert project.server.external == [job] and job.status == "completed"
    assert "save" not in project.server.calls


def test_what_is_done_is_not_done_again(project: CryosparcProject) -> None:
    project.run()
    again = project.run("--json")
    assert (again.code, len(project.server.external)) == (0, 1)
    assert "J2 has done this already" in again.stderr and json.loads(again.stdout)["job"] == "J2"
    assert project.run("--overwrite").code == 0
    assert [job.uid for job in project.server.external] == ["J2", "J3"]


def test_a_login_that_ends_while_earlier_jobs_are_looked_up_makes_no_new_job(project: CryosparcProject) -> None:
    project.server.refuse("save", 500)
    assert project.run().code == 1
    asked = []

    def end_at_the_earlier_job() -> None:
        asked.append(1)
        if len(asked) > 2:  # the first two are for the job with the exposures
            raise Refusal(401, "expired")

    project.server.before("job", end_at_the_earlier_job)
    outcome = project.run()
    assert outcome.code == 2 and "job J2: " in outcome.error and "does not accept the login" in outcome.error
    assert len(project.server.external) == 1


def test_other_options_and_a_grown_set_get_a_new_job(project: CryosparcProject) -> None:
    outputs = project.server.jobs["J1"].outputs
    outputs["micrographs"] = exposures(project.raw[:2])
    assert project.run().code == 0
    assert project.run("--strength", "0.5").code == 0
    outputs["micrographs"] = exposures(project.raw)
    assert project.run().code == 0
    counts = [len(job.outputs["micrographs"].dataset) for job in project.server.external]
    assert counts == [2, 2, 4]


def test_a_set_that_grew_while_the_run_was_stopped_is_denoised_whole(project: CryosparcProject) -> None:
    outputs = project.server.jobs["J1"].outputs
    outputs["micrographs"] = exposures(project.raw[:2])
    project.server.refuse("save", 500)
    assert project.run().code == 1
    project.server.release_all()
    outputs["micrographs"] = exposures(project.raw)
    outcome = project.run()
    assert outcome.code == 0 and "2 done, 2 skipped" in outcome.stdout
    assert len(project.server.external[-1].outputs["micrographs"].dataset) == 4
