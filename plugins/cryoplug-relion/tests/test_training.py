"""Convert and train jobs: where halves come from, what a job keeps, and how it goes on."""

from __future__ import annotations

import json

import numpy as np
import pytest
from cryoplug.formats.mrc import write_mrc
from cryoplug.formats.star import read_star
from cryoplug.models.checkpoint import load_checkpoint
from cryoplug.store.pairs import open_store
from relion_project import OPTICS_30001, Project, make_movie

SUCCESS, FAILURE = "RELION_JOB_EXIT_SUCCESS", "RELION_JOB_EXIT_FAILURE"
SMALL = ("--patch_size", "64", "--stride", "48", "--j", "1")


def train(project: Project, job: str, *arguments: str):
    return project.run("train", "--o", job, *SMALL, "--batch-size", "2", *arguments)


@pytest.fixture
def with_halves(project: Project) -> tuple[Project, str]:
    """Three micrographs with halves beside them, as RELION 5 writes them."""
    names = project.micrographs(1, 2, 3)
    project.halves([1, 2, 3], names)
    return project, project.star(names)


@pytest.mark.slow
def test_train_leaves_checkpoint_curves_and_nodes(with_halves: tuple[Project, str]) -> None:
    project, star = with_halves
    job = project.job()
    done = train(project, job, "--in_mics", star, "--epochs", "2")
    assert done.returncode == 0, done.stderr
    assert project.ends(job) == [SUCCESS]
    record = json.loads((project / job / "model.json").read_text())
    checkpoint = load_checkpoint(project / job)
    assert record["sha256"] == checkpoint.sha256
    assert record["checkpoint"] == str(checkpoint.path.relative_to(project.folder))
    assert checkpoint.details["pairs"] == "halves" and checkpoint.normalize == "zscore"
    nodes = read_star(project / job / "RELION_OUTPUT_NODES.star").block("output_nodes")
    assert nodes.column("rlnPipeLineNodeName") == [f"{job}model.json", f"{job}logfile.pdf"]
    assert done.stdout.count("train: epoch") >= 2 and "\r" not in done.stdout

    again = train(project, job, "--in_mics", star, "--epochs", "2")
    assert project.ends(job) == [SUCCESS]
    assert "nothing to do" in again.stdout

    more = train(project, job, "--in_mics", star, "--epochs", "3")
    assert project.ends(job) == [SUCCESS], more.stderr
    assert "train: epoch 3" in more.stdout and "train: epoch 1:" not in more.stdout

    other = train(project, job, "--in_mics", star, "--epochs", "3", "--lr", "0.5")
    assert project.ends(job) == [FAILURE]
    assert "lr was 0.001, is 0.5" in other.stderr


@pytest.mark.slow
def test_train_takes_the_store_of_a_convert_job(with_halves: tuple[Project, str]) -> None:
    project, star = with_halves
    convert, job = project.job("External/job004/"), project.job("External/job005/")
    assert project.run("convert", "--o", convert, "--in_mics", star, *SMALL).returncode == 0
    done = project.run("train", "--o", job, "--data", convert, "--epochs", "1", "--batch-size", "2", "--j", "1")
    assert done.returncode == 0, done.stderr
    assert project.ends(job) == [SUCCESS]
    assert not (project / job / "store").exists()


def test_halves_named_by_the_star_file_win_over_files_beside_it(project: Project) -> None:
    names = project.micrographs(1, 2)
    project.halves([1, 2], names)
    even, odd = project.halves([1, 2], names, sides=("_first", "_second"))
    star = project.star(names, columns={"rlnMicrographNameEven": even, "rlnMicrographNameOdd": odd})
    for name in names:  # beside the micrograph lies something that cannot be used
        (project / name.replace(".mrc", "_EVN.mrc")).write_bytes(b"no micrograph")
    job = project.job()
    done = project.run("convert", "--o", job, "--in_mics", star, *SMALL)
    assert done.returncode == 0, done.stderr
    assert project.ends(job) == [SUCCESS]


def test_each_half_is_normalised_by_itself_and_the_job_says_so(with_halves: tuple[Project, str]) -> None:
    project, star = with_halves
    job = project.job()
    done = project.run("convert", "--o", job, "--in_mics", star, *SMALL)
    assert "each is normalised by itself" in done.stdout
    with open_store(project / job / "store") as store:
        entry = store.manifest.micrographs[0]
    assert entry.clean_normalization is not None and entry.clean_normalization != entry.normalization


def test_without_halves_it_fails_and_says_what_is_missing(project: Project) -> None:
    star, job = project.star(project.micrographs(1, 2)), project.job()
    done = project.run("convert", "--o", job, "--in_mics", star, *SMALL)
    assert project.ends(job) == [FAILURE]
    assert "mic_001_EVN.mrc" in done.stderr
    assert project.run("convert", "--o", job, "--in_mics", star, *SMALL, "--pairs", "noise").returncode == 0
    assert project.ends(job) == [SUCCESS]


@pytest.mark.slow
def test_micrographs_alone_teach_too(project: Project) -> None:
    names = project.micrographs(1, 2, 3)
    for number, name in enumerate(names):
        counts = np.random.default_rng(number).poisson(40, (320, 320)).astype(np.float32)
        write_mrc(project / name, counts, pixel_size_angstrom=2.5)
    star, job = project.star(names), project.job()
    short = ("--epochs", "1", "--crops-per-epoch", "8", "--crop-size", "64")
    done = train(project, job, "--in_mics", star, "--pairs", "single", "--store", "whole", *short)
    assert project.ends(job) == [SUCCESS], done.stderr
    assert "3 single exposures; training adds noise like theirs" in done.stdout + done.stderr
    assert load_checkpoint(project / job).details["pairs"] == "single"
    assert (project / job / "logfile.pdf").stat().st_size > 1000


def test_a_job_keeps_its_list_when_the_input_grows(with_halves: tuple[Project, str]) -> None:
    project, star = with_halves
    job = project.job()
    assert project.run("convert", "--o", job, "--in_mics", star, *SMALL).returncode == 0
    before = (project / job / "store/dataset.json").read_bytes()
    names = project.micrographs(1, 2, 3, 4)
    project.halves([4], names[3:])
    project.star(names)
    again = project.run("convert", "--o", job, "--in_mics", star, *SMALL)
    assert project.ends(job) == [SUCCESS], again.stderr
    assert "lists 4 now; the pairs of this job are of the 3" in again.stdout
    assert (project / job / "store/dataset.json").read_bytes() == before


def test_a_list_that_was_wrong_can_be_corrected(with_halves: tuple[Project, str]) -> None:
    project, star = with_halves
    job = project.job()
    good = (project / star).read_text()
    (project / star).write_text(good.replace("mic_003", "mic_009"))
    assert project.run("convert", "--o", job, "--in_mics", star, *SMALL).returncode != 0
    (project / star).write_text(good)
    done = project.run("convert", "--o", job, "--in_mics", star, *SMALL)
    assert project.ends(job) == [SUCCESS], done.stderr


def test_two_inputs_are_one_too_many(with_halves: tuple[Project, str]) -> None:
    project, star = with_halves
    job = project.job()
    done = train(project, job, "--in_mics", star, "--in_movies", star)
    assert "give one" in done.stderr
    assert project.ends(job) == [FAILURE]


def movie_list(project: Project, numbers: list[int]) -> str:
    for number in numbers:
        make_movie(project / f"Movies/mov_{number}.mrcs", seed=number)
    table = "data_movies\n\nloop_\n_rlnMicrographMovieName #1\n_rlnOpticsGroup #2\n"
    rows = "".join(f"Movies/mov_{number}.mrcs 1\n" for number in numbers)
    optics = OPTICS_30001.replace("_rlnMicrographPixelSize #3\n", "").replace(" 2.5 2.5 ", " 2.5 ")
    (project / "Import").mkdir()
    (project / "Import/movies.star").write_text(f"{optics}\n# version 30001\n\n{table}{rows}")
    return "Import/movies.star"


def test_movies_become_halves(project: Project) -> None:
    star, job = movie_list(project, [1, 2]), project.job()
    done = project.run("convert", "--o", job, "--in_movies", star, *SMALL)
    assert done.returncode == 0, done.stderr
    assert project.ends(job) == [SUCCESS]


def test_micrographs_of_relions_motion_correction_lead_to_their_movies(relion_project: Project) -> None:
    project = relion_project
    star, job = movie_list(project, [1, 2]), project.job()
    own = ["--use_own", "--j", "1", "--bin_factor", "1", "--bfactor", "150", "--patch_x", "1", "--patch_y", "1"]
    project.relion("relion_run_motioncorr", "--i", star, "--o", "MotionCorr/job002/", *own)
    done = project.run("convert", "--o", job, "--in_mics", "MotionCorr/job002/corrected_micrographs.star", *SMALL)
    assert done.returncode == 0, done.stderr
    assert project.ends(job) == [SUCCESS]
    with open_store(project / job / "store") as store:
        assert store.manifest.pairs == "halves" and store.count("train") > 0
    assert "mov_1.mrcs: done" in done.stdout
