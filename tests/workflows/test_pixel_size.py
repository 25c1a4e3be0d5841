"""One pixel size in every command: what the user states beats the list, and the list beats the header."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

from cryoplug.core.results import BatchResult
from cryoplug.errors import UsageError
from cryoplug.formats.mrc_writer import write_mrc
from cryoplug.formats.star import image_table, read_star
from cryoplug.inference.denoiser import Denoiser
from cryoplug.inference.pipeline import run_pipeline
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec
from cryoplug.simulation.micrograph import SimulationSettings, simulate_micrograph
from cryoplug.workflows.convert import ConvertRequest, convert
from cryoplug.workflows.denoise import DenoiseRequest, denoise
from cryoplug.workflows.denoise import run as denoise_module
from cryoplug.workflows.evaluate import EvaluateRequest, evaluate
from cryoplug.workflows.inspect import inspect_path

pytestmark = pytest.mark.usefixtures("no_pictures")

SIDE = 192
HEADERS = {"one": 1.0, "binned": 5.2, "ok": 2.6, "unset": None}
"""What the header of each micrograph says; all are the same exposure, really of 2.6 A/px."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It works at 5.2 A/px, so that 2.6 is cropped twofold."""
    weights = {key: tensor.numpy() for key, tensor in model_spec("cryo_cnn").build(seed=1).state_dict().items()}
    path = tmp_path_factory.mktemp("run") / "epoch_0001"
    save_checkpoint(path, Checkpoint("cryo_cnn", weights, normalize="zscore", details={"angpix": 5.2}), 0.5)
    return path


@functools.cache
def exposure(index: int = 0) -> Any:
    return simulate_micrograph(SimulationSettings(size_px=SIDE, pixel_size_angstrom=2.6), index)


def write(name: str, size: float | None, *, index: int = 0) -> None:
    made = exposure(index)
    for ending, pixels in (("", made.noisy), ("_EVN", made.even), ("_ODD", made.odd)):
        write_mrc(Path(f"m/{name}{ending}.mrc"), pixels, pixel_size_angstrom=size)


@pytest.fixture
def files() -> None:
    Path("m").mkdir()
    for name, size in HEADERS.items():
        write(name, size)


def star_of(size: str = "2.6", *, in_rows: bool = False) -> str:
    """A list of all micrographs that says one pixel size, in its optics table or in RELION 3.0's way."""
    if in_rows:  # a detector of 5 um at a magnification that makes it 2.6 A
        columns = "_rlnMicrographName #1\n_rlnMagnification #2\n_rlnDetectorPixelSize #3\n"
        detail = f"{5e4 / float(size):.6f} 5.0"
        text = f"data_\n\nloop_\n{columns}" + "".join(f"m/{name}.mrc {detail}\n" for name in HEADERS)
    else:
        optics = "_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n_rlnMicrographPixelSize #3\nog1 1 "
        text = f"data_optics\n\nloop_\n{optics}{size}\n\ndata_micrographs\n\nloop_\n"
        text += "_rlnMicrographName #1\n_rlnOpticsGroup #2\n" + "".join(f"m/{name}.mrc 1\n" for name in HEADERS)
    Path("m.star").write_text(text)
    return "m.star"


def cs_of(size: float = 2.6) -> str:
    fields = [("uid", "<u8"), ("micrograph_blob/path", "S80"), ("micrograph_blob/psize_A", "<f4")]
    rows = [(index, f"m/{name}.mrc".encode(), size) for index, name in enumerate(HEADERS)]
    with Path("m.cs").open("wb") as stream:
        np.save(stream, np.array(rows, fields))
    return "m.cs"


def go(checkpoint: Path, *inputs: str, out: str = "out", **named: Any) -> tuple[BatchResult, list[str]]:
    notes: list[str] = []
    request = DenoiseRequest(inputs, checkpoint, Path(out), device="cpu", threads=1, **named)
    return denoise(request, note=notes.append), [text for text in notes if "pixel size" in text]


def whole_road(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the road of a GPU, on the CPU."""
    monkeypatch.setattr(denoise_module, "run_pipeline", functools.partial(run_pipeline, whole=True))


LISTS: dict[str, Callable[[], str]] = {
    "optics groups": star_of,
    "RELION 3.0": lambda: star_of(in_rows=True),
    "cryoSPARC": cs_of,
}
ROADS = ("bands", "whole", "halves")


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("kind", list(LISTS))
@pytest.mark.usefixtures("files")
def test_equal_pixels_give_equal_results_whatever_their_headers_say(
    checkpoint: Path, kind: str, road: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if road == "whole":
        whole_road(monkeypatch)
    result, notes = go(checkpoint, LISTS[kind](), halves=road == "halves")
    assert [item.status for item in result.files] == ["done"] * len(HEADERS), result.files
    made = {name: mrcfile.read(f"out/m/{name}.mrc") for name in HEADERS}
    for name in HEADERS:
        np.testing.assert_allclose(made[name], made["ok"], rtol=0, atol=1e-4 * made["ok"].std())
        with mrcfile.open(f"out/m/{name}.mrc", header_only=True) as mrc:
            assert (float(mrc.voxel_size.x), float(mrc.voxel_size.y)) == pytest.approx((2.6, 2.6))
    assert len(notes) == 1 and "2.6 A/px, the header of 1 micrograph 5.2" in notes[0]
    assert not any("pixel size" in item.message for item in result.files), "the remark is one a run"


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.usefixtures("files")
def test_what_the_user_states_is_used_and_written(checkpoint: Path, road: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if road == "whole":
        whole_road(monkeypatch)
    halves = road == "halves"
    wanted, _ = go(checkpoint, star_of(), out="listed", halves=halves)
    star = Path("out.star")
    stated, notes = go(checkpoint, star_of("1.7"), pixel_size=2.6, halves=halves, star=star)
    assert wanted.exit_code == stated.exit_code == 0
    for name in HEADERS:
        np.testing.assert_array_equal(mrcfile.read(f"out/m/{name}.mrc"), mrcfile.read(f"listed/m/{name}.mrc"))
        with mrcfile.open(f"out/m/{name}.mrc", header_only=True) as mrc:
            assert float(mrc.voxel_size.x) == pytest.approx(2.6)
    assert image_table(read_star(star)).pixel_sizes == [2.6] * len(HEADERS)
    assert [text.split(" for ")[0] for text in notes] == [
        "pixel size: --pixel-size 2.6 was used, but the list says 1.7 A/px",
        "pixel size: --pixel-size 2.6 was used, but the header says 5.2 A/px",
    ] and " 4 micrographs" in notes[0]


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.usefixtures("files")
def test_where_nobody_says_it_the_error_names_the_option_and_the_others_go_on(
    checkpoint: Path, road: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if road == "whole":
        whole_road(monkeypatch)
    result, _ = go(checkpoint, *(f"m/{name}.mrc" for name in HEADERS), halves=road == "halves")
    status = {item.input.stem: item.status for item in result.files}
    assert status == {"one": "failed", "binned": "done", "ok": "done", "unset": "failed"}
    for item in result.failed:
        assert "its pixel size is not known, and the network works at 5.2 angstrom" in item.message
        assert "--pixel-size A" in item.message and "exactly 1 A/px counts as unknown" in item.message
    again, _ = go(checkpoint, "m/one.mrc", halves=road == "halves", pixel_size=2.6, out="again")
    assert again.exit_code == 0
    np.testing.assert_array_equal(mrcfile.read("again/one.mrc"), mrcfile.read("out/ok.mrc"))


@pytest.mark.usefixtures("files")
def test_a_true_one_can_be_stated(checkpoint: Path) -> None:
    result, notes = go(checkpoint, "m/one.mrc", pixel_size=1.0, star=Path("out.star"))
    assert result.exit_code == 0 and notes == []
    assert image_table(read_star("out.star")).pixel_sizes == [1.0]


@pytest.mark.usefixtures("files")
def test_where_no_pixel_size_is_needed_nobody_asks_for_it(checkpoint: Path) -> None:
    result, notes = go(checkpoint, "m/one.mrc", "m/unset.mrc", angpix=0.0, star=Path("out.star"))
    assert result.exit_code == 0 and notes == []
    with mrcfile.open("out/one.mrc", header_only=True) as mrc:
        assert float(mrc.voxel_size.x) == 1.0, "the header is carried over"
    assert image_table(read_star("out.star")).pixel_sizes == [None, None]


@pytest.mark.usefixtures("files")
def test_the_api_and_the_command_agree_on_a_stated_size(checkpoint: Path) -> None:
    go(checkpoint, "m/one.mrc", pixel_size=2.6)
    made = Denoiser.from_checkpoint(checkpoint, device="cpu").denoise(
        mrcfile.read("m/one.mrc"), pixel_size_angstrom=2.6
    )
    np.testing.assert_allclose(made, mrcfile.read("out/one.mrc"), rtol=0, atol=1e-4 * made.std())


@pytest.mark.usefixtures("files")
def test_a_run_with_another_stated_size_is_another_run(checkpoint: Path) -> None:
    go(checkpoint, "m/ok.mrc")
    result, _ = go(checkpoint, "m/ok.mrc", pixel_size=2.0)
    assert "pixel_size none, now 2" in result.files[0].message and result.files[0].status == "failed"
    same, _ = go(checkpoint, "m/ok.mrc")
    assert [item.status for item in same.files] == ["skipped"]


@pytest.mark.usefixtures("files")
def test_a_list_that_says_another_size_than_before_is_another_run(checkpoint: Path) -> None:
    go(checkpoint, star_of("2.6"))
    again, _ = go(checkpoint, star_of("2.61"))
    assert {item.status for item in again.files} == {"skipped"}, "1 % is no difference"
    other, _ = go(checkpoint, star_of("3.9"))
    assert all("pixel size of 2.6 A/px, which the list said, now 3.9" in item.message for item in other.files)
    records = list(Path("out/.cryoplug").rglob("*.json"))
    assert len(records) == len(HEADERS)
    for path in records:  # as an earlier version left them
        record = json.loads(path.read_text())
        for name in ("listed_pixel_size", "pixel_size"):
            record["settings"].pop(name)
        path.write_text(json.dumps(record))
    old, _ = go(checkpoint, star_of("2.6"))
    assert {item.status for item in old.files} == {"skipped"}, "what was finished before stays finished"


def shapes(folder: str) -> list[list[int]]:
    return [item["shape"] for item in json.loads(Path(folder, "dataset.json").read_text())["micrographs"]]


def packed(*inputs: str, out: str = "store", **named: Any) -> tuple[BatchResult, list[str]]:
    notes: list[str] = []
    request = ConvertRequest(inputs, Path(out), angpix=5.2, patch_size=48, **named)
    return convert(request, note=notes.append), [text for text in notes if "pixel size" in text]


@pytest.mark.parametrize("kind", list(LISTS))
@pytest.mark.usefixtures("files")
def test_convert_believes_whom_denoise_believes(kind: str) -> None:
    result, notes = packed(LISTS[kind]())
    assert result.exit_code == 0 and shapes("store") == [[SIDE // 2, SIDE // 2]] * len(HEADERS)
    assert len(notes) == 1 and "the header of 1 micrograph 5.2" in notes[0]


@pytest.mark.parametrize("pairs", ["noise", "halves"])
def test_convert_asks_for_a_pixel_size_that_nobody_says_and_takes_the_stated_one(pairs: str) -> None:
    Path("m").mkdir()
    for index in range(2):
        write(f"mic{index}", 1.0, index=index)
    result, _ = packed("m", pairs=pairs)
    assert [item.status for item in result.files] == ["failed", "failed"] and result.exit_code == 4
    assert all("--pixel-size A" in item.message and "--angpix 5.2 needs it" in item.message for item in result.files)
    assert packed("m", pairs=pairs, pixel_size=2.6, accept_unproven=True)[0].exit_code == 0
    assert shapes("store") == [[SIDE // 2, SIDE // 2]] * 2
    assert {
        item["pixel_size_angstrom"] for item in json.loads(Path("store/dataset.json").read_text())["micrographs"]
    } == {5.2}


def test_a_list_decides_between_two_sides_whose_headers_differ() -> None:
    Path("m").mkdir()
    write("a", 2.6)
    write_mrc(Path("m/a_ODD.mrc"), exposure().odd, pixel_size_angstrom=5.2)
    request = {"pairs": "halves", "out": "store"}
    result, _ = packed("m/a_EVN.mrc", "m/a_ODD.mrc", **request)
    assert "pixel size 2.6 angstrom but" in result.files[0].message
    Path("m.star").write_text(
        "data_micrographs\n\nloop_\n_rlnMicrographName #1\n_rlnMicrographPixelSize #2\nm/a.mrc 2.6\n"
    )
    assert packed("m.star", **request)[0].exit_code == 0
    assert packed("m/a_EVN.mrc", "m/a_ODD.mrc", pairs="halves", out="stated", pixel_size=2.6)[0].exit_code == 0


def test_movies_go_by_the_same_rule() -> None:
    for index in range(2):
        made = exposure(index)
        with mrcfile.new(f"movie{index}.mrc") as mrc:
            mrc.set_data(np.stack([made.even, made.odd, made.even, made.odd]))
            mrc.set_image_stack()
            mrc.voxel_size = 1.0
    names = ("movie0.mrc", "movie1.mrc")
    result, _ = packed(*names, pairs="halves")
    assert all("--pixel-size A" in item.message for item in result.failed) and len(result.failed) == 2
    result, notes = packed(*names, pairs="halves", pixel_size=2.6)
    assert result.exit_code == 0 and notes == [] and shapes("store") == [[SIDE // 2, SIDE // 2]] * 2
    Path("m.star").write_text(
        "data_movies\n\nloop_\n_rlnMicrographMovieName #1\n_rlnMicrographOriginalPixelSize #2\n"
        + "".join(f"{name} 2.6\n" for name in names)
    )
    assert packed("m.star", pairs="halves", out="listed")[0].exit_code == 0
    assert shapes("listed") == shapes("store")


@pytest.mark.usefixtures("files")
def test_evaluate_believes_whom_denoise_believes(checkpoint: Path) -> None:
    found = {}
    for name, fields in {
        "listed": {"inputs": (star_of(),)},
        "stated": {"inputs": ("m/one.mrc", "m/binned.mrc", "m/ok.mrc", "m/unset.mrc"), "pixel_size": 2.6},
    }.items():
        notes: list[str] = []
        records: list[dict[str, Any]] = []
        request = EvaluateRequest(
            Path(name), checkpoint=checkpoint, device="cpu", threads=1, accept_unproven=True, **fields
        )  # type: ignore[arg-type]
        result = evaluate(request, note=notes.append, show=records.append)
        assert result.exit_code == 0
        assert {record["pixel_size_angstrom"] for record in records} == {2.6}
        assert [text for text in notes if "pixel size" in text and "5.2" in text], notes
        scores = [record["halves"]["denoised"].correlation for record in records]
        assert max(scores) - min(scores) < 1e-5
        found[name] = scores
    assert found["listed"] == pytest.approx(found["stated"], abs=1e-6)
    request = EvaluateRequest(Path("alone"), ("m/one.mrc",), checkpoint, device="cpu", threads=1)
    assert "--pixel-size A" in evaluate(request).files[0].message


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("kind", list(LISTS))
def test_inspect_warns_where_list_and_headers_differ(kind: str) -> None:
    found = [item for item in inspect_path(Path(LISTS[kind]())).findings if item.field == "pixel size"]
    assert [item.severity for item in found] == ["warning"]
    assert "the list says 2.6 A/px, the header of 1 micrograph 5.2" in found[0].message
    Path("m/binned.mrc").unlink()
    assert not [item for item in inspect_path(Path(LISTS[kind]())).findings if item.field == "pixel size"]


@pytest.mark.usefixtures("files")
def test_inspect_says_that_a_header_of_one_counts_as_unknown() -> None:
    said = [item for item in inspect_path(Path("m/one.mrc")).findings if "exactly 1 A" in item.message]
    assert len(said) == 1 and said[0].severity == "note" and "--pixel-size" in said[0].message


@pytest.mark.parametrize("size", [0.0, -2.6, float("nan"), float("inf")])
def test_a_stated_size_that_is_none_is_refused_alike(size: float) -> None:
    makers = (
        lambda: DenoiseRequest(("m",), Path("c"), Path("o"), pixel_size=size),
        lambda: EvaluateRequest(Path("o"), ("m",), Path("c"), pixel_size=size),
        lambda: ConvertRequest(("m",), Path("o"), pixel_size=size),
    )
    for make in makers:
        with pytest.raises(UsageError, match=r"--pixel-size .* \(allowed: a pixel size in angstrom above 0\)"):
            make()
