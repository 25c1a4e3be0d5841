"""What inspect says of stacks, movies, lists of images and cryoSPARC datasets."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np

from cryoplug.workflows.inspect.files import inspect_cs, inspect_micrograph, inspect_star


def test_a_stack_is_called_so_and_nothing_is_wrong_with_it(tmp_path: Path) -> None:
    with mrcfile.new(tmp_path / "s.mrcs", np.random.default_rng(0).normal(size=(3, 8, 9)).astype(np.float32)):
        pass
    found = inspect_micrograph(tmp_path / "s.mrcs")
    assert (found.kind, found.summary["images"], found.summary["shape"]) == ("stack or movie", 3, [8, 9])
    assert not [item for item in found.findings if item.severity == "error"]


def test_lists_of_particles_and_movies_are_lists_too(tmp_path: Path) -> None:
    for column in ("rlnImageName", "rlnMicrographMovieName"):
        path = tmp_path / f"{column}.star"
        path.write_text(f"data_\n\nloop_\n_{column} #1\na.mrcs\n")
        found = inspect_star(path)
        assert (found.summary["images_in"], found.summary["micrographs_missing"]) == (column, 1)


def test_two_lists_in_one_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.star"
    path.write_text("data_one\nloop_\n_rlnMicrographName\na.mrc\n\ndata_two\nloop_\n_rlnMicrographName\nb.mrc\n")
    (found,) = inspect_star(path).findings
    assert (found.severity, found.field) == ("error", "tables")
    assert found.message.startswith("data_one and data_two list different micrographs (rlnMicrographName); keep one")


def test_real_datasets(shared_data: Path) -> None:
    by_name = {path.name: inspect_cs(path) for path in sorted((shared_data / "cs").glob("*.cs"))}
    assert {found.kind for found in by_name.values()} == {"cs"}
    assert by_name["empiar_10076_7.cs"].summary["rows"] == 7
    assert [item.severity for item in by_name["J519_passthrough_particles_class_3.cs"].findings] == ["error"]
