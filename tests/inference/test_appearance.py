"""A micrograph unlike the training data is told, whatever the bands; checkpoints without a record stay silent."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cryoplug.core.micrograph import ArrayMicrograph
from cryoplug.core.normalization import fit_normalization
from cryoplug.formats.mrc import write_mrc
from cryoplug.formats.registry import open_micrograph
from cryoplug.inference.appearance import Sampler
from cryoplug.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec
from cryoplug.simulation.micrograph import SimulationSettings
from cryoplug.training.config import TrainConfig
from cryoplug.workflows import train as workflow
from cryoplug.workflows.convert import ConvertRequest, convert
from cryoplug.workflows.denoise import DenoiseRequest, denoise
from cryoplug.workflows.simulate import SimulateRequest, simulate
from cryoplug.workflows.train import TrainRequest, train


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


@pytest.mark.parametrize("height", [1, 7, 100, 700])
def test_bands_of_any_height_give_the_same_windows(height: int) -> None:
    rng = np.random.default_rng(0)
    image = (rng.standard_normal((700, 900)) + np.linspace(0, 9, 900)).astype(np.float32)
    seen = {"micrographs": 1, "mean": [40, 41], "sigma": [1, 1], "noise_sigma": None, "skewness": {"4": [-1, 0.1]}}
    weights = {name: np.zeros(t.shape, np.float32) for name, t in model_spec("cryo_cnn").build().state_dict().items()}
    checkpoint = Checkpoint("cryo_cnn", weights, details={"seen": seen})
    sampler, whole = Sampler(checkpoint, image.shape), Sampler(checkpoint, image.shape)
    whole.add(0, image)
    for start in range(0, 700, height):
        sampler.add(start, image[start : start + height])
    normalization = fit_normalization(ArrayMicrograph(image), "zscore")
    assert sampler.remarks(normalization) == whole.remarks(normalization) != []
