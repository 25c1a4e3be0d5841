"""`convert --normalize auto`, and the same words in convert, train, denoise and inspect where percentile does not suit."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from cryoplug.formats.mrc import write_mrc
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec
from cryoplug.store.pairs import open_store
from cryoplug.training.config import TrainConfig
from cryoplug.training.progress import Note
from cryoplug.workflows.convert import ConvertRequest, convert
from cryoplug.workflows.denoise import DenoiseRequest, denoise
from cryoplug.workflows.inspect.files import inspect_micrograph
from cryoplug.workflows.inspect.stores import inspect_store
from cryoplug.workflows.train import TrainRequest, train

BINS = ("noisy_train.bin", "clean_train.bin", "noisy_test.bin", "clean_test.bin")


def grey(kind: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(40 + 4 * np.add.outer(np.sin(np.arange(90) / 6), np.cos(np.arange(110) / 7))).astype(
        np.float32
    )
    return {
        "counts": counts,
        "zero": counts - counts.mean(),
        "high": 6800 + (counts - counts.mean()) / counts.std() * 9,
        "negative": counts - 1000,
    }[kind].astype(np.float32)


def folder_of(path: Path, *kinds: str) -> Path:
    path.mkdir()
    for number, kind in enumerate(kinds):
        write_mrc(path / f"m{number}.mrc", grey(kind, number), pixel_size_angstrom=1.5)
    return path


def request(inputs: Path, output: Path, **named: object) -> ConvertRequest:
    return ConvertRequest((str(inputs),), output, patch_size=40, stride=40, **named)  # type: ignore[arg-type]


def content(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in BINS if (folder / name).exists()]


@pytest.mark.parametrize("kind", ["counts", "zero", "high", "negative"])
def test_the_normalization_follows_from_the_data_is_said_and_recorded(tmp_path: Path, kind: str) -> None:
    folder = folder_of(tmp_path / "in", kind, kind, kind)
    said: list[str] = []
    result = convert(request(folder, tmp_path / "s"), note=said.append)
    wanted = "percentile" if kind == "counts" else "zscore"
    assert result.details["normalize"] == wanted
    assert len(said) == 1 and said[0].startswith(f"normalize: {wanted}, because ")
    with open_store(tmp_path / "s", patch_size=40) as store:
        assert store.manifest is not None and store.manifest.normalize == wanted
    convert(request(folder, tmp_path / "named", normalize=wanted))
    assert content(tmp_path / "named") == content(tmp_path / "s"), "to the byte"
    assert [item.message for item in result.files] == [""] * 3
    again = convert(request(folder, tmp_path / "s", normalize="auto"), note=said.append)
    assert {item.status for item in again.files} == {"skipped"}


def test_one_micrograph_of_another_kind_decides_for_the_whole_set(tmp_path: Path) -> None:
    said: list[str] = []
    folder = folder_of(tmp_path / "in", "counts", "counts", "zero", "counts")
    convert(request(folder, tmp_path / "s"), note=said.append)
    assert "m2.mrc does not hold counts from zero up" in said[0]


def test_what_cannot_be_read_decides_nothing(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", "zero", "zero")
    (folder / "m0.mrc").write_bytes(b"no micrograph")
    result = convert(request(folder, tmp_path / "s"))
    assert result.details["normalize"] == "zscore" and [item.status for item in result.files] == ["failed", "done"]


def test_a_crop_is_looked_at_as_a_crop(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    many = np.random.default_rng(0).poisson(1500, (400, 400)).astype(np.float32)
    write_mrc(tmp_path / "in" / "m.mrc", many, pixel_size_angstrom=1.1)
    assert convert(request(tmp_path / "in", tmp_path / "a")).details["normalize"] == "percentile"
    assert convert(request(tmp_path / "in", tmp_path / "b", angpix=4.4)).details["normalize"] == "zscore"


def test_halves_and_clean_partners_keep_zscore(tmp_path: Path) -> None:
    even, odd = folder_of(tmp_path / "even", "counts"), tmp_path / "odd"
    odd.mkdir()
    write_mrc(odd / "m0.mrc", np.random.default_rng(9).poisson(grey("counts", 0)).astype(np.float32))
    for named in ({"pairs": "halves", "even": (str(even),), "odd": (str(odd),)},):
        result = convert(ConvertRequest((), tmp_path / "h", patch_size=40, stride=40, accept_unproven=True, **named))  # type: ignore[arg-type]
        assert result.details["normalize"] == "zscore"
    result = convert(request(even, tmp_path / "c", pairs="clean", clean=(str(odd),)))
    assert result.details["normalize"] == "zscore"


def shape_of(text: str) -> str:
    """Return a remark without its numbers."""
    return re.sub(r"\d[\d.]*", "N", text)


@pytest.mark.parametrize("kind", ["zero", "high"])
def test_convert_train_denoise_and_inspect_say_the_same_words(tmp_path: Path, kind: str) -> None:
    folder = folder_of(tmp_path / "in", kind, kind, kind)
    made = convert(request(folder, tmp_path / "s", normalize="percentile"))
    (of_convert,) = {shape_of(item.message) for item in made.files}
    assert "percentile normalization" in of_convert and "use convert --normalize zscore" in of_convert
    notes: list[str] = []
    config = TrainConfig(epochs=1, batch_size=2, val_split=0.34, device="cpu", threads=1, patch_size=40)
    train(
        TrainRequest(tmp_path / "s", config),
        lambda event: notes.append(event.text) if isinstance(event, Note) else None,
    )
    assert of_convert in map(shape_of, notes)
    weights = {name: tensor.numpy() for name, tensor in model_spec("cryo_cnn").build(seed=1).state_dict().items()}
    save_checkpoint(tmp_path / "run" / "epoch_0001", Checkpoint("cryo_cnn", weights), 0.5)
    for number, named in enumerate(({}, {"angpix": 2.0})):
        asked = DenoiseRequest((str(folder),), tmp_path / "run", tmp_path / f"out{number}", device="cpu", **named)  # type: ignore[arg-type]
        for item in denoise(asked).files:
            assert of_convert in shape_of(item.message)
    findings = inspect_store(tmp_path / "s").findings
    assert of_convert in [shape_of(item.message) for item in findings if item.field == "train"]


def test_nobody_says_it_of_counts(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", "counts", "counts", "counts")
    convert(request(folder, tmp_path / "s"))
    assert not inspect_store(tmp_path / "s").findings
    assert inspect_micrograph(folder / "m0.mrc").summary["grey_scale"] == "counts from zero up"


def test_hot_pixels_do_not_reach_a_store_except_of_the_founding_recipe(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for kind, normalize in (("zero", "zscore"), ("counts", "percentile")):
        pixels = grey(kind, 0)
        pixels[20, 30] = 5000
        write_mrc(tmp_path / "in" / "m.mrc", pixels)
        result = convert(request(tmp_path / "in", tmp_path / kind, normalize=normalize, pairs="noise"))
        assert ("1 hot pixel was replaced" in result.files[0].message) == (normalize == "zscore")
        clean = np.fromfile(tmp_path / kind / "clean_train.bin", "<f4").reshape(-1, 40, 40)
        assert (clean[0, 20, 30] == clean.max()) == (normalize == "percentile")
    assert inspect_micrograph(tmp_path / "in" / "m.mrc").summary["hot_pixels"] == 1
