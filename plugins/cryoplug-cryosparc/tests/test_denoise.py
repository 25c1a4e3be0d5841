"""Exposures in, an External job with denoised micrographs out; and the same without a server."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cryoplug.cli.denoise import denoise as core_denoise
from cryoplug.formats.registry import open_micrograph
from cryosparc.dataset import Dataset
from cryosparc_project import COMMAND, PIXEL_SIZE, SIDE, CryosparcProject, exposures
from PIL import Image

from cryoplug_cryosparc.commands import denoise

SLOT = "micrograph_blob_denoised"
OTHER = COMMAND[:-1]


def pixels(path: Path) -> np.ndarray:
    with open_micrograph(path) as source:
        return source.read_rows(0, source.shape[0])


def test_every_exposure_gets_a_denoised_micrograph(project: CryosparcProject) -> None:
    before = [(project.folder / path).read_bytes() for path in project.raw]
    outcome = project.run()
    assert outcome.code == 0, outcome.stderr
    (job,) = project.server.external
    assert (job.uid, job.history) == ("J2", ["running", "completed"])
    assert job.inputs["exposures"]["source"] == ("J1", "micrographs")
    output = job.outputs["micrographs"]
    assert (output.type, output.passthrough) == ("exposure", "exposures")
    rows = output.dataset
    source = project.server.jobs["J1"].outputs["micrographs"].dataset
    assert rows["uid"].tolist() == source["uid"].tolist()
    assert list(rows[f"{SLOT}/path"]) == [f"J2/denoised/{path.removeprefix('J1/')}" for path in project.raw]
    assert rows[f"{SLOT}/shape"].tolist() == [[SIDE, SIDE]] * 4
    np.testing.assert_allclose(rows[f"{SLOT}/psize_A"], PIXEL_SIZE, rtol=1e-6)
    assert rows[f"{SLOT}/import_sig"].tolist() == source["micrograph_blob/import_sig"].tolist()
    for raw, path in zip(project.raw, rows[f"{SLOT}/path"], strict=True):
        assert pixels(project.folder / path).std() < 0.7 * pixels(project.folder / raw).std()
    assert [(project.folder / path).read_bytes() for path in project.raw] == before
    assert "P1 J2: completed; its output micrographs has the slot micrograph_blob_denoised" in outcome.stdout


def test_the_job_says_what_happens_and_shows_pictures(project: CryosparcProject) -> None:
    project.run("--title", "night 3")
    (job,) = project.server.external
    assert job.title == "night 3" and "J1.micrographs" in job.description
    assert "text: 4 of 4 micrographs are denoised" in job.text() and "general model" in job.text()
    assert [text.split(":")[0] for text, _ in job.images] == [Path(path).name for path in project.raw]
    if project.server.version.startswith("v5"):
        assert job.tile.startswith(b"\x89PNG") and job.output_images == {"micrographs": job.tile}


def test_the_pixels_are_those_of_cryoplug_denoise_without_a_server(project: CryosparcProject, tmp_path: Path) -> None:
    project.run()
    (job,) = project.server.external
    listed = project.folder / "J1" / "exposures.cs"
    project.server.jobs["J1"].outputs["micrographs"].dataset.save(listed)
    out = project.folder / "offline"
    offline = project.run(str(listed), "-o", str(out), command=("denoise",))
    assert offline.code == 0, offline.stderr
    rows = Dataset.load(out / "micrographs_denoised.cs")
    assert rows["uid"].tolist() == job.outputs["micrographs"].dataset["uid"].tolist()
    assert "ctf/df1_A" in rows and list(rows["micrograph_blob/path"]) == project.raw
    for here, there in zip(rows[f"{SLOT}/path"], job.outputs["micrographs"].dataset[f"{SLOT}/path"], strict=True):
        assert here.startswith("offline/")
        np.testing.assert_array_equal(pixels(project.folder / here), pixels(project.folder / there))


def test_thumbnails_show_the_denoised_micrograph_with_its_first_row_below(project: CryosparcProject) -> None:
    project.run()
    rows = project.server.external[0].outputs["micrographs"].dataset
    for size, side in (("1x", SIDE // 2), ("2x", SIDE)):
        slot = f"micrograph_thumbnail_blob_{size}"
        assert list(rows[f"{slot}/micrograph_path"]) == list(rows[f"{SLOT}/path"])
        assert rows[f"{slot}/binfactor"].tolist() == [SIDE // side] * 4
        path = str(rows[f"{slot}/path"][0])
        assert path == f"J2/thumbnails/{project.raw[0].removeprefix('J1/').removesuffix('.mrc')}_thumb_@{size}.png"
        with Image.open(project.folder / path) as image:
            shown = np.asarray(image, float)
        assert shown.shape == (side, side) == tuple(rows[f"{slot}/shape"][0])
        binned = pixels(project.folder / str(rows[f"{SLOT}/path"][0])).reshape(side, SIDE // side, side, SIDE // side)
        expected = binned.mean(axis=(1, 3))[::-1]
        assert np.corrcoef(shown.ravel(), expected.ravel())[0, 1] > 0.99
        assert np.corrcoef(shown.ravel(), expected[::-1].ravel())[0, 1] < 0.9


def test_without_thumbnails_those_of_the_exposures_pass_through(project: CryosparcProject) -> None:
    assert project.run("--no-thumbnails", "--no-previews").code == 0
    (job,) = project.server.external
    assert set(job.outputs["micrographs"].slots) == {SLOT}
    assert not (project.folder / "J2" / "thumbnails").exists() and len(job.images) == 4


def test_a_broken_micrograph_is_named_and_left_out(project: CryosparcProject) -> None:
    (project.folder / project.raw[1]).write_bytes(b"no image")
    outcome = project.run()
    (job,) = project.server.external
    assert (outcome.code, job.status) == (3, "completed")
    assert "error: " in job.text() and Path(project.raw[1]).name in job.text()
    assert len(job.outputs["micrographs"].dataset) == 3
    assert all(Path(project.raw[1]).name not in path for path in job.outputs["micrographs"].dataset[f"{SLOT}/path"])


def test_a_job_without_any_usable_micrograph_fails(project: CryosparcProject) -> None:
    for path in project.raw:
        (project.folder / path).write_bytes(b"no image")
    outcome = project.run()
    (job,) = project.server.external
    assert (outcome.code, job.status) == (4, "failed")
    assert "no micrograph could be denoised" in outcome.error and "no micrograph could be denoised" in job.text()


def test_a_coarser_grid_is_told_to_cryosparc(project: CryosparcProject) -> None:
    assert project.run("--output-angpix", str(2 * PIXEL_SIZE)).code == 0
    rows = project.server.external[0].outputs["micrographs"].dataset
    assert rows[f"{SLOT}/shape"].tolist() == [[SIDE // 2, SIDE // 2]] * 4
    np.testing.assert_allclose(rows[f"{SLOT}/psize_A"], 2 * PIXEL_SIZE, rtol=1e-6)


def test_records_are_json_lines(project: CryosparcProject) -> None:
    records = [json.loads(line) for line in project.run("--json").stdout.splitlines()]
    assert [item["status"] for item in records if "input" in item] == ["done"] * 4
    said = {"project": "P1", "job": "J2", "output": "micrographs", "status": "completed"}
    assert said.items() <= records[-1].items()


def test_the_options_are_those_of_denoise_and_no_secret_is_one() -> None:
    ours = {item.name: item for item in denoise.params}
    own = {"project", "workspace", "exposures", "url", "title", "thumbnails"}
    theirs = {item.name: item for item in core_denoise.params}
    absent = {"inputs", "output", "star", "voltage_kv", "spherical_aberration_mm", "halves", "even", "odd"}
    absent |= {"shard", "watch", "poll", "settle", "idle_exit", "dry_run"}
    assert set(ours) == own | (set(theirs) - absent)
    for name in set(ours) - own:
        assert {**vars(ours[name]), "envvar": None} == {**vars(theirs[name]), "envvar": None}
    assert not any(
        word in flag for item in denoise.params for flag in item.opts for word in ("password", "token", "licen")
    )


def test_one_of_several_outputs_is_named(project: CryosparcProject) -> None:
    outputs = project.server.jobs["J1"].outputs
    outputs["rejected"] = exposures(project.raw[:1])
    assert "it has several outputs of exposures (micrographs, rejected)" in project.run().error
    assert project.run(command=(*OTHER, "J1.rejected")).code == 0
    (job,) = project.server.external
    assert job.inputs["exposures"]["source"] == ("J1", "rejected") and len(job.outputs["micrographs"].dataset) == 1


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("P1", "W1", "J99"), 2, "job J99: cryoSPARC at http://127.0.0.1"),
        (("P9", "W1", "J1"), 2, "project P9: cryoSPARC at http://127.0.0.1"),
        (("P1", "W9", "J1"), 2, "making an External job in P1 W9: cryoSPARC at http://127.0.0.1"),
        (("P1", "W1", "12"), 2, "--exposures '12' (allowed: a job as in J12, or one of its outputs"),
        (
            ("P1", "W1", "J1.particles"),
            2,
            "--exposures J1.particles: not there (its outputs of exposures: micrographs)",
        ),
        (("P1", "W1", "J5"), 4, "J5: its exposures have no micrograph_blob (ctf)"),
        (("P1", "W1", "J6"), 4, "J6.micrographs: lists no exposures (the job is completed)"),
    ],
)
def test_what_cannot_be_denoised_is_said_before_a_job_is_made(
    project: CryosparcProject, words: tuple[str, str, str], code: int, says: str
) -> None:
    project.server.add_source("J5", {"micrographs": exposures(project.raw, with_micrographs=False)})
    project.server.add_source("J6", {"micrographs": exposures([])})
    flags = ("--project", words[0], "--workspace", words[1], "--exposures", words[2])
    outcome = project.run(command=("cryosparc", "denoise", *flags))
    assert (outcome.code, project.server.external) == (code, [])
    assert says in outcome.error


def test_a_job_that_has_no_results_yet_is_said(project: CryosparcProject) -> None:
    project.server.jobs["J1"].outputs["micrographs"].dataset = None
    outcome = project.run()
    assert (outcome.code, project.server.external) == (1, [])
    assert "loading J1.micrographs: " in outcome.error and "refused" in outcome.error


def test_a_project_that_is_not_on_this_machine_is_said(project: CryosparcProject) -> None:
    project.server.folder = Path("/nowhere/CS-elsewhere")
    outcome = project.run()
    assert outcome.code == 5
    assert "/nowhere/CS-elsewhere: the folder of project P1 is not on this machine" in outcome.error
