"""The general model and its two targets, on every road to a denoised micrograph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

from cryoplug.cli.main import run as command_line
from cryoplug.core.results import BatchResult
from cryoplug.errors import UsageError
from cryoplug.formats.mrc_writer import write_mrc
from cryoplug.inference.delivery import Delivery
from cryoplug.inference.denoiser import Denoiser
from cryoplug.inference.messages import DenoiseJob
from cryoplug.inference.pipeline import run_pipeline
from cryoplug.inference.target import DEFAULT_TARGET, TARGETS
from cryoplug.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec
from cryoplug.workflows.denoise import DenoiseRequest, denoise
from cryoplug.workflows.evaluate import EvaluateRequest, evaluate

pytestmark = pytest.mark.usefixtures("no_pictures")

SHAPE = (150, 206)
GENERAL = Path("general")


@pytest.fixture(autouse=True)
def here(general_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pixels(seed: int = 0, mean: float = 6800.0) -> np.ndarray:
    """A grey scale far from zero, with an edge of gold."""
    image = np.random.default_rng(seed).normal(mean, 9, SHAPE).astype(np.float32)
    image[:12] -= 60
    return image


def write(image: np.ndarray, name: str = "m.mrc", size: float | None = 1.3) -> str:
    write_mrc(Path(name), image, pixel_size_angstrom=size)
    return name


def go(*inputs: str, checkpoint: Path = GENERAL, **named: Any) -> BatchResult:
    return denoise(DenoiseRequest(inputs, checkpoint, Path("out"), device="cpu", threads=2, **named))


def of_one_output() -> Path:
    weights = {name: tensor.numpy() for name, tensor in model_spec("cryo_cnn").build(seed=1).state_dict().items()}
    save_checkpoint(Path("one") / "epoch_0001", Checkpoint("cryo_cnn", weights, normalize="zscore"), 0.5)
    return Path("one")


def test_the_shortest_command_denoises_and_says_by_what(capsys: pytest.CaptureFixture[str]) -> None:
    write(pixels())
    assert command_line(["denoise", "m.mrc", "-o", "out", "--device", "cpu"]) == 0
    sha256 = load_checkpoint("general").sha256
    said = capsys.readouterr().err
    head = f"general model sha256:{sha256[:12]} writes the {DEFAULT_TARGET}"
    line = f"{head}; it works at 2.6 A/px, or at the micrograph's own 2 to 5 A/px"
    assert said.count("general model") == 1 and line in said
    assert "./general" not in said
    with mrcfile.open("out/m.mrc") as mrc:
        assert f"unet sha256:{sha256[:8]}" in str(mrc.get_labels()[-1])
    record = json.loads(Path("out/denoise.jsonl").read_text().splitlines()[0])
    assert (record["checkpoint_sha256"], record["target"], record["normalize"]) == (sha256, DEFAULT_TARGET, "robust")


def test_a_folder_of_its_name_is_told_and_reached_by_a_path(capsys: pytest.CaptureFixture[str]) -> None:
    write(pixels())
    of_one_output().rename("general")
    assert command_line(["denoise", "m.mrc", "-o", "a", "--checkpoint", "general", "--device", "cpu"]) == 0
    assert "the folder of that name here is ./general" in capsys.readouterr().err
    assert command_line(["denoise", "m.mrc", "-o", "b", "--checkpoint", "./general", "--device", "cpu"]) == 0
    assert "general model" not in capsys.readouterr().err
    assert "the general model" in Path("a/report.html").read_text()
    page = Path("b/report.html").read_text()
    assert "the general model" not in page and str(Path("general/epoch_0001").resolve()) in page
    with mrcfile.open("b/m.mrc") as mrc:
        assert "cryo_cnn" in str(mrc.get_labels()[-1])


def test_a_build_without_it_says_what_to_give(
    no_general_model: None, capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    write(pixels())
    write(pixels(1), "clean.mrc")
    for command in (["denoise", "m.mrc", "-o", "out"], ["evaluate", "m.mrc", "--clean", "clean.mrc", "-o", "out"]):
        assert command_line(command) == 2
        assert "this build of cryoplug has no general model; give --checkpoint" in capsys.readouterr().err
        assert not Path("out").exists()


def test_a_micrograph_of_unknown_pixel_size_is_refused_and_the_option_that_states_it_is_named() -> None:
    (failed,) = go(write(pixels(), size=None)).files
    assert failed.status == "failed" and "--pixel-size" in failed.message
    with pytest.raises(UsageError, match="pixel_size_angstrom"):
        Denoiser.from_checkpoint(device="cpu").denoise(pixels())


@pytest.mark.parametrize("size", [0.4, 1.3, 2.6, 4.0, 6.0])
@pytest.mark.parametrize("target", TARGETS)
def test_all_roads_give_the_same(target: str, size: float) -> None:
    name = write(pixels(), size=size)
    result = go(name, target=target)
    assert result.files[0].status == "done", result.files[0].message
    by_bands = mrcfile.read("out/m.mrc")
    denoiser = Denoiser.from_checkpoint("general", device="cpu", target=target)
    in_memory = denoiser.denoise(pixels(), pixel_size_angstrom=size)
    finished = []
    assert run_pipeline(
        [DenoiseJob(Path(name), Path("whole.mrc"), size)],
        denoiser,
        Delivery(lambda job, outcome: finished.append(outcome.status), "whole"),
        whole=True,
    )
    assert finished == ["done"]
    reach = float(np.ptp(by_bands))
    for other in (in_memory, mrcfile.read("whole.mrc")):
        assert other.shape == SHAPE
        assert np.abs(other - by_bands).max() < 1e-4 * reach + 2 * np.spacing(np.float32(6900))


def test_the_two_targets_are_two_images_at_one_grey_level() -> None:
    name, image = write(pixels()), pixels()
    made = {}
    for target in TARGETS:
        go(name, target=target, overwrite=True)
        made[target] = mrcfile.read("out/m.mrc").astype(np.float64)
        sigma = image.std()
        assert abs(made[target].mean() - image.mean(dtype=np.float64)) < 0.1 * sigma
    assert np.corrcoef(made["image"].ravel(), made["particles"].ravel())[0, 1] < 0.99


@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_particles_have_the_scale_of_the_micrograph(mean: float) -> None:
    denoiser = Denoiser.from_checkpoint("general", device="cpu", target="particles")
    plain, tenfold = (
        denoiser.denoise(factor * pixels(mean=mean), pixel_size_angstrom=3.0).astype(np.float64) for factor in (1, 10)
    )
    np.testing.assert_allclose(tenfold, 10 * plain, rtol=1e-5, atol=1e-4 * float(np.ptp(tenfold)))


def test_halves_take_the_target_too() -> None:
    even, odd = pixels(1, mean=50.0), pixels(2, mean=50.0)
    signal = 30 * np.sin(np.arange(SHAPE[1]) / 6)[None] * np.cos(np.arange(SHAPE[0]) / 5)[:, None]
    write((even + signal).astype(np.float32), "x_EVN.mrc", 3.0)
    write((odd + signal).astype(np.float32), "x_ODD.mrc", 3.0)
    made = {}
    for target in TARGETS:
        result = go("x_EVN.mrc", "x_ODD.mrc", halves=True, target=target, overwrite=True)
        assert [item.status for item in result.files] == ["done"], result.files[0].message
        with mrcfile.open(result.files[0].output) as mrc:
            made[target] = mrc.data.astype(np.float64)
            assert ("particles" in str(mrc.get_labels()[-1])) == (target == "particles")
        both = (even + odd + 2 * signal).astype(np.float64)
        assert abs(made[target].mean() - both.mean()) < 0.1 * both.std()
    assert np.abs(made["image"] - made["particles"]).max() > 1


@pytest.mark.parametrize("side", [48, 300])
@pytest.mark.parametrize("target", TARGETS)
def test_each_section_of_a_stack_comes_out_as_it_would_alone(target: str, side: int) -> None:
    images = np.stack([pixels(seed, mean=50.0)[: min(side, SHAPE[0]), :side] for seed in range(3)])
    with mrcfile.new("s.mrcs") as file:
        file.set_data(images)
        file.set_image_stack()
        file.voxel_size = 3.0
    assert [item.status for item in go("s.mrcs", target=target).files] == ["done"]
    together = mrcfile.read("out/s.mrcs")
    denoiser = Denoiser.from_checkpoint(device="cpu", target=target)
    for image, made in zip(images, together, strict=True):
        alone = denoiser.denoise(image, pixel_size_angstrom=3.0)
        np.testing.assert_allclose(made, alone, atol=1e-4 * float(np.ptp(alone)), rtol=0)


def test_results_of_another_target_are_redone_only_when_asked() -> None:
    name = write(pixels())
    assert go(name, target="image").files[0].status == "done"
    assert go(name, target="image").files[0].status == "skipped"
    (refused,) = go(name, target="particles").files
    assert refused.status == "failed" and "was made with target image, now particles" in refused.message
    assert go(name, target="particles", overwrite=True).files[0].status == "done"
    with mrcfile.open("out/m.mrc") as mrc:
        assert " particles" in str(mrc.get_labels()[-1])


def test_a_checkpoint_of_one_output_has_no_particles(capsys: pytest.CaptureFixture[str]) -> None:
    name, path = write(pixels()), of_one_output()
    words = ["denoise", name, "-o", "out", "--checkpoint", str(path), "--target", "particles"]
    assert command_line(words) == 2
    said = capsys.readouterr().err
    assert "--target particles" in said and "gives the image only; leave --target out" in said
    assert not Path("out").exists()
    assert go(name, checkpoint=path, target="image").files[0].status == "done"


def test_evaluate_takes_it_too_and_records_the_target() -> None:
    truth = (6800 + 20 * np.sin(np.arange(SHAPE[1]) / 6)[None] * np.ones((SHAPE[0], 1))).astype(np.float32)
    noisy = truth + np.random.default_rng(0).normal(0, 9, SHAPE).astype(np.float32)
    write(noisy, "noisy.mrc", 3.0)
    write(truth, "clean.mrc", 3.0)
    notes: list[str] = []
    for target in TARGETS:
        result = evaluate(
            EvaluateRequest(
                output=Path(f"evaluation-{target}"),
                inputs=("noisy.mrc",),
                clean=("clean.mrc",),
                device="cpu",
                threads=2,
                target=target,
            ),
            note=notes.append,
        )
        assert result.exit_code == 0, result.files
        record = json.loads(Path(f"evaluation-{target}/evaluation.json").read_text())
        assert (record["checkpoint"], record["target"], record["normalize"]) == ("general", target, "robust")
    assert [text.split(";")[0].split()[-1] for text in notes if text.startswith("general model")] == list(TARGETS)


def test_gold_over_a_tenth_and_hot_pixels_change_little_elsewhere() -> None:
    """Of the rest of the micrograph, beyond what the network looks at: its contrast changes by no more than the scale."""
    clean = np.random.default_rng(0).normal(100, 9, SHAPE).astype(np.float32)
    dirty = clean.copy()
    dirty[:15] -= 900.0
    dirty[140, 30], dirty[100, 200] = 6e4, -6e4
    denoiser = Denoiser.from_checkpoint(device="cpu")
    plain, found = (denoiser.denoise(image, pixel_size_angstrom=3.0) for image in (clean, dirty))
    part = np.s_[60:90, 60:170]
    # The ground differs by the mean that is kept, of gold and of ice.
    plain, found = (image[part] - image[part].mean() for image in (plain, found))
    assert np.corrcoef(plain.ravel(), found.ravel())[0, 1] > 0.95
    assert 0.7 < found.std() / plain.std() < 1.4
