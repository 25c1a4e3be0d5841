"""`denoise --highpass --lowpass --output-angpix`: on all roads, with the right pixel size in header and STAR file."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

from cryoplug.core import fourier_crop
from cryoplug.core.fourier_crop import resample_open_axis
from cryoplug.core.fourier_filter import filtered_image
from cryoplug.core.results import BatchResult
from cryoplug.errors import UsageError
from cryoplug.formats.mrc import write_mrc
from cryoplug.formats.mrc_header import MrcHeader
from cryoplug.formats.registry import open_micrograph
from cryoplug.formats.star import read_star
from cryoplug.inference.delivery import Delivery
from cryoplug.inference.denoiser import Denoiser
from cryoplug.inference.pipeline import DenoiseJob, run_pipeline
from cryoplug.inference.settings import ApplySettings
from cryoplug.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec
from cryoplug.workflows.denoise import DenoiseRequest, denoise
from cryoplug.workflows.evaluate.request import EvaluateRequest

resample_image = functools.partial(fourier_crop.resample_image, resample=resample_open_axis)

SHAPE = (120, 180)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    module = model_spec("residual_cnn").build(seed=1)
    weights = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    weights["conv12.weight"][:], weights["conv12.bias"][:] = 0, 0  # it changes nothing: what is done around it shows
    save_checkpoint(tmp_path / "run" / "epoch_0001", Checkpoint("residual_cnn", weights, normalize="zscore"), 0.5)
    return tmp_path


def pixels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(1000, 30, SHAPE).astype(np.float32)


def go(*inputs: str, **named: Any) -> BatchResult:
    return denoise(DenoiseRequest(inputs, Path("run"), Path("out"), device="cpu", threads=1, overwrite=True, **named))


def test_a_filter_keeps_what_lies_between_and_the_mean() -> None:
    write_mrc(Path("m.mrc"), pixels(), pixel_size_angstrom=1.5)
    batch = go("m.mrc", highpass=60.0, lowpass=8.0)
    wanted = filtered_image(pixels(), pixel_size_angstrom=1.5, highpass=60.0, lowpass_angstrom=8.0)
    with mrcfile.open("out/m.mrc") as mrc:
        assert np.abs(mrc.data - wanted).max() < 1e-2
        assert float(mrc.data.mean(dtype=np.float64)) == pytest.approx(1000, abs=0.5)
        assert str(mrc.get_labels()[-1]).endswith(" hp60A lp8A")
    assert batch.details["highpass"] == 60.0


def test_a_coarser_grid_has_its_pixel_size_in_the_header() -> None:
    write_mrc(Path("m.mrc"), pixels(), pixel_size_angstrom=1.5)
    (result,) = go("m.mrc", output_angpix=4.0).files
    assert result.shape == (45, 68)  # type: ignore[attr-defined]
    with mrcfile.open("out/m.mrc") as mrc:
        assert np.abs(mrc.data - resample_image(pixels(), (45, 68))).max() < 1e-2
        assert float(mrc.voxel_size.x) == pytest.approx(1.5 * np.sqrt(120 * 180 / (45 * 68)), rel=1e-5)
        assert (int(mrc.header.mx), int(mrc.header.my)) == (68, 45)
        assert mrcfile.validate("out/m.mrc")


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    "named",
    [
        {"highpass": 60.0},
        {"lowpass": 9.0, "output_angpix": 3.1},
        {"output_angpix": 3.0, "angpix": 2.0},
        {"highpass": 90.0, "output_angpix": 2.9, "strength": 0.6, "merge_highres": 8.0, "angpix": 3.0},
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_road_gives_what_the_python_api_gives(
    here: Path, named: dict[str, float], whole: bool, dtype: str
) -> None:
    weights = {name: tensor.numpy() for name, tensor in model_spec("cryo_cnn").build(seed=1).state_dict().items()}
    save_checkpoint(here / "random" / "epoch_0001", Checkpoint("cryo_cnn", weights, normalize="zscore"), 0.5)
    write_mrc(Path("m.mrc"), pixels(), pixel_size_angstrom=1.5)
    denoiser = Denoiser(load_checkpoint(here / "random"), ApplySettings(device="cpu", threads=1, **named))  # type: ignore[arg-type]
    results = []
    run_pipeline(
        [DenoiseJob(Path("m.mrc"), Path("out.mrc"))],
        denoiser,
        Delivery(lambda job, result: results.append(result), "test", dtype),
        whole=whole,
    )
    wanted = denoiser.denoise(pixels(), pixel_size_angstrom=1.5)
    made = mrcfile.read("out.mrc").astype(np.float32)
    assert results[0].status == "done" and results[0].shape == wanted.shape == made.shape
    assert np.abs(made - wanted).max() < (0.6 if dtype == "float16" else 5e-3)


def test_halves_and_stacks_go_the_same_way() -> None:
    rng = np.random.default_rng(1)
    signal = 20 * np.add.outer(np.sin(np.arange(120) / 9), np.cos(np.arange(180) / 11))
    even, odd = (signal + rng.normal(500, 10, SHAPE) for _ in range(2))
    write_mrc(Path("m_EVN.mrc"), even.astype(np.float32), pixel_size_angstrom=1.5)
    write_mrc(Path("m_ODD.mrc"), odd.astype(np.float32), pixel_size_angstrom=1.5)
    write_mrc(Path("m.mrc"), (even + odd).astype(np.float32), pixel_size_angstrom=1.5)
    (result,) = go("m.mrc", halves=True, output_angpix=3.0, highpass=200.0).files
    assert result.status == "done", result.message
    with mrcfile.open("out/m.mrc") as mrc:
        assert mrc.data.shape == (60, 90) and float(mrc.voxel_size.x) == pytest.approx(3.0)
    with mrcfile.new("s.mrcs") as mrc:
        mrc.set_data(np.stack([pixels(0), pixels(1), np.full(SHAPE, 3, np.float32)]))
        mrc.set_image_stack()
        mrc.voxel_size = 1.5
    (result,) = go("s.mrcs", output_angpix=3.0).files
    assert result.status == "done", result.message
    with mrcfile.open("out/s.mrcs") as mrc:
        assert mrc.data.shape == (3, 60, 90) and float(mrc.voxel_size.x) == pytest.approx(3.0)
        assert np.abs(mrc.data[1] - resample_image(pixels(1), (60, 90))).max() < 1e-2
        assert (mrc.data[2] == 3).all()


def test_an_unknown_pixel_size_is_told_with_what_needs_it_and_a_coarser_micrograph_stays() -> None:
    write_mrc(Path("a.mrc"), pixels())
    write_mrc(Path("b.mrc"), pixels(), pixel_size_angstrom=6.0)
    for flag, named in (("--highpass 500", {"highpass": 500.0}), ("--output-angpix 4", {"output_angpix": 4.0})):
        failed, done = go("a.mrc", "b.mrc", **named).files
        assert failed.status == "failed" and f"{flag} needs it" in failed.message
        assert done.status == "done"
    assert "coarser than --output-angpix 4: written on its own grid" in done.message
    assert mrcfile.read("out/b.mrc").shape == SHAPE


def test_other_filters_are_other_results() -> None:
    write_mrc(Path("m.mrc"), pixels(), pixel_size_angstrom=1.5)
    go("m.mrc", lowpass=20.0)
    request = DenoiseRequest(("m.mrc",), Path("run"), Path("out"), device="cpu", lowpass=10.0)
    assert "was made with lowpass 20, now 10" in denoise(request).files[0].message


def test_what_leaves_nothing_or_compares_two_grids_is_refused() -> None:
    with pytest.raises(UsageError, match="--highpass 20 removes what is larger and --lowpass 1000 what is finer"):
        ApplySettings(highpass=20.0, lowpass=1000.0)
    with pytest.raises(UsageError, match=r"--lowpass -3.*--output-angpix 0"):
        ApplySettings(lowpass=-3.0, output_angpix=0.0)
    with pytest.raises(UsageError, match="--output-angpix: images that are compared must have the same grid"):
        EvaluateRequest(Path("e"), inputs=("a.mrc",), checkpoint=Path("run"), output_angpix=4.0)


STAR = """
data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographPixelSize #3
_rlnMicrographOriginalPixelSize #4
_rlnVoltage #5
{optics}

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
_rlnCoordinateX #3
_rlnCoordinateY #4
a.mrc 1 30.000000 60.000000
b.mrc 2 30.000000 60.000000
"""


def test_a_star_file_says_the_written_pixel_size_and_scales_what_is_in_pixels() -> None:
    for name, size in (("a.mrc", 1.5), ("b.mrc", 1.0)):
        write_mrc(Path(name), pixels(), pixel_size_angstrom=size)
    optics = "one 1 1.500000 0.750000 300.000000\ntwo 2 1.000000 0.500000 300.000000"
    Path("in.star").write_text(STAR.format(optics=optics))
    go("in.star", star=Path("out/new.star"), output_angpix=3.0)
    star = read_star(Path("out/new.star"))
    table, groups = star.block("micrographs"), star.block("optics")
    assert table is not None and groups is not None
    assert list(map(float, groups.column("rlnMicrographPixelSize"))) == pytest.approx([3.0, 3.0])
    assert groups.column("rlnMicrographOriginalPixelSize") == ["0.750000", "0.500000"], "that of the movie stays"
    assert table.column("rlnMicrographName") == ["out/a.mrc", "out/b.mrc"]
    assert table.column("cryoplugMicrographNameRaw") == ["a.mrc", "b.mrc"]
    assert list(map(float, table.column("rlnCoordinateX"))) == pytest.approx([15.0, 10.0])
    assert list(map(float, table.column("rlnCoordinateY"))) == pytest.approx([30.0, 20.0])
    go("in.star", star=Path("out/new.star"))
    again = read_star(Path("out/new.star"))
    assert again.block("optics").rows == read_star(Path("in.star")).block("optics").rows  # type: ignore[union-attr]


@pytest.mark.parametrize(("coarser", "told"), [(3.0, True), (None, False)])
def test_files_of_coordinates_that_a_coarser_list_names_are_told(coarser: float | None, told: bool) -> None:
    write_mrc(Path("a.mrc"), pixels(), pixel_size_angstrom=1.5)
    Path("picks.star").write_text(
        "data_coordinate_files\n\nloop_\n_rlnMicrographName\n_rlnMicrographCoordinates\na.mrc a_autopick.star\n"
    )
    notes: list[str] = []
    request = DenoiseRequest(
        ("picks.star",), Path("run"), Path("out"), device="cpu", star=Path("out/new.star"), output_angpix=coarser
    )
    assert denoise(request, note=notes.append).exit_code == 0
    assert any("use them with the raw micrographs" in text for text in notes) == told


def test_a_group_whose_micrographs_were_written_at_two_sizes_becomes_two() -> None:
    write_mrc(Path("a.mrc"), pixels(), pixel_size_angstrom=1.5)
    write_mrc(Path("b.mrc"), pixels()[:100, :131], pixel_size_angstrom=1.5)
    Path("in.star").write_text(STAR.format(optics="one 1 1.500000 0.750000 300.000000").replace("b.mrc 2", "b.mrc 1"))
    go("in.star", star=Path("out/new.star"), output_angpix=4.1)
    star = read_star(Path("out/new.star"))
    table, groups = star.block("micrographs"), star.block("optics")
    assert table is not None and groups is not None
    written = []
    for name in ("a", "b"):
        with open_micrograph(Path(f"out/{name}.mrc")) as source:
            assert isinstance(source.header, MrcHeader)  # type: ignore[attr-defined]
            written.append(source.pixel_size_angstrom)
    sizes = dict(zip(groups.column("rlnOpticsGroup"), map(float, groups.column("rlnMicrographPixelSize")), strict=True))
    assert [sizes[group] for group in table.column("rlnOpticsGroup")] == pytest.approx(written, rel=1e-5)
    assert len(set(table.column("rlnOpticsGroup"))) == 2 and len(set(groups.column("rlnOpticsGroupName"))) == 2
