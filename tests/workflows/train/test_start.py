"""Laws of ``train --init``: the network and its options come from the checkpoint, and what it cannot learn from is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryoplug.cli.main import run as command_line
from cryoplug.core.micrograph import ArrayMicrograph
from cryoplug.core.normalization import fit_normalization
from cryoplug.errors import UsageError
from cryoplug.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cryoplug.models.one_output import image_alone
from cryoplug.models.registry import UNET
from cryoplug.models.shipped import start_of
from cryoplug.store.manifest import Manifest, MicrographEntry
from cryoplug.store.pairs import create_store
from cryoplug.training.config import TrainConfig
from cryoplug.training.progress import Event
from cryoplug.workflows.train import TrainRequest, TrainResult, train

pytestmark = pytest.mark.usefixtures("no_pictures")

SIDE = 24
CONFIG = TrainConfig(epochs=2, lr=1e-9, batch_size=4, val_split=0.5, device="cpu", threads=1)


def store(
    folder: Path, *, normalize: str = "zscore", size: float | None = 3.0, pairs: str = "halves", side: int = SIDE
) -> Path:
    rng = np.random.default_rng(0)
    path = folder / f"store-{normalize}-{size}-{pairs}-{side}"
    with create_store(path, Manifest((side, side), "float32", pairs, normalize, 0, side)) as writer:
        for number in range(4):
            for place in range(2):
                common = np.cumsum(rng.standard_normal((side, side)), axis=1) / 8
                even, odd = (common + rng.standard_normal((2, side, side))).astype("<f4")
                writer.append("train", even, odd, (0, place * side))
            writer.acknowledge(MicrographEntry(f"m{number}", "train", (side, 2 * side), size, {"kind": "none"}))
        writer.finish()
    return path


def run(data: Path, out: Path | None = None, *, events: list[Event] | None = None, **changes: Any) -> TrainResult:
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    config = dataclasses.replace(CONFIG, **{key: value for key, value in changes.items() if key in fields})
    others = {key: value for key, value in changes.items() if key not in fields}
    request = TrainRequest(
        data, config, save=out is not None, checkpoint_dir=out or Path("unused"), evaluate=False, **others
    )
    return train(request, (events if events is not None else []).append)


def test_general_means_the_small_general_model(general_model: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    result = run(store(tmp_path), tmp_path / "out", init=Path("general"), events=events)
    start, found = load_checkpoint(start_of("general")), load_checkpoint(tmp_path / "out")
    assert result.checkpoint is not None and result.checkpoint.parent == tmp_path / "out" / "unet"
    # At a learning rate of nothing the weights are those of the start.
    assert all(np.allclose(found.weights[name], start.weights[name], atol=1e-6) for name in start.weights)
    assert (found.config, found.details["training"]["init"]) == (start.config, start.sha256)
    assert found.angpix == 3.0 and found.angpix_range is None
    assert next(event.text for event in events) == f"starting from the small general model sha256:{start.sha256[:12]}"


def test_a_network_of_two_outputs_is_trained_further_as_a_network_of_its_image(
    general_model: Path, tmp_path: Path
) -> None:
    events: list[Event] = []
    run(store(tmp_path), tmp_path / "out", init=general_model, events=events)
    start, found = load_checkpoint("general"), load_checkpoint(tmp_path / "out")
    assert found.spec.outputs == ("image",)
    assert found.config == {name: value for name, value in start.config.items() if name != "outputs"}
    sliced = image_alone(start).weights
    assert all(np.allclose(found.weights[name], sliced[name], atol=1e-6) for name in sliced)
    assert found.details["training"]["init"] == start.sha256, "the hash of the whole model, not of the part"
    assert (found.normalize, found.is_general) == ("zscore", False)
    texts = [event.text for event in events]
    assert f"starting from {general_model} sha256:{start.sha256[:12]}; its output image" in texts[0]


def test_it_is_evaluated_at_the_end_and_denoises_from_then_on(general_model: Path, tmp_path: Path) -> None:
    from cryoplug.inference.denoiser import Denoiser

    # Of halves that were not mixed, denoise would match the noise of their sum besides.
    data = store(tmp_path, side=64, pairs="clean")
    request = TrainRequest(data, CONFIG, save=True, checkpoint_dir=tmp_path / "out", init=Path("general"))
    result = train(request, lambda event: None)
    assert result.evaluation is not None and result.evaluation.truth
    image = np.random.default_rng(0).normal(0, 1, (80, 96)).astype(np.float32)
    denoiser = Denoiser.from_checkpoint(tmp_path / "out", device="cpu")
    start = Denoiser.from_checkpoint(start_of("general"), device="cpu", normalize="zscore")
    # Weights that have hardly moved give what the start gives, at the pixel size of the store.
    made, wanted = (one.denoise(image, pixel_size_angstrom=3.0) for one in (denoiser, start))
    assert np.abs(made - wanted).max() < 1e-3 * np.ptp(wanted)


def test_a_second_run_goes_on_only_from_the_same_start(general_model: Path, tmp_path: Path) -> None:
    data = store(tmp_path)
    run(data, tmp_path / "out", init=Path("general"))
    assert run(data, tmp_path / "out", init=Path("general")).already_finished
    more = run(data, tmp_path / "out", init=Path("general"), epochs=3, resume=True)
    assert len(more.epochs) == 3
    with pytest.raises(UsageError, match="init was"):
        run(data, tmp_path / "out", init=more.checkpoint)
    with pytest.raises(UsageError, match="init was"):
        run(data, tmp_path / "out", model="unet", model_options=dict(load_checkpoint(tmp_path / "out").config))


def test_any_checkpoint_brings_its_network_along(tmp_path: Path) -> None:
    config = {"depth": 1, "width": 2}
    weights = {name: tensor.numpy() for name, tensor in UNET.build(seed=3, config=config).state_dict().items()}
    save_checkpoint(tmp_path / "epoch_0001", Checkpoint("unet", weights, config, "zscore"), 0.5)
    run(store(tmp_path, size=1.1), tmp_path / "out", init=tmp_path / "epoch_0001")
    found = load_checkpoint(tmp_path / "out")
    assert found.config == config and found.angpix is None, "a network without a range takes any pixel size"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalize": "percentile"}, "by robust, but those of this store are by percentile; .*--normalize zscore or"),
        (
            {"size": 1.3},
            r"knows pixel sizes of 2 to 5 A, but m0 of this store has 1\.3 A; convert them with --angpix 2\.6",
        ),
        ({"size": 6.0}, "has 6 A; convert them with --angpix"),
        ({"size": None}, "has an unknown one; convert them with --angpix 2.6 and --pixel-size"),
    ],
)
def test_a_store_that_the_general_model_has_learnt_nothing_of_is_refused(
    general_model: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run(store(tmp_path, **changes), init=Path("general"))


@pytest.mark.parametrize("size", [1.99, 2.0, 2.6, 5.0, 5.04])
def test_any_pixel_size_of_its_range_will_do(general_model: Path, tmp_path: Path, size: float) -> None:
    assert run(store(tmp_path, size=size, normalize="robust", pairs="clean"), init=Path("general")).epochs


def test_the_command_fills_in_a_rate_and_says_where_it_starts(
    general_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [store(tmp_path), "--init", "general", "--epochs", 1, "--save", "--checkpoint-dir", tmp_path / "out"]
    words += ["--device", "cpu", "--val-split", 0.5, "--no-evaluation"]
    assert command_line(["train", *map(str, words)]) == 0
    assert "starting from the small general model" in capsys.readouterr().err
    record = json.loads((tmp_path / "out" / "unet" / "run.json").read_text())["config"]
    assert (record["lr"], record["schedule"], record["mix"], record["weight_decay"]) == (1e-3, "cosine", 0.5, 0.01)
    assert command_line(["train", *map(str, words), "--model", "cryo_cnn"]) == 2
    assert "--init general: holds unet, but --model is cryo_cnn" in capsys.readouterr().err


def test_a_folder_of_that_name_is_another_start(
    general_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = {"depth": 1, "width": 2}
    weights = {name: tensor.numpy() for name, tensor in UNET.build(seed=3, config=config).state_dict().items()}
    save_checkpoint(tmp_path / "general" / "epoch_0001", Checkpoint("unet", weights, config, "zscore"), 0.5)
    words = ["train", str(store(tmp_path)), "--epochs", "1", "--device", "cpu", "--val-split", "0.5", "--init"]
    for name, hashed in (("./general", "general/epoch_0001"), ("general", start_of("general"))):
        assert command_line([*words, name]) == 0
        sha256 = load_checkpoint(hashed).sha256
        assert f"sha256:{sha256[:12]}" in capsys.readouterr().err


def test_without_a_general_model_it_is_said(
    no_general_model: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line(["train", str(store(tmp_path)), "--init", "general"]) == 2
    assert "this build of cryoplug has no general model" in capsys.readouterr().err


@pytest.mark.parametrize("mean", [0.0, 6800.0])
@pytest.mark.parametrize("contrast", [0.0, 0.5, 1.0])
def test_zscore_and_robust_give_a_network_the_same_scale_on_plain_micrographs(mean: float, contrast: float) -> None:
    """Noise with particles darker than it: what a store of zscore teaches, denoise applies by zscore, too."""
    rng = np.random.default_rng(0)
    pixels = rng.normal(0, 1, (512, 512))
    y, x = np.ogrid[:512, :512]
    for _ in range(60):
        cy, cx = rng.integers(0, 512, 2)
        pixels -= contrast * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * 12.0**2))
    source = ArrayMicrograph((mean + 9 * pixels).astype(np.float32))
    zscore, robust = (fit_normalization(source, kind) for kind in ("zscore", "robust"))
    assert zscore.scale == pytest.approx(robust.scale, rel=0.1)
    assert abs(zscore.offset - robust.offset) < 0.1 * robust.scale
