"""A cryoSPARC dataset in gives one out: every column kept, the denoised image beside the raw one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

from cryoplug.core.results import BatchResult
from cryoplug.errors import UsageError
from cryoplug.formats.cs import cs_images
from cryoplug.formats.mrc import write_mrc
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec
from cryoplug.workflows.denoise import DenoiseRequest, denoise

EXPOSURES = [
    ("uid", "<u8"),
    ("micrograph_blob/path", "S40"),
    ("micrograph_blob/psize_A", "<f4"),
    ("micrograph_blob/shape", "<u4", (2,)),
    ("ctf/df1_A", "<f4"),
]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "P1"
    (folder / "J3" / "motioncorrected").mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = model_spec("cryo_cnn").build().state_dict()
    weights = {name: np.full(tensor.shape, 0.02, np.float32) for name, tensor in state.items()}
    folder = tmp_path_factory.mktemp("checkpoint") / "run"
    save_checkpoint(folder / "epoch_0001", Checkpoint("cryo_cnn", weights, normalize="zscore"), 0.5)
    return folder


def image(path: str, seed: int = 0) -> None:
    write_mrc(path, np.random.default_rng(seed).normal(9, 1, (48, 56)).astype(np.float32), pixel_size_angstrom=1.25)


def dataset(path: str, descr: list[Any], rows: list[Any]) -> np.ndarray:
    table = np.array(rows, dtype=descr)
    with Path(path).open("wb") as stream:
        np.save(stream, table, allow_pickle=False)
    return table


def run(checkpoint: Path, *inputs: str, output: str = "J9", **fields: Any) -> BatchResult:
    return denoise(DenoiseRequest(inputs, checkpoint, Path(output), device="cpu", threads=1, **fields))


def exposures(count: int = 3) -> np.ndarray:
    names = [f"J3/motioncorrected/m{index}.mrc" for index in range(count)]
    for seed, name in enumerate(names):
        image(name, seed)
    rows = [(10**18 + i, name.encode(), 1.25, (48, 56), 9e3 + i) for i, name in enumerate(names)]
    return dataset("J3/exposures.cs", EXPOSURES, rows)


def test_every_column_is_kept_and_the_denoised_image_is_named(checkpoint: Path) -> None:
    before = exposures()
    result = run(checkpoint, "J3/exposures.cs")
    assert result.outputs == (Path("J9/micrographs_denoised.cs"),)
    after = np.load("J9/micrographs_denoised.cs", allow_pickle=False)
    for name in before.dtype.names:
        np.testing.assert_array_equal(after[name], before[name])
    assert [name.decode() for name in after["micrograph_blob_denoised/path"]] == [
        f"J9/motioncorrected/m{i}.mrc" for i in range(3)
    ]
    for name in after["micrograph_blob_denoised/path"]:
        assert Path(name.decode()).is_file(), "from the project folder"
    assert after["micrograph_blob_denoised/psize_A"].tolist() == [1.25] * 3
    assert after["micrograph_blob_denoised/shape"].tolist() == [[48, 56]] * 3
    assert after["micrograph_blob_denoised/idx"].tolist() == [0, 0, 0]
    assert cs_images(Path("J9/micrographs_denoised.cs")) == cs_images(Path("J3/exposures.cs"))


def test_failed_micrographs_are_left_out(checkpoint: Path) -> None:
    before = exposures()
    Path("J3/motioncorrected/m1.mrc").write_bytes(b"no micrograph")
    assert run(checkpoint, "J3/exposures.cs").exit_code == 3
    after = np.load("J9/micrographs_denoised.cs")
    assert after["uid"].tolist() == before["uid"][[0, 2]].tolist()


def test_particles_keep_their_places_in_one_stack_a_stack(checkpoint: Path) -> None:
    Path("J5/extract").mkdir(parents=True)
    with mrcfile.new("J5/extract/p.mrc") as file:
        file.set_data(np.random.default_rng(0).normal(0, 1, (5, 32, 32)).astype(np.float32))
        file.set_image_stack()
    descr = [("uid", "<u8"), ("blob/path", "S30"), ("blob/idx", "<u4"), ("blob/psize_A", "<f4")]
    dataset("J5/particles.cs", descr, [(7 + i, b">extract/p.mrc", i, 2.5) for i in (4, 0, 2)])
    result = run(checkpoint, "J5/particles.cs")
    assert [item.status for item in result.files] == ["done"]
    after = np.load("J9/particles_denoised.cs")
    assert after["blob_denoised/idx"].tolist() == after["blob/idx"].tolist() == [4, 0, 2]
    (name,) = {path.decode() for path in after["blob_denoised/path"]}
    assert mrcfile.read(name if Path(name).exists() else Path("J5", name)).shape == (5, 32, 32)


def test_a_second_run_writes_it_again_but_never_over_a_foreign_one(checkpoint: Path) -> None:
    exposures()
    run(checkpoint, "J3/exposures.cs")
    first = Path("J9/micrographs_denoised.cs").read_bytes()
    assert [item.status for item in run(checkpoint, "J3/exposures.cs").files] == ["skipped"] * 3
    assert Path("J9/micrographs_denoised.cs").read_bytes() == first
    Path("J9/micrographs_denoised.cs").write_bytes(b"of somebody else")
    with pytest.raises(UsageError, match=r"micrographs_denoised\.cs: exists, and no earlier run"):
        run(checkpoint, "J3/exposures.cs")


def test_several_lists_give_none(checkpoint: Path) -> None:
    exposures()
    image("other.mrc")
    assert run(checkpoint, "J3/exposures.cs", "other.mrc").outputs == ()
