"""Which RELION wrote a job, from its own files."""

from __future__ import annotations

from pathlib import Path

import pytest
from relion_project import HEADS, shared_folder

from cryoplug_relion.release import release_of_job


@pytest.fixture(autouse=True)
def in_an_empty_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("release", sorted(HEADS))
def test_release_of_the_job_file(tmp_path: Path, release: str) -> None:
    (tmp_path / "job.star").write_text(HEADS[release])
    assert release_of_job(tmp_path) == release


def test_without_a_job_file_the_project_tells(tmp_path: Path) -> None:
    table = "data_pipeline_processes\n\nloop_\n_rlnPipeLineProcessName #1\n_rlnPipeLineProcessTypeLabel #2\n"
    (tmp_path / "default_pipeline.star").write_text(f"# version 30001\n\n{table}Import/job001/ relion.import\n")
    assert release_of_job(tmp_path / "External") == "4"


def test_a_damaged_job_file_costs_no_job(tmp_path: Path) -> None:
    (tmp_path / "job.star").write_text("loop_ loop_ 'never ended\n")
    assert release_of_job(tmp_path) == "5"


@pytest.mark.parametrize(
    ("name", "release"),
    [("relion31_spa/relion5_job002_job.star", "4"), ("relion5_spa/job.star", "5")],
)
def test_release_of_job_files_of_public_projects(tmp_path: Path, name: str, release: str) -> None:
    (tmp_path / "job.star").write_bytes((shared_folder("star") / name).read_bytes())
    assert release_of_job(tmp_path) == release


@pytest.mark.parametrize(
    ("name", "release"),
    [("relion31_spa/default_pipeline.star", "4"), ("relion5_spa/default_pipeline.star", "5")],
)
def test_release_of_public_projects(tmp_path: Path, name: str, release: str) -> None:
    (tmp_path / "default_pipeline.star").write_bytes((shared_folder("star") / name).read_bytes())
    assert release_of_job(tmp_path / "External") == release
