"""A micrograph unlike the training data is told, and its noise matched; checkpoints without a record change nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cryoplug.core.micrograph import ArrayMicrograph
from cryoplug.core.normalization import fit_normalization
from cryoplug.formats.mrc import write_mrc
from cryoplug.formats.registry import open_micrograph
from cryoplug.inference.delivery import Delivery
from cryoplug.inference.denoiser import Denoiser
from cryoplug.inference.likeness import look
from cryoplug.inference.pipeline import DenoiseJob, run_pipeline
from cryoplug.metrics.baselines import gaussian_blur
from cryoplug.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec
from cryoplug.simulation.micrograph import SimulationSettings, simulate_micrograph
from cryoplug.training.config import TrainConfig
from cryoplug.workflows.convert import ConvertRequest, convert
from cryoplug.workflows.denoise import DenoiseRequest, denoise
from cryoplug.workflows.simulate import SimulateRequest, simulate
from cryoplug.workflows.train import TrainRequest, train, workflow


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    settings = SimulationSettings(size_px=320, pixel_size_angstrom=6)
    simulate(SimulateRequest(folder, count=4, settings=settings))
    return folder


@pytest.fixture(scope="module")
def trained(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    sides = {side: (str(simulated / side),) for side in ("even", "odd")}
    convert(ConvertRequest((), folder / "store", pairs="halves", patch_size=160, stride=160, test_split=0, **sides))
    config = TrainConfig(epochs=1, max_batches=1, batch_size=2, val_split=0.25, device="cpu", threads=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workflow, "_draw_loss_curve", lambda *_: None)
        train(TrainRequest(folder / "store", config, save=True, checkpoint_dir=folder, evaluate=False), lambda _: None)
    return folder / "cryo_cnn"


def messages(inputs: Path, checkpoint: Path, output: Path, **fields: object) -> list[str]:
    request = DenoiseRequest((str(inputs),), checkpoint, output, device="cpu", threads=1, **fields)  # type: ignore[arg-type]
    return [item.message for item in denoise(request).files]


def test_inverted_micrographs_are_told_and_the_others_are_not(simulated: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "inverted").mkdir()
    for path in (simulated / "noisy").glob("*.mrc"):
        with open_micrograph(path) as source:
            pixels = source.read_rows(0, source.shape[0])
        write_mrc(tmp_path / "inverted" / path.name, pixels.max() - pixels, pixel_size_angstrom=6)
    assert messages(simulated / "noisy", trained, tmp_path / "a") == [""] * 4
    told = messages(tmp_path / "inverted", trained, tmp_path / "b")
    assert len(told) == 4
    assert all("unlike the training data: its contrast looks inverted: bright particles" in text for text in told)


def test_a_checkpoint_without_a_record_is_silent(simulated: Path, trained: Path, tmp_path: Path) -> None:
    kept = load_checkpoint(trained)
    assert kept.details["seen"]["micrographs"] == 3
    for name, seen in (("none", None), ("odd", {"mean": "x"})):
        details = {**kept.details, "seen": seen}
        save_checkpoint(tmp_path / name / "epoch_0001", dataclasses.replace(kept, details=details), 0.5)
        with open_micrograph(simulated / "noisy" / "mic_0001.mrc") as source:
            write_mrc(tmp_path / "x.mrc", -source.read_rows(0, source.shape[0]), pixel_size_angstrom=6)
        assert messages(tmp_path / "x.mrc", tmp_path / name, tmp_path / f"{name}.out") == [""]


@pytest.fixture(scope="module")
def field_of_view() -> np.ndarray:
    return simulate_micrograph(SimulationSettings(size_px=1024, pixel_size_angstrom=4.0, seed=1), 0).noisy


@pytest.mark.parametrize("outputs", [1, 2])
def test_the_general_model_names_bright_particles_although_it_has_no_record(field_of_view, outputs) -> None:
    """It tells particles from ice, so it knows dark ones. A network with one output may have learnt anything."""
    config = {"depth": 1, "width": 2, "outputs": outputs}
    checkpoint = Checkpoint("unet", {}, config=config, normalize="robust")
    told = []
    for sign in (1, -1):
        source = ArrayMicrograph((sign * field_of_view).astype(np.float32))
        told.append(look(source, fit_normalization(source, "robust"), checkpoint)[1])
    assert told[0] == []
    assert ["its contrast looks inverted: bright particles" in text for text in told[1]] == [True] * (outputs - 1)
    assert look(source, fit_normalization(source, "robust"), checkpoint, sign=False)[1] == []


@pytest.mark.parametrize("dose", [0.5, 4.0])
@pytest.mark.parametrize("particles", [0, None])
def test_bright_particles_are_never_named_where_they_are_dark_faint_or_absent(
    dose: float, particles: int | None
) -> None:
    for index in range(2):
        settings = SimulationSettings(
            size_px=512, pixel_size_angstrom=3.0, dose_e_per_angstrom2=dose, particles=particles, dirt=True, seed=index
        )
        source = ArrayMicrograph(simulate_micrograph(settings, index).noisy)
        checkpoint = Checkpoint("unet", {}, config={"outputs": 2}, normalize="robust")
        assert look(source, fit_normalization(source, "robust"), checkpoint)[1] == []


def checkpoint_that_saw(pairs: str, noise: list[float] | None) -> Checkpoint:
    level = None if noise is None else 0.85
    seen = {"micrographs": 1, "mean": [0, 0], "sigma": [1, 1], "noise_sigma": noise, "noise_level": level}
    seen["skewness"] = {"4": [-1, 0.1]}
    weights = {name: np.zeros(t.shape, np.float32) for name, t in model_spec("cryo_cnn").build().state_dict().items()}
    return Checkpoint("cryo_cnn", weights, normalize="zscore", details={"pairs": pairs, "seen": seen})


def test_the_noise_of_a_micrograph_is_brought_to_that_of_the_halves_it_was_learnt_from() -> None:
    rng = np.random.default_rng(0)
    relief = 2 * np.sin(np.arange(640) / 40)
    for sigma in (1.0, 3.0):
        image = (100 + 7 * (relief + sigma * rng.standard_normal((640, 640)))).astype(np.float32)
        source = ArrayMicrograph(image)
        plain = fit_normalization(source, "zscore")
        matched, _ = look(source, plain, checkpoint_that_saw("halves", [0.8, 0.9]))
        assert 7 * sigma / matched.scale == pytest.approx(0.85, rel=0.02)
        assert matched.offset == plain.offset
        assert np.allclose(matched.invert(matched.apply(image)), image, atol=1e-3)


def test_noise_is_left_alone_where_nothing_is_known_or_it_is_of_another_kind() -> None:
    rng = np.random.default_rng(0)
    white = ArrayMicrograph((5 + rng.standard_normal((512, 512))).astype(np.float32))
    blurred = ArrayMicrograph(gaussian_blur(white.read_rows(0, 512), 2.0))
    halves = checkpoint_that_saw("halves", [0.8, 0.9])
    mixtures = dataclasses.replace(halves, details={**halves.details, "training": {"mix": 0.5}})
    for source, kind, checkpoint in (
        (white, "zscore", checkpoint_that_saw("clean", [0.8, 0.9])),
        (white, "zscore", checkpoint_that_saw("halves", None)),
        (white, "percentile", halves),
        (white, "none", halves),
        (blurred, "zscore", halves),
        (white, "zscore", mixtures),
    ):
        plain = fit_normalization(source, kind)
        assert look(source, plain, checkpoint)[0] == plain
    assert any(
        "noise of the normalised" in text for text in look(blurred, fit_normalization(blurred, "zscore"), halves)[1]
    )


def test_what_evaluate_measures_is_what_denoise_writes(simulated: Path, trained: Path, tmp_path: Path) -> None:
    path = simulated / "noisy" / "mic_0001.mrc"
    messages(path, trained, tmp_path / "out")
    with open_micrograph(path) as source, open_micrograph(tmp_path / "out" / path.name) as written:
        made = Denoiser.from_checkpoint(trained, device="cpu", threads=1).denoise(source.read_rows(0, 320))
        assert np.array_equal(made, written.read_rows(0, 320))


def test_whole_micrographs_on_a_device_are_looked_at_as_those_in_bands_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    spots = gaussian_blur(rng.random((640, 700)) > 0.999, 4.0)
    image = 50 + 20 * spots / spots.std() + 30 * rng.standard_normal((640, 700))
    write_mrc(tmp_path / "m.mrc", image.astype(np.float32), pixel_size_angstrom=6)
    checkpoint = checkpoint_that_saw("halves", [0.8, 0.9])
    spec = model_spec("cryo_cnn").build(seed=1).state_dict()
    checkpoint = dataclasses.replace(checkpoint, weights={name: tensor.numpy() for name, tensor in spec.items()})
    denoiser = Denoiser(checkpoint, device="cpu", threads=1)
    found: dict[bool, tuple[str, np.ndarray]] = {}
    for whole in (False, True):
        job = DenoiseJob(tmp_path / "m.mrc", tmp_path / f"{whole}.mrc")
        results: list[str] = []
        run_pipeline(
            [job],
            denoiser,
            Delivery(lambda job, result, results=results: results.append(result.message), "test"),
            whole=whole,
        )
        with open_micrograph(job.target) as written:
            found[whole] = results[0], written.read_rows(0, 640)
    assert found[True][0] == found[False][0] and "unlike the training data: its contrast" in found[True][0]
    assert np.allclose(found[True][1], found[False][1], rtol=0, atol=1e-3 * found[False][1].std())
