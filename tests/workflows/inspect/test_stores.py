"""Inspect of stores and bare bins: counts, sizes, copies, checksums, unfinished converts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cryoplug.cli.main import run
from cryoplug.formats.mrc import write_mrc
from cryoplug.workflows.inspect import Inspection, inspect_path


def messages(inspection: Inspection, *severities: str) -> str:
    wanted = severities or ("error", "warning")
    return "\n".join(f"{item.field}: {item.message}" for item in inspection.findings if item.severity in wanted)


def bare_bins(folder: Path, noisy: np.ndarray, clean: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    noisy.astype("<f4").tofile(folder / "noisy_train.bin")
    clean.astype("<f4").tofile(folder / "clean_train.bin")
    return folder


def patches(count: int = 5, side: int = 16, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, side, side)).astype(np.float32)


def test_sound_bare_bins_are_counted_and_measured(tmp_path: Path) -> None:
    clean = patches()
    noisy = clean + 0.5 * patches(seed=1)
    folder = bare_bins(tmp_path / "bins", noisy, clean)
    for path in (folder, folder / "noisy_train.bin"):
        found = inspect_path(path, patch_size=16)
        assert (found.kind, found.wrong) == ("store", False), messages(found)
        train = found.summary["train"]
        assert train["pairs"] == 5
        assert train["rmse_noisy_clean"] == pytest.approx(float(np.sqrt(np.mean((noisy - clean) ** 2))), rel=1e-5)
        assert train["correlation_noisy_clean"] == pytest.approx(np.corrcoef(noisy.ravel(), clean.ravel())[0, 1])
        assert found.summary["size_bytes"]["noisy_train.bin"] == noisy.nbytes


def test_unequal_counts_are_an_error_with_both_numbers(tmp_path: Path) -> None:
    found = inspect_path(bare_bins(tmp_path / "bins", patches(5), patches(3)), patch_size=16)
    assert "5" in messages(found, "error")
    assert "3" in messages(found, "error")


def test_bin_of_the_wrong_size_is_an_error_that_names_the_flag(tmp_path: Path) -> None:
    found = inspect_path(bare_bins(tmp_path / "bins", patches(), patches()), patch_size=15)
    assert "--patch-size" in messages(found, "error")


def test_copies_in_place_of_pairs_are_an_error(tmp_path: Path) -> None:
    found = inspect_path(bare_bins(tmp_path / "bins", patches(), patches()), patch_size=16)
    assert "noisy equals clean in 5 of 5" in messages(found, "error")


def test_not_finite_patches_are_an_error_that_names_them(tmp_path: Path) -> None:
    noisy = patches()
    noisy[2, 1, 1] = np.nan
    found = inspect_path(bare_bins(tmp_path / "bins", noisy, patches(seed=1)), patch_size=16)
    assert "patch 2" in messages(found, "error")
    assert found.summary["train"]["patches_not_finite"] == 1


def convert(folder: Path, *options: str) -> Path:
    for number in range(2):
        pixels = np.abs(np.random.default_rng(number).normal(10.0, 2.0, (64, 48))).astype(np.float32)
        write_mrc(folder / f"m{number}.mrc", pixels, pixel_size_angstrom=1.5)
    inputs = [str(folder / f"m{number}.mrc") for number in range(2)]
    arguments = ["convert", *inputs, "-o", str(folder / "store"), "--patch-size", "32", "--stride", "16", *options]
    assert run(arguments) == 0
    return folder / "store"


@pytest.mark.parametrize("backend", ["bin", "hdf5"])
def test_converted_store_shows_its_manifest(tmp_path: Path, backend: str) -> None:
    found = inspect_path(convert(tmp_path, "--format", backend))
    assert not found.wrong, messages(found)
    assert found.summary["manifest"] is True
    assert (found.summary["pairs"], found.summary["normalize"]) == ("noise", "percentile")
    assert found.summary["patch_shape"] == [32, 32]
    assert found.summary["train"]["pairs"] > 0


def test_unfinished_convert_says_so(tmp_path: Path) -> None:
    store = convert(tmp_path)
    for name in ("noisy_train.bin", "clean_train.bin", "dataset.json"):
        (store / name).rename(store / f".{name}.cryoplug-partial")
    for name in ("noisy_test.bin", "clean_test.bin"):
        (store / name).unlink(missing_ok=True)
    found = inspect_path(store)
    assert found.kind == "store"
    assert "convert" in messages(found)


def test_one_changed_byte_of_a_store_is_found_when_it_is_verified(tmp_path: Path) -> None:
    store = convert(tmp_path)
    path = store / "clean_train.bin"
    payload = bytearray(path.read_bytes())
    payload[-3] ^= 1
    path.write_bytes(payload)
    assert not inspect_path(store).wrong
    found = inspect_path(store, verify=True)
    assert "checksum" in messages(found, "error")
    assert found.summary["checksums"] == "1 wrong"


def test_inspecting_changes_nothing(tmp_path: Path) -> None:
    store = convert(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))}
    for path in (store, tmp_path / "m0.mrc"):
        inspect_path(path)
    assert {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))} == before


def test_one_bad_pixel_among_many_patches_is_found(tmp_path: Path) -> None:
    noisy = patches(200)
    noisy[137, 3, 4] = np.nan
    found = inspect_path(bare_bins(tmp_path / "bins", noisy, patches(200, seed=1)), patch_size=16)
    assert [item.message for item in found.findings if item.severity == "error"] == [
        "patch 137 of train: NaN or infinite pixels: 1 in noisy; convert again"
    ]


def test_a_store_of_single_exposures_says_how_well_its_noise_is_known(tmp_path: Path, capsys) -> None:
    counts = np.random.default_rng(0).poisson(30, (2, 256, 256)).astype(np.float32)
    for name, image in zip("ab", counts, strict=True):
        write_mrc(tmp_path / "mics" / f"{name}.mrc", image, pixel_size_angstrom=1.3)
    words = ["convert", "--pairs", "single", str(tmp_path / "mics"), "-o", str(tmp_path / "store"), "--store", "whole"]
    assert run([*words, "--test-split", "0.5"]) == 0
    found = inspect_path(tmp_path / "store")
    assert not found.wrong, messages(found)
    assert found.summary["noise_from"] == {"counts": 2}
    assert 0 <= found.summary["noise_uncertainty_up_to_db"] < 0.2
    # There is one image of each, not a pair: nothing to compare it with.
    assert not any("clean" in name for name in found.summary["train"])
    capsys.readouterr()
    assert run(["inspect", str(tmp_path / "store")]) == 0
    shown = capsys.readouterr().out
    assert "noise from" in shown and "clean" not in shown

    manifest = tmp_path / "store" / "dataset.json"
    record = json.loads(manifest.read_text())
    record["micrographs"][0]["noise"]["problem"] = "it was filtered"
    manifest.write_text(json.dumps(record))
    assert "the noise of 1 of 2 micrographs is in doubt" in messages(inspect_path(tmp_path / "store"), "note")
    del record["micrographs"][0]["noise"]["power"]
    manifest.write_text(json.dumps(record))
    assert "noise: power" in messages(inspect_path(tmp_path / "store"), "error")
