"""Denoising at another pixel size than the micrograph's, and mixing with the raw pixels."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

from cryoplug.core import fourier_crop
from cryoplug.core.fourier_crop import merge_high_resolution, resample_open_axis
from cryoplug.core.results import BatchResult
from cryoplug.errors import FormatError, UsageError
from cryoplug.formats.mrc_writer import write_mrc
from cryoplug.inference.denoiser import Denoiser
from cryoplug.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cryoplug.models.registry import UNET, model_spec
from cryoplug.training.config import TrainConfig
from cryoplug.workflows.convert import ConvertRequest, convert
from cryoplug.workflows.denoise import DenoiseRequest, denoise
from cryoplug.workflows.train import TrainRequest, train

resample_image = functools.partial(fourier_crop.resample_image, resample=resample_open_axis)

pytestmark = pytest.mark.usefixtures("no_pictures")

SHAPE = (121, 180)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checkpoint(name: str, **details: Any) -> Path:
    weights = {key: tensor.numpy() for key, tensor in model_spec("cryo_cnn").build(seed=1).state_dict().items()}
    path = Path(name) / "epoch_0001"
    save_checkpoint(path, Checkpoint("cryo_cnn", weights, normalize="zscore", details=details), 0.5)
    return path


def identity_checkpoint(angpix: float, **details: Any) -> Path:
    """A network that changes nothing: what comes out shows what is done around it."""
    config = {"depth": 1, "width": 2}
    weights = {key: tensor.numpy() for key, tensor in UNET.build(config=config).state_dict().items()}
    path = Path("identity") / "epoch_0001"
    save_checkpoint(path, Checkpoint("unet", weights, config, "zscore", angpix, {"angpix": angpix, **details}), 0.5)
    return path


def pixels(seed: int = 0, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).normal(1000, 30, shape).astype(np.float32)


def write(image: np.ndarray, name: str = "m.mrc", pixel_size: float | None = 1.5) -> str:
    write_mrc(Path(name), image, pixel_size_angstrom=pixel_size)
    return name


def go(path: Path, *inputs: str, **named: Any) -> BatchResult:
    return denoise(DenoiseRequest(inputs, path, Path("out"), device="cpu", threads=2, **named))


def close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3)


def test_it_is_cropped_denoised_and_padded_back_to_its_own_grid() -> None:
    path = checkpoint("run", angpix=3.1)
    result = go(path, write(pixels()))
    assert [item.status for item in result.files] == ["done"] and result.details["angpix"] == 3.1
    small = Denoiser.from_checkpoint(path, device="cpu", angpix=0).denoise(resample_image(pixels(), (59, 87)))
    with mrcfile.open("out/m.mrc") as mrc:
        close(mrc.data, resample_image(small, SHAPE))
        assert float(mrc.voxel_size.x) == pytest.approx(1.5)
        assert str(mrc.get_labels()[-1]).endswith(" 3.1A/px")


def test_one_checkpoint_serves_micrographs_of_any_pixel_size_and_each_keeps_its_own() -> None:
    path = identity_checkpoint(3.0)
    names = [write(pixels(i), f"m{i}.mrc", size) for i, size in enumerate((0.75, 1.5, 2.9, 3.01, 6.0))]
    result = go(path, *names)
    assert [item.status for item in result.files] == ["done"] * 5
    for i, small in enumerate([(30, 45), (60, 90), (117, 174), SHAPE, (242, 360)]):
        with mrcfile.open(f"out/m{i}.mrc") as mrc:
            close(mrc.data, resample_image(resample_image(pixels(i), small), SHAPE))
    assert "coarser than the 3 A" in result.files[4].message
    assert not any(item.message for item in result.files[:4])


def test_an_unknown_pixel_size_is_refused_with_advice_and_the_others_go_on() -> None:
    path = identity_checkpoint(3.0)
    result = go(path, write(pixels(), "a.mrc", None), write(pixels(1), "b.mrc"))
    assert [item.status for item in result.files] == ["failed", "done"] and result.exit_code == 3
    assert (
        "a.mrc: its pixel size is not known, and the network works at 3 angstrom; state it with --pixel-size A"
        in result.files[0].message
    )
    again = go(path, "a.mrc", "b.mrc", angpix=0.0, overwrite=True)
    assert [item.status for item in again.files] == ["done", "done"]
    close(mrcfile.read("out/a.mrc"), pixels())


def test_a_pixel_size_of_the_command_beats_the_checkpoints() -> None:
    path = identity_checkpoint(3.0)
    go(path, write(pixels()), angpix=6.0)
    close(mrcfile.read("out/m.mrc"), resample_image(resample_image(pixels(), (30, 45)), SHAPE))


def test_strength_blends_with_the_raw_pixels() -> None:
    path = checkpoint("run")
    go(path, write(pixels()), strength=0.25)
    denoised = Denoiser.from_checkpoint(path, device="cpu").denoise(pixels())
    close(mrcfile.read("out/m.mrc"), 0.25 * denoised + 0.75 * pixels())
    go(path, "m.mrc", strength=0.0, overwrite=True)
    close(mrcfile.read("out/m.mrc"), pixels())


def test_raw_high_frequencies_are_put_back_and_the_rest_is_denoised() -> None:
    path = checkpoint("run", angpix=3.0)
    go(path, write(pixels()), merge_highres=10.0, strength=0.5)
    small = Denoiser.from_checkpoint(path, device="cpu", angpix=0).denoise(resample_image(pixels(), (60, 90)))
    merged = merge_high_resolution(
        resample_image(small, SHAPE), pixels(), pixel_size_angstrom=1.5, resolution_angstrom=10.0
    )
    found = mrcfile.read("out/m.mrc")
    close(found, 0.5 * merged + 0.5 * pixels())
    denoiser = Denoiser.from_checkpoint(path, device="cpu", merge_highres=10.0, strength=0.5)
    close(found, denoiser.denoise(pixels(), pixel_size_angstrom=1.5))


def test_merging_beyond_the_crop_of_an_identity_gives_the_micrograph_back() -> None:
    path = identity_checkpoint(3.0)
    # 10 A is kept by the crop, so every term is either there or put back, but for the noise of the ends.
    go(path, write(pixels()), merge_highres=10.0)
    apart = np.abs(mrcfile.read("out/m.mrc") - pixels()) / 30
    assert apart.max() < 0.2 and apart[20:-20, 20:-20].max() < 0.02


def test_another_strength_or_pixel_size_is_another_result() -> None:
    path = identity_checkpoint(3.0)
    write(pixels())
    assert go(path, "m.mrc").files[0].status == "done"
    assert go(path, "m.mrc").files[0].status == "skipped"
    for change, message in (
        ({"strength": 0.5}, "strength 1, now 0.5"),
        ({"angpix": 0.0}, "angpix 3, now none"),
        ({"merge_highres": 8.0}, "merge_highres none, now 8"),
    ):
        failed = go(path, "m.mrc", **change).files[0]
        assert failed.status == "failed" and message in failed.message


def test_the_journal_tells_the_raw_deviation_and_bad_pixels_are_named() -> None:
    path = identity_checkpoint(3.0)
    broken = pixels()
    broken[7, 9] = np.nan
    result = go(path, write(pixels(), "a.mrc"), write(broken, "b.mrc"))
    lines = [json.loads(line) for line in Path("out/denoise.jsonl").read_text().splitlines()]
    assert lines[0]["sigma_in"] == pytest.approx(float(pixels().std()), rel=1e-4)
    assert lines[0]["sigma_out"] == pytest.approx(float(mrcfile.read("out/a.mrc").std()), rel=1e-3)
    assert "1 of 21780 pixels are NaN or infinite, the first at (y, x) = (7, 9)" in result.files[1].message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"angpix": -1.0}, "--angpix -1"),
        ({"angpix": float("nan")}, "--angpix nan"),
        ({"strength": 1.5}, "--strength 1.5"),
        ({"merge_highres": 0.0}, "--merge-highres 0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DenoiseRequest(("m.mrc",), Path("run"), Path("out"), **change)  # type: ignore[arg-type]


def test_a_checkpoint_with_a_damaged_pixel_size_is_refused() -> None:
    path = checkpoint("run", angpix=3.0)
    record = json.loads((path / "checkpoint.json").read_text())
    (path / "checkpoint.json").write_text(json.dumps({**record, "angpix": -3}))
    with pytest.raises(FormatError, match=r"angpix -3 .allowed: a positive number or null"):
        load_checkpoint(path)


def test_from_halves_to_a_denoised_micrograph_at_one_pixel_size() -> None:
    signal = np.random.default_rng(3).normal(0, 90, SHAPE)
    for axis in (0, 1):
        signal = sum(np.roll(signal, k, axis) for k in range(-4, 5)) / 9
    halves = [(signal + pixels(seed) - 1000).astype(np.float32) for seed in (1, 2)]
    names = [write(half, f"m_{side}.mrc") for half, side in zip(halves, ("EVN", "ODD"), strict=True)]
    convert(
        ConvertRequest(
            (),
            Path("store"),
            pairs="halves",
            even=(names[0],),
            odd=(names[1],),
            angpix=4.5,
            patch_size=16,
            stride=4,
            accept_unproven=True,
            test_split=0,
        )
    )
    config = TrainConfig("unet", {"depth": 1, "width": 8}, epochs=6, lr=0.01, ema=0.9, augment="halves", device="cpu")
    result = train(TrainRequest(Path("store"), config, save=True), lambda event: None)
    kept = load_checkpoint(Path("saved_models"))
    assert kept.angpix == 4.5 and kept.pixel_size_angstrom == 4.5
    assert result.best_loss < result.first_batch_loss
    go(Path("saved_models"), write((halves[0] + halves[1]) / 2, "sum.mrc"))
    found = mrcfile.read("out/sum.mrc")

    def agreement(image: np.ndarray) -> float:
        return float(np.corrcoef(image.ravel(), signal.ravel())[0, 1])

    assert found.shape == SHAPE
    cropped = resample_image(resample_image((halves[0] + halves[1]) / 2, (40, 60)), SHAPE)
    assert agreement(found) > agreement(cropped) + 0.02


def test_orientations_are_asked_for_written_down_and_told_apart(here: Path) -> None:
    path, source = checkpoint("run", angpix=3.0), write(pixels())
    assert go(path, source, tta="on").files[0].status == "done"
    record = json.loads((here / "out" / "denoise.jsonl").read_text().splitlines()[-1])
    assert record["tta"] is True
    with mrcfile.open("out/m.mrc") as result:
        assert b"tta" in b"".join(result.header.label[: result.header.nlabl])
        averaged = np.array(result.data)
    assert go(path, source, tta="on").files[0].status == "skipped"
    assert go(path, source, tta="off").files[0].status == "failed", "made in another way"
    assert go(path, source, tta="off", overwrite=True).files[0].status == "done"
    assert np.abs(mrcfile.read("out/m.mrc") - averaged).max() > 1e-3 * np.ptp(averaged)


def test_a_range_of_pixel_sizes_is_seen_as_it_is_and_what_lies_beyond_is_brought_to_it() -> None:
    path = identity_checkpoint(2.6, angpix_range=[2.0, 5.0])
    sizes = {
        0.4: (19, 28),
        1.3: (60, 90),
        1.9: (88, 132),
        2.0: SHAPE,
        2.6: SHAPE,
        4.0: SHAPE,
        5.0: SHAPE,
        6.0: (145, 216),
    }
    names = [write(pixels(i), f"m{i}.mrc", size) for i, size in enumerate(sizes)]
    result = go(path, *names)
    assert [item.status for item in result.files] == ["done"] * len(sizes)
    for i, small in enumerate(sizes.values()):
        close(mrcfile.read(f"out/m{i}.mrc"), resample_image(resample_image(pixels(i), small), SHAPE))
    assert [bool(item.message) for item in result.files] == [False] * 7 + [True]
    assert "pixel size 6 A, coarser than the 5 A" in result.files[7].message
    with mrcfile.open("out/m0.mrc") as mrc:
        assert str(mrc.get_labels()[-1]).endswith(" 2.6A/px")


@pytest.mark.parametrize(
    ("size", "status", "told"),
    [
        (0.04, "done", "pixel size 0.04 A: the network was tried from 0.4 to 6 A; check"),
        (0.4, "done", ""),
        (6.5, "done", "pixel size 6.5 A: the network was tried from 0.4 to 6 A; check"),
        (20.0, "done", "check that this number is right"),
        (26.0, "failed", "pixel size 26 A, more than 4 times the 5 A that the network works at"),
    ],
)
def test_a_pixel_size_that_can_hardly_be_right_is_named_and_never_padded_without_end(size, status, told) -> None:
    path = identity_checkpoint(2.6, angpix_range=[2.0, 5.0])
    (file,) = go(path, write(pixels(), "m.mrc", size)).files
    assert file.status == status
    assert (told in file.message) if told else not file.message
    # Who wants it so gets it.
    assert go(path, "m.mrc", angpix=0.0, overwrite=True).files[0].status == "done"


def test_the_commands_pixel_size_beats_the_range_and_is_told_when_the_network_does_not_know_it() -> None:
    path = identity_checkpoint(2.6, angpix_range=[2.0, 5.0])
    result = go(path, write(pixels(), "m.mrc", 3.0), angpix=12.0)
    close(mrcfile.read("out/m.mrc"), resample_image(resample_image(pixels(), (30, 45)), SHAPE))
    assert "pixel size 12 A, but the checkpoint was trained at 5 A" in result.files[0].message
    again = go(path, "m.mrc", overwrite=True)
    assert not again.files[0].message
    assert "was made with angpix 2.6 (2-5), now 12" in go(path, "m.mrc", angpix=12.0).files[0].message


def test_a_range_needs_a_pixel_size() -> None:
    path = identity_checkpoint(2.6, angpix_range=[2.0, 5.0])
    result = go(path, write(pixels(), "a.mrc", None))
    assert "its pixel size is not known, and the network works at 2.6 angstrom" in result.files[0].message
