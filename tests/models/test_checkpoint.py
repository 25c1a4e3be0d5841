from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryoplug.errors import FormatError, MissingInputError, StorageError, UsageError
from cryoplug.models import checkpoint as module
from cryoplug.models.checkpoint import Checkpoint, load_checkpoint, rounded, save_checkpoint, validate_checkpoint
from cryoplug.models.registry import CRYO_CNN, RESIDUAL_CNN, UNET, ModelSpec

UNET_CONFIG = {"depth": 1, "width": 4, "outputs": 2}
UNET_SPEC = UNET.configured(UNET_CONFIG)


def a_checkpoint(spec: ModelSpec = CRYO_CNN, seed: int = 0) -> Checkpoint:
    rng = np.random.default_rng(seed)
    weights = {name: rng.standard_normal(shape).astype("f4") for name, shape in spec.weight_shapes().items()}
    return Checkpoint(spec.id, weights, normalize="zscore", pixel_size_angstrom=1.25, details={"epoch": 3})


@pytest.mark.parametrize("spec", [CRYO_CNN, RESIDUAL_CNN], ids=lambda spec: spec.id)
def test_what_is_saved_loads_as_it_was(tmp_path: Path, spec: ModelSpec) -> None:
    saved = a_checkpoint(spec)
    save_checkpoint(tmp_path / "run" / "epoch_0003", saved, 0.0151900349)
    found = load_checkpoint(tmp_path / "run" / "epoch_0003")
    assert found.sha256 == saved.sha256
    assert all(np.array_equal(found.weights[name], saved.weights[name]) for name in saved.weights)
    path = tmp_path / "run" / "epoch_0003"
    assert dataclasses.replace(found, weights={}) == dataclasses.replace(saved, weights={}, path=path)
    assert (path / "loss.txt").read_bytes() == b"  0.01519003\n"
    assert validate_checkpoint(path) == []
    assert found.spec is spec


def test_bins_are_float32_in_c_order_of_out_in_y_x(tmp_path: Path) -> None:
    saved = a_checkpoint()
    save_checkpoint(tmp_path / "epoch_0001", saved, 1.0)
    kernel = np.fromfile(tmp_path / "epoch_0001" / "conv2_weights.bin", "<f4").reshape(16, 16, 3, 3)
    assert np.array_equal(kernel, saved.weights["conv2.weight"])


def test_a_folder_of_nothing_but_bins_loads_with_the_founding_normalization(tmp_path: Path) -> None:
    saved = a_checkpoint(RESIDUAL_CNN)
    save_checkpoint(tmp_path / "epoch_0001", saved, 1.0)
    for name in ("model.safetensors", "checkpoint.json", "loss.txt"):
        (tmp_path / "epoch_0001" / name).unlink()
    found = load_checkpoint(tmp_path / "epoch_0001")
    assert (found.model_id, found.normalize, found.pixel_size_angstrom) == ("residual_cnn", "percentile", None)
    assert found.sha256 == saved.sha256


@pytest.mark.parametrize(
    ("name", "model", "loss"),
    [("cryo_cnn", "cryo_cnn", 0.01519003), ("deep12", "residual_cnn", 0.02045812), ("n2n_real", "residual_cnn", None)],
)
def test_the_founding_weights_load(seed_checkpoints: Path, name: str, model: str, loss: float | None) -> None:
    found = load_checkpoint(seed_checkpoints / name)
    assert found.model_id == model and found.path is not None
    if loss is not None:
        assert module.read_loss(found.path) == loss


def test_a_run_folder_gives_its_epoch_with_the_lowest_loss(tmp_path: Path) -> None:
    for epoch, loss in ((1, 0.5), (2, 0.25), (3, 0.3)):
        save_checkpoint(tmp_path / "run" / f"epoch_{epoch:04d}", a_checkpoint(seed=epoch), loss)
    (tmp_path / "run" / ".epoch_0004.1.cryoplug-partial").mkdir()
    assert load_checkpoint(tmp_path / "run").path == tmp_path / "run" / "epoch_0002"
    assert load_checkpoint(tmp_path).path == tmp_path / "run" / "epoch_0002"
    shutil.copytree(tmp_path / "run", tmp_path / "run2")
    with pytest.raises(FormatError, match=r"holds 2 runs \(run, run2\); name one"):
        load_checkpoint(tmp_path)


def test_a_checkpoint_is_read_back_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.read_bins

    def transposed(folder: Path, spec: ModelSpec, findings: list[object]) -> dict[str, np.ndarray]:
        weights = real(folder, spec, findings)  # type: ignore[arg-type]
        return weights | {"conv2.weight": weights["conv2.weight"].swapaxes(0, 1)}

    monkeypatch.setattr(module, "read_bins", transposed)
    with pytest.raises(StorageError, match="reads back differently"):
        save_checkpoint(tmp_path / "epoch_0001", a_checkpoint(), 1.0)
    assert list(tmp_path.iterdir()) == []


def test_every_problem_is_listed(tmp_path: Path) -> None:
    folder = tmp_path / "epoch_0001"
    save_checkpoint(folder, a_checkpoint(), 1.0)
    (folder / "model.safetensors").unlink()
    (folder / "conv1_bias.bin").unlink()
    (folder / "conv2_weights.bin").write_bytes(b"\0" * 100)
    (folder / "conv3_bias.bin").write_bytes(np.array([np.nan], "<f4").tobytes())
    record = json.loads((folder / "checkpoint.json").read_text())
    (folder / "checkpoint.json").write_text(json.dumps(record | {"normalize": "minmax", "pixel_size_angstrom": -1}))
    with pytest.raises(FormatError) as raised:
        load_checkpoint(folder)
    for part in (
        "conv1_bias.bin: missing",
        "conv2_weights.bin: 100 bytes, but 16x16x3x3 float32 of cryo_cnn are 9216 bytes",
        "conv3.bias: 1 of 1 weights are NaN",
        "normalize 'minmax' (allowed: percentile, zscore, robust, none)",
        "pixel_size_angstrom -1",
    ):
        assert part in str(raised.value)


def test_one_flipped_bit_in_any_weight_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "epoch_0001"
    save_checkpoint(folder, a_checkpoint(), 1.0)
    payload = bytearray((folder / "model.safetensors").read_bytes())
    payload[-3] ^= 1
    (folder / "model.safetensors").write_bytes(payload)
    with pytest.raises(FormatError, match=r"differ; restore one.*damaged"):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.ckpt", "net.pkl"])
def test_a_pickle_is_refused_without_being_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    with pytest.raises(FormatError, match="can run code and are not loaded"):
        load_checkpoint(tmp_path / name)


def test_nothing_there_and_nothing_in_it_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no such folder"):
        load_checkpoint(tmp_path / "nowhere")
    with pytest.raises(FormatError, match="no checkpoint in it"):
        load_checkpoint(tmp_path)
    assert [item.severity for item in validate_checkpoint(tmp_path)] == ["error"]


def test_five_layers_are_no_network_of_ours(tmp_path: Path) -> None:
    for number in range(1, 6):
        (tmp_path / f"conv{number}_weights.bin").write_bytes(b"")
    with pytest.raises(FormatError, match=r"conv1, conv2, conv3, conv4, conv5 .*conv1\.\.conv3 for cryo_cnn"):
        load_checkpoint(tmp_path)


@settings(max_examples=60, deadline=None)
@given(payload=st.binary(max_size=300), name=st.sampled_from(["model.safetensors", "checkpoint.json"]))
def test_any_bytes_give_a_format_error(tmp_path_factory: pytest.TempPathFactory, payload: bytes, name: str) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / name).write_bytes(payload)
    with pytest.raises(FormatError):
        load_checkpoint(folder)


def test_a_safetensors_of_another_shape_or_type_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save

    folder = tmp_path / "epoch_0001"
    saved = a_checkpoint()
    save_checkpoint(folder, saved, 1.0)
    wrong = saved.weights | {"conv1.weight": np.zeros((16, 1, 5, 5), "f4"), "conv1.bias": np.zeros(16)}
    (folder / "model.safetensors").write_bytes(save(wrong))
    found = " ".join(item.message for item in validate_checkpoint(folder))
    assert "conv1.weight is 16x1x5x5, cryo_cnn needs 16x1x3x3" in found
    assert "conv1.bias is float64 (allowed: float32, float16)" in found


def test_half_the_bytes_hold_the_same_weights_and_the_same_hash(tmp_path: Path) -> None:
    saved = rounded(dataclasses.replace(a_checkpoint(UNET_SPEC), model_id="unet", config=UNET_CONFIG))
    for dtype in ("float32", "float16"):
        save_checkpoint(tmp_path / dtype / "epoch_0001", saved, 1.0, dtype=dtype)
    full, half = (load_checkpoint(tmp_path / dtype) for dtype in ("float32", "float16"))
    assert full.sha256 == half.sha256 == saved.sha256
    assert all(array.dtype == np.float32 for array in half.weights.values())
    sizes = [(tmp_path / dtype / "epoch_0001" / "model.safetensors").stat().st_size for dtype in ("float32", "float16")]
    count = sum(array.size for array in saved.weights.values())
    assert sizes[0] - sizes[1] == pytest.approx(2 * count, abs=600), "but for the text of the header"


def test_weights_that_float16_would_round_are_not_kept_in_it(tmp_path: Path) -> None:
    exact = dataclasses.replace(a_checkpoint(UNET_SPEC), model_id="unet", config=UNET_CONFIG)
    with pytest.raises(StorageError, match="reads back differently"):
        save_checkpoint(tmp_path / "epoch_0001", exact, 1.0, dtype="float16")
    large = dataclasses.replace(exact, weights={"output.bias": np.array([7e4], "f4")})
    with pytest.raises(UsageError, match=r"a weight is 70000 .allowed in float16: up to 65504"):
        rounded(large)


@pytest.mark.parametrize(
    "sizes", [[2.0], [5.0, 2.0], [2.7, 5.0], [1.0, 2.0], "2-5", [0, 5], [2.0, float("1e9")], [True, 5], {"low": 2}]
)
def test_a_range_of_pixel_sizes_that_makes_no_sense_is_refused(tmp_path: Path, sizes: object) -> None:
    details = {"angpix": 2.6, "angpix_range": [2.0, 5.0]}
    save_checkpoint(tmp_path / "epoch_0001", dataclasses.replace(a_checkpoint(), details=details), 1.0)
    assert load_checkpoint(tmp_path).angpix_range == (2.0, 5.0)
    path = tmp_path / "epoch_0001" / "checkpoint.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "angpix_range": sizes}))
    with pytest.raises(FormatError, match=r"angpix_range .* with angpix 2.6 .allowed: two pixel sizes"):
        load_checkpoint(tmp_path)


def test_a_range_without_its_angpix_is_refused(tmp_path: Path) -> None:
    saved = dataclasses.replace(a_checkpoint(), details={"angpix_range": [2.0, 5.0]})
    with pytest.raises(StorageError, match="angpix_range"):
        save_checkpoint(tmp_path / "epoch_0001", saved, 1.0)


def test_the_weights_are_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = Checkpoint("cryo_cnn", {"a": np.ones((2, 2), np.float32)})
    first = checkpoint.sha256
    monkeypatch.setattr(hashlib, "sha256", lambda *_: pytest.fail("hashed again"))
    assert checkpoint.sha256 == first
