"""Stacks and tilt series: the same sections come out, each as it would alone, in one file."""

from __future__ import annotations

import gzip
import struct
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

from cryoplug.core.results import BatchResult
from cryoplug.errors import FormatError
from cryoplug.formats.mrc import read_header
from cryoplug.formats.registry import open_movie
from cryoplug.formats.stack_kind import look_at_stack
from cryoplug.formats.star import read_star
from cryoplug.inference.bands.sections import denoised_sections
from cryoplug.inference.messages import Sections
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec
from cryoplug.workflows.convert import ConvertRequest, convert
from cryoplug.workflows.convert.inputs import list_inputs
from cryoplug.workflows.denoise import DenoiseRequest, denoise
from cryoplug.workflows.denoise.rehearsal import rehearse
from cryoplug.workflows.evaluate import EvaluateRequest, evaluate
from warm_start import WarmStart

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = {
        name: np.random.default_rng(3).normal(0, 0.1, tensor.shape).astype(np.float32)
        for name, tensor in model_spec("cryo_cnn").build().state_dict().items()
    }
    folder = tmp_path_factory.mktemp("checkpoint") / "run"
    save_checkpoint(folder / "epoch_0001", Checkpoint("cryo_cnn", weights, normalize="zscore"), 0.5)
    return folder


def stack(path: str, pixels: np.ndarray, *, volume: bool = False, angstrom: float = 2.6, **fields: object) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(pixels)
        if not volume:
            file.set_image_stack()
        file.voxel_size = angstrom
        for name, value in fields.items():
            if name == "extended":
                file.set_extended_header(np.frombuffer(value, "V1"))
            else:
                file.header[name] = value
    return Path(path)


def images(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    smooth = np.random.default_rng(seed).normal(0, 1, (count, *shape)).cumsum(1).cumsum(2)
    noise = np.random.default_rng(seed + 1).normal(0, 1, smooth.shape)
    return (20 + smooth / smooth.std() + noise).astype(np.float32)


def run(checkpoint: Path, output: str, *inputs: str, **fields: object) -> BatchResult:
    return denoise(DenoiseRequest(inputs, checkpoint, Path(output), device="cpu", threads=2, **fields))  # type: ignore[arg-type]


def read(path: str | Path) -> np.ndarray:
    with open_movie(path) as movie:
        return movie.read_frames(0, movie.frame_count)


@pytest.mark.parametrize("shape", [(64, 64), (37, 50), (300, 280)])
@pytest.mark.parametrize("fields", [{}, {"angpix": 5.2}, {"strength": 0.5}, {"float16": True}])
def test_each_section_comes_out_as_it_would_alone(
    checkpoint: Path, shape: tuple[int, int], fields: dict[str, object]
) -> None:
    stack("in/s.mrcs", images(5, *shape))
    assert [item.status for item in run(checkpoint, "whole", "in/s.mrcs", **fields).files] == ["done"]
    together = read("whole/s.mrcs")
    assert together.shape == (5, *shape)
    run(checkpoint, "alone", *(f"{number:06d}@in/s.mrcs" for number in (1, 3, 5)), **fields)
    for number in (1, 3, 5):
        np.testing.assert_allclose(together[number - 1], read(f"alone/s_{number:06d}.mrc")[0], atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["p.mrcs", "ts.st", "ts.mrc", "ts.ali"])
def test_header_and_extended_header_are_kept(checkpoint: Path, name: str) -> None:
    path = stack(f"in/{name}", images(7, 40, 48), extended=b"\1\2\3\4" * 70, exttyp=b"AGAR")
    run(checkpoint, "out", str(path))
    before, after = read_header(path), read_header(Path("out", name))
    assert after.extended_header == before.extended_header
    for field in ("nx", "ny", "nz", "mx", "my", "mz", "ispg", "nsymbt"):
        assert int(after.record[field]) == int(before.record[field])
    assert (after.mode, after.pixel_size_angstrom) == (2, pytest.approx(2.6))
    assert mrcfile.validate(f"out/{name}")
    labels = [bytes(label).decode() for label in after.record["label"][: int(after.record["nlabl"])]]
    assert labels[-1].startswith("cryoplug")
    assert {item.name for item in Path("out").glob("[!.]*")} == {name, "denoise.jsonl", "previews", "report.html"}


def test_rows_of_relion_become_one_stack_for_each_stack(checkpoint: Path) -> None:
    for job in (5, 6):
        stack(f"Extract/job00{job}/m.mrcs", images(6, 48, 48, seed=job))
    rows = [f"{number:06d}@Extract/job00{job}/m.mrcs" for number in (2, 6, 1) for job in (6, 5)]
    Path("p.star").write_text(
        "data_particles\n\nloop_\n_rlnImageName #1\n_rlnAngleRot #2\n" + "".join(f"{r} 1.50\n" for r in rows)
    )
    found = run(checkpoint, "out", "p.star", star=Path("out/p.star"))
    assert [item.status for item in found.files] == ["done", "done"]
    table = read_star(Path("out/p.star")).blocks[0]
    assert table.column("cryoplugImageNameRaw") == rows
    assert table.column("rlnAngleRot") == ["1.50"] * 6
    names = [name.split("@") for name in table.column("rlnImageName")]
    assert [number for number, _ in names] == [row[:6] for row in rows], "a section keeps its number"
    assert len({path for _, path in names}) == 2
    for number, path in names:
        assert read(path).shape == (6, 48, 48)
        assert int(number) <= 6


@pytest.mark.parametrize("count", [1, 6])
def test_a_row_that_names_a_section_beyond_the_end_fails_its_stack_alone(checkpoint: Path, count: int) -> None:
    stack("E/a.mrcs", images(count, 32, 32))
    stack("E/b.mrcs", images(6, 32, 32))
    Path("p.star").write_text(
        "data_particles\n\nloop_\n_rlnImageName\n000001@E/a.mrcs\n000007@E/a.mrcs\n000006@E/b.mrcs\n"
    )
    plan = rehearse(DenoiseRequest(("p.star",), checkpoint, Path("out"), device="cpu"))
    assert [item.message.split(";")[0] for item in plan.files] == [
        f"E/a.mrcs: section 7 is listed, but the file has {count}"
    ]
    found = run(checkpoint, "out", "p.star", star=Path("out/p.star"))
    assert [item.status for item in found.files] == ["failed", "done"] and found.exit_code == 3
    assert f"section 7 is listed, but the file has {count}" in found.files[0].message
    assert read_star(Path("out/p.star")).blocks[0].column("rlnImageName") == ["000006@out/E/b.mrcs"]


def test_a_section_that_no_network_can_use_stays_as_it_is_and_is_named(checkpoint: Path) -> None:
    pixels = images(6, 32, 32)
    pixels[2] = 7
    path = stack("in/s.mrcs", pixels)
    pixels[4, 3, 3] = np.nan
    with path.open("r+b") as file:
        file.seek(1024)
        file.write(pixels.tobytes())
    (found,) = run(checkpoint, "out", "in/s.mrcs").files
    assert "2 of 6 sections cannot be denoised and stay as they are: 3 (all 1024 pixels are 7" in found.message
    result = read("out/s.mrcs")
    np.testing.assert_array_equal(result[[2, 4]], pixels[[2, 4]])
    assert np.abs(result[[0, 1, 3, 5]] - pixels[[0, 1, 3, 5]]).min(axis=(1, 2)).max() > 0


def test_a_stack_of_which_nothing_can_be_denoised_fails(checkpoint: Path) -> None:
    stack("in/a.mrcs", np.ones((3, 32, 32), np.float32))
    stack("in/b.mrcs", images(2, 32, 32))
    found = run(checkpoint, "out", "in")
    assert [item.status for item in found.files] == ["failed", "done"] and found.exit_code == 3
    assert "none of its 3 sections can be denoised, such as 1 (all 1024 pixels are 1" in found.files[0].message
    assert not Path("out/a.mrcs").exists()


def test_a_stack_is_never_in_memory_as_a_whole(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cryoplug.inference.bands.reading.CHUNK_PIXELS", 1 << 16)
    stack("m.mrcs", np.random.default_rng(0).normal(0, 1, (4000, 32, 32)).astype(np.float32))
    run(checkpoint, "first", "m.mrcs")  # what is imported and kept for good counts no more
    tracemalloc.start()
    try:
        run(checkpoint, "out", "m.mrcs")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < Path("m.mrcs").stat().st_size / 2


def test_parts_that_are_under_way_at_once_keep_their_places(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of threads, and however long one part takes."""
    pixels = images(40, 32, 32)
    pixels[13] = 3
    stack("m.mrcs", pixels)
    stack("n.mrcs", pixels[::-1].copy())
    run(checkpoint, "one", "m.mrcs", "n.mrcs")
    monkeypatch.setattr("cryoplug.inference.bands.reading.CHUNK_PIXELS", 4 * 32 * 32)
    lock, at_once, most = threading.Lock(), 0, 0

    def slow_first(message: Sections, *rest: Any) -> Sections:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.02 * (message.first // 4 % 2))
        made = denoised_sections(message, *rest)
        with lock:
            at_once -= 1
        return made

    monkeypatch.setattr("cryoplug.inference.pipeline.denoised_sections", slow_first)
    run(checkpoint, "many", "m.mrcs", "n.mrcs")
    assert most == 2
    for name in ("m.mrcs", "n.mrcs"):
        np.testing.assert_allclose(read(f"one/{name}"), read(f"many/{name}"), atol=1e-4)


def test_a_second_run_does_nothing_and_a_changed_stack_is_done_again(checkpoint: Path) -> None:
    stack("in/s.mrcs", images(4, 32, 32))
    run(checkpoint, "out", "in")
    assert [item.status for item in run(checkpoint, "out", "in").files] == ["skipped"]
    stack("in/s.mrcs", images(5, 32, 32))
    assert [item.status for item in run(checkpoint, "out", "in").files] == ["done"]
    assert len(read("out/s.mrcs")) == 5


def test_a_stack_that_is_being_written_when_the_process_is_killed_has_no_name(
    checkpoint: Path, warm_start: WarmStart
) -> None:
    stack("in/s.mrcs", images(1000, 64, 64))
    command = ("denoise", "in/s.mrcs", "--checkpoint", checkpoint, "-o", "out")
    process = warm_start.start(*command)
    while process.poll() is None and not list(Path("out").glob(".s.mrcs*")):
        time.sleep(0.02)
    process.kill()
    process.wait()
    if not Path("out/s.mrcs").exists():
        assert warm_start.start(*command).wait(timeout=120) == 0
    assert len(read("out/s.mrcs")) == 1000
    assert not list(Path("out").glob(".*partial*"))


@pytest.mark.parametrize(
    ("path", "pixels", "fields", "message"),
    [
        ("a_rec.mrc", images(9, 40, 40), {}, "this is a volume because its name (a_rec.mrc) says so; volumes are not denoised"),
        ("tomo.rec", images(9, 40, 40), {}, "this is a volume because files that end in .rec are"),
        ("v.mrc", images(9, 40, 40), {"volume": True}, "ISPG 1, MZ 9); volumes are not denoised here; for tomograms there are"),
        ("m.mrc", images(4, 40, 40).astype(np.int8), {}, "this is a movie because its pixels are bytes"),
        ("m.mrcs", images(4, 40, 40).astype(np.int8), {}, "make halves of it with `cryoplug convert --pairs halves`"),
        ("k2.mrc", np.ones((2, 1024, 1030), np.int16), {}, "this is a movie because its pixels are int16 on a detector"),
    ],
)  # fmt: skip
def test_volumes_and_movies_are_refused_with_what_to_do(
    checkpoint: Path, path: str, pixels: np.ndarray, fields: dict[str, object], message: str
) -> None:
    stack(path, pixels, **fields)  # type: ignore[arg-type]
    (found,) = run(checkpoint, "out", path).files
    assert found.status == "failed" and found.exit_code == 4
    assert message in found.message


def packed(path: Path) -> Path:
    target = path.with_name(path.name + ".gz")
    target.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return target


def test_a_packed_stack_is_what_it_is_unpacked(checkpoint: Path) -> None:
    pixels = images(5, 40, 48)
    file = packed(stack("in/p.mrcs", pixels))
    found = run(checkpoint, "out", str(file), strength=0.0)
    assert [item.status for item in found.files] == ["done"]
    np.testing.assert_array_equal(read("out/p.mrcs"), pixels)
    store = convert(ConvertRequest((str(file),), Path("s"), patch_size=32))
    assert [item.status for item in store.files] == ["done"] * 5
    run(checkpoint, "alone", f"000002@{file}")
    assert Path("alone/p_000002.mrc").exists()


@pytest.mark.parametrize(("name", "ispg"), [("v.map", 0), ("v.ccp4", 0), ("v.mrc", 4), ("v.mrc", 1)])
def test_a_volume_is_one_packed_or_not(name: str, ispg: int) -> None:
    # A crystal's cell is sampled finer than the part that is there.
    fields = {"ispg": ispg, "mz": 84} if ispg > 1 else {}
    path = stack(f"in/{name}", images(5, 16, 16), volume=ispg == 1, **fields)
    assert look_at_stack(path).kind == "volume"
    if name != "v.ccp4":
        assert look_at_stack(packed(path)).kind == "volume"


def test_a_packed_tilt_series_is_not_taken_for_a_movie() -> None:
    for beside in ("ts.mrc.gz.mdoc", "ts.mrc.mdoc", "ts.rawtlt"):
        file = packed(stack("in/ts.mrc", images(3, 16, 16)))
        text = (
            "-3\n0\n3\n"
            if beside.endswith("tlt")
            else "".join(f"[ZValue = {i}]\nTiltAngle = {3 * i - 3}\n" for i in range(3))
        )
        Path("in", beside).write_text(text)
        assert look_at_stack(file).kind == "tilt series"
        with pytest.raises(FormatError, match="this is a tilt series"):
            convert(ConvertRequest((str(file),), Path("s"), pairs="halves"))
        Path("in", beside).unlink()


def seri(angles: list[float]) -> bytes:
    return b"".join(struct.pack("<h", round(100 * angle)) for angle in angles)


def fei(angles: list[float], kind: bytes = b"FEI1") -> bytes:
    from mrcfile.dtypes import get_ext_header_dtype

    records = np.zeros(len(angles), get_ext_header_dtype(kind, "<"))
    records["Metadata size"], records["Alpha tilt"] = records.dtype.itemsize, angles
    records["Bitmask 1"] = 1 << 7
    return records.tobytes()


def with_flags(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(128)
        file.write(struct.pack("<hh", 2, 1))  # two bytes a section: the tilt angle


TILTS = [-6.0, -3.0, 0.0, 3.0]


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("seri", "its extended header has tilt angles from -6 to 3 degrees"),
        ("fei", "its extended header has tilt angles from -6 to 3 degrees"),
        ("mdoc", "ts.mrc.mdoc beside it has tilt angles from -6 to 3 degrees"),
        ("rawtlt", "ts.rawtlt beside it has tilt angles from -6 to 3 degrees"),
        ("bare seri", "its extended header is SerialEM's (SERI)"),
    ],
)
def test_a_tilt_series_is_not_taken_for_a_movie(how: str, why: str) -> None:
    headers = {"seri": (b"SERI", seri(TILTS)), "fei": (b"FEI1", fei(TILTS)), "bare seri": (b"SERI", b"")}
    kind, extended = headers.get(how, (b"", b""))
    fields = {"exttyp": kind, **({"extended": extended} if extended else {})}
    path = stack("ts.mrc", images(4, 64, 64).astype(np.int16), **fields)
    if how == "seri":
        with_flags(path)
    if how == "mdoc":
        sections = [f"[ZValue = {i}]\nTiltAngle = {angle}\n" for i, angle in enumerate(TILTS)]
        Path("ts.mrc.mdoc").write_text("PixelSpacing = 2.6\n\n" + "\n".join(sections))
    if how == "rawtlt":
        Path("ts.rawtlt").write_text("".join(f"{angle}\n" for angle in TILTS))
    found = look_at_stack(path)
    assert (found.kind, found.sections, found.shape) == ("tilt series", 4, (64, 64))
    assert why in found.why
    with pytest.raises(Exception, match=r"this is a tilt series because .* give the halves of each view"):
        convert(ConvertRequest(("ts.mrc",), Path("s"), pairs="halves"))


def test_frames_of_one_tilt_are_a_movie(checkpoint: Path) -> None:
    path = stack("m.mrc", images(4, 64, 64).astype(np.int8), exttyp=b"FEI2", extended=fei([0.01] * 4, b"FEI2"))
    Path("m.mrc.mdoc").write_text("[FrameSet = 0]\nTiltAngle = 0.01\nNumSubFrames = 4\n")
    assert look_at_stack(path).kind == "movie"


def test_a_tilt_series_with_halves_trains_by_section(checkpoint: Path) -> None:
    rng = np.random.default_rng(0)
    for name, seed in (("ts_01", 0), ("ts_02", 9)):
        signal_ = images(4, 128, 128, seed=seed)
        for ending in ("", "_EVN", "_ODD"):
            stack(f"series/{name}{ending}.mrc", signal_ + rng.normal(0, 0.5, signal_.shape).astype(np.float32))
    found = convert(ConvertRequest(("series",), Path("s"), pairs="halves", patch_size=64, test_split=0.5))
    assert [item.status for item in found.files] == ["done"] * 8
    assert str(found.files[1].input) == "000002@series/ts_01_EVN.mrc"
    inputs = list_inputs(ConvertRequest(("series",), Path("s"), pairs="halves"))
    assert inputs.exposures == (0, 0, 0, 0, 1, 1, 1, 1), "views of one area stay on one side"
    assert found.details["test_micrographs"] == 4
    whole = run(checkpoint, "out", "series", halves=True)
    assert [item.status for item in whole.files] == ["done", "done"]
    assert read("out/ts_01.mrc").shape == (4, 128, 128)
    assert read_header(Path("out/ts_01.mrc")).nz == 4


def test_views_without_contrast_follow_the_views_that_have_it() -> None:
    rng = np.random.default_rng(0)
    signal_ = images(5, 128, 128) * np.array([0, 0, 1, 1, 0], np.float32)[:, None, None]
    for ending in ("_EVN", "_ODD"):
        stack(f"ts{ending}.mrc", signal_ + rng.normal(0, 1, signal_.shape).astype(np.float32))
    found = convert(ConvertRequest(("ts_EVN.mrc",), Path("s"), pairs="halves", patch_size=64))
    assert [item.status for item in found.files] == ["done"] * 5
    assert ["section 3 of these stacks is a pair" in item.message for item in found.files] == [
        True,
        True,
        False,
        False,
        True,
    ]


def test_views_that_prove_nothing_alone_prove_it_together() -> None:
    rng = np.random.default_rng(0)
    faint = 0.22 * (images(16, 128, 128, seed=3) - 20)
    for ending in ("_EVN", "_ODD"):
        stack(f"ts{ending}.mrc", faint + rng.normal(0, 1, faint.shape).astype(np.float32))
    found = convert(ConvertRequest(("ts_EVN.mrc",), Path("s"), pairs="halves", patch_size=64))
    assert [item.status for item in found.files] == ["done"] * 16
    assert any("sections of these stacks are pairs, taken together" in item.message for item in found.files)


def test_where_nothing_can_be_seen_the_names_of_stacks_decide() -> None:
    rng = np.random.default_rng(0)
    for ending in ("_EVN", "_ODD"):
        stack(f"no{ending}.mrc", rng.normal(20, 1, (5, 128, 128)).astype(np.float32))
    found = convert(ConvertRequest(("no_EVN.mrc",), Path("s"), pairs="halves", patch_size=64))
    assert found.exit_code == 0
    assert all("white noise without contrast; their names decide" in item.message for item in found.files)


def test_stacks_of_two_specimens_are_refused_with_one_full_sentence() -> None:
    for side, seed in (("EVN", 0), ("ODD", 5)):
        stack(f"ts_{side}.mrc", images(5, 128, 128, seed=seed))
    found = convert(ConvertRequest(("ts_EVN.mrc",), Path("s"), pairs="halves", patch_size=64))
    assert found.exit_code == 4
    assert all("do not belong together" in item.message for item in found.files)
    assert ["standard errors above chance" in item.message for item in found.files] == [True, *[False] * 4]


def test_stacks_of_unequal_length_fail_alone() -> None:
    rng = np.random.default_rng(0)
    for name, counts in (("a", (3, 3)), ("b", (4, 5)), ("c", (2, 2))):
        signal_ = images(5, 128, 128, seed=ord(name))
        for side, count in zip(("EVN", "ODD"), counts, strict=True):
            stack(f"s/{name}_{side}.mrc", (signal_ + rng.normal(0, 0.5, signal_.shape)).astype(np.float32)[:count])
    found = convert(ConvertRequest(("s",), Path("out"), pairs="halves", patch_size=64))
    assert found.exit_code == 3
    assert [item.status for item in found.files] == ["done"] * 3 + ["failed"] + ["done"] * 2
    assert "s/b_EVN.mrc: 4 sections but s/b_ODD.mrc has 5; a pair needs as many in each" in found.files[3].message


def test_stacks_are_evaluated_by_section(checkpoint: Path) -> None:
    rng = np.random.default_rng(0)
    clean = images(3, 64, 64)
    stack("clean.mrcs", clean)
    for name in ("noisy", "even", "odd"):
        stack(f"{name}.mrcs", clean + rng.normal(0, 1, clean.shape).astype(np.float32))
    asked = EvaluateRequest(
        Path("e"), ("noisy.mrcs",), checkpoint=checkpoint, clean=("clean.mrcs",), device="cpu", threads=1
    )
    found = evaluate(asked)
    assert [(str(item.input), item.status) for item in found.files] == [
        (f"{i:06d}@noisy.mrcs", "done") for i in (1, 2, 3)
    ]
    sides = {"even": ("even.mrcs",), "odd": ("odd.mrcs",)}
    halves = evaluate(EvaluateRequest(Path("h"), checkpoint=checkpoint, device="cpu", threads=1, **sides))
    assert [item.status for item in halves.files] == ["done"] * 3
    stack("odd.mrcs", clean[:2])
    unequal = evaluate(EvaluateRequest(Path("u"), checkpoint=checkpoint, device="cpu", threads=1, **sides))
    assert [(str(item.input), item.status) for item in unequal.files] == [("even.mrcs", "failed")]
    assert "3 sections but odd.mrcs has 2" in unequal.files[0].message


def test_particles_are_packed_by_section_with_pairs_of_noise() -> None:
    stack("p.mrcs", np.abs(images(9, 64, 64)))
    found = convert(ConvertRequest(("p.mrcs",), Path("s"), test_split=0.3))
    assert (found.exit_code, found.details["patch_size"], found.details["micrographs"]) == (0, 64, 9)
    assert found.details["train"] + found.details["test"] == 9
