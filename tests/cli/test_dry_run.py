"""``--dry-run`` writes nothing, and its exit code is that of the run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from cryoplug.cli.main import run
from cryoplug.core import plan
from cryoplug.core.normalization import Normalization
from cryoplug.formats.mrc import write_mrc
from cryoplug.schemas import schema_of
from cryoplug.store.manifest import Manifest, MicrographEntry
from cryoplug.store.pairs import create_store
from cryoplug.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        pixels = random.normal(10, 2, (96, 96)).astype(np.float32)
        write_mrc(tmp_path / f"{name}.mrc", pixels, pixel_size_angstrom=3)
    (tmp_path / "bad.mrc").write_text("bad")
    write_mrc(tmp_path / "unknown.mrc", np.eye(96, dtype=np.float32))
    write_halves(tmp_path, "x", 96)
    write_halves(tmp_path, "y", 96)
    write_mrc(tmp_path / "smaller.mrc", np.eye(64, dtype=np.float32), pixel_size_angstrom=3)
    with create_store(tmp_path / "pairs", Manifest((24, 24), "float32", "halves", "zscore", 0, 24), "bin") as writer:
        for index in range(4):
            for y in (0, 24):
                writer.append("train", *(random.normal(size=(24, 24)).astype(np.float32) for _ in range(2)), (y, 0))
            writer.acknowledge(
                MicrographEntry(f"{index}.mrc", "train", (48, 24), 3.0, Normalization("zscore").to_dict(), index=index)
            )
        writer.finish()
    return tmp_path


def write_halves(folder: Path, name: str, side: int) -> None:
    """Write two halves of an exposure that share a signal."""
    random = np.random.default_rng(list(name.encode()))
    signal = np.cumsum(np.cumsum(random.normal(size=(side, side)), axis=0), axis=1).astype(np.float32)
    for half in ("EVN", "ODD"):
        noisy = signal + random.normal(10, 2, signal.shape).astype(np.float32)
        write_mrc(folder / f"{name}_{half}.mrc", noisy, pixel_size_angstrom=3)


def everything(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


DENOISE = ["denoise", "-o", "out", "--device", "cpu", "--threads", "1"]
CONVERT = ["convert", "-o", "store", "--patch-size", "48"]
EVALUATE = ["evaluate", "-o", "judged", "--device", "cpu", "--threads", "1", "--tta", "off"]
TRAIN = [
    "train",
    "--save",
    "--device",
    "cpu",
    "--threads",
    "1",
    "--epochs",
    "1",
    "--max-batches",
    "1",
    "--no-evaluation",
]


@pytest.mark.parametrize(
    "words",
    [
        [*DENOISE, "a.mrc", "b.mrc"],
        [*DENOISE, "a.mrc", "bad.mrc"],
        [*DENOISE, "bad.mrc"],
        [*DENOISE, "unknown.mrc"],
        [*DENOISE, "missing.mrc"],
        [*DENOISE, "a.mrc", "--checkpoint", "missing"],
        [*DENOISE, "a.mrc", "--device", "cuda:99"],
        [*DENOISE, "a.mrc", "--star", "a.mrc"],
        [*DENOISE, "a.mrc", "-o", "b.mrc"],
        [*DENOISE, "a.mrc", "-o", "b.mrc/below"],
        [*CONVERT, "a.mrc", "b.mrc"],
        [*CONVERT, "a.mrc", "bad.mrc"],
        [*CONVERT, "bad.mrc"],
        [*CONVERT, "missing.mrc"],
        [*CONVERT, "a.mrc", "--pairs", "halves"],
        [*CONVERT, "a.mrc", "-o", "b.mrc/below"],
        [*CONVERT, "a.mrc", "smaller.mrc", "--patch-size", "96"],
        [*CONVERT, "a.mrc", "unknown.mrc", "--angpix", "4", "--patch-size", "32"],
        [*CONVERT, "a.mrc", "--angpix", "2"],
        [*CONVERT, "x_EVN.mrc", "--pairs", "halves"],
        [*EVALUATE, "x_EVN.mrc", "y_EVN.mrc"],
        [*EVALUATE, "a.mrc", "--clean", "smaller.mrc"],
        [*EVALUATE, "a.mrc", "unknown.mrc", "--clean", "b.mrc", "--clean", "bad.mrc"],
        [*EVALUATE, "--even", "x_EVN.mrc", "--odd", "smaller.mrc"],
        [*EVALUATE, "a.mrc"],
        [*EVALUATE, "missing.mrc"],
        [*EVALUATE, "x_EVN.mrc", "-o", "b.mrc"],
        [*EVALUATE, "x_EVN.mrc", "--checkpoint", "missing"],
        [*EVALUATE, "x_EVN.mrc", "--device", "cuda:99"],
        [*EVALUATE, "x_EVN.mrc", "--denoised", "x_EVN.mrc"],
        [*TRAIN, "pairs"],
        [*TRAIN, "pairs", "--model", "unet", "--model-option", "depth=1", "--model-option", "width=4"],
        [*TRAIN, "missing"],
        [*TRAIN, "a.mrc"],
        [*TRAIN, "pairs", "--checkpoint-dir", "b.mrc"],
        [*TRAIN, "pairs", "--device", "cuda:99"],
        [*TRAIN, "pairs", "--precision", "bf16"],
        [*TRAIN, "pairs", "--cache", "gpu"],
        [*TRAIN, "pairs", "--model", "no_such"],
        [*TRAIN, "pairs", "--init", "missing"],
        [*TRAIN, "pairs", "--augment", "dihedral", "--mix", "0.5"],
        [*TRAIN, "pairs", "--val-indices", "missing"],
    ],
    ids=" ".join,
)
def test_it_writes_nothing_and_exits_as_the_run_does(
    here: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(here)
    planned = run([*words, "--dry-run"])
    assert everything(here) == before
    said = capsys.readouterr()
    done = run(words)
    assert planned == done, (said.err, capsys.readouterr().err)


def test_a_run_that_is_finished_has_nothing_to_do(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, name in (([*DENOISE, "a.mrc"], "out"), ([*CONVERT, "a.mrc", "b.mrc"], "store")):
        assert run([*words, "--dry-run", "--json"]) == 0
        first = json.loads(capsys.readouterr().out.splitlines()[-1])
        jsonschema.Draft202012Validator(schema_of("plan")).validate(first)
        assert run(words) == 0
        capsys.readouterr()
        assert run([*words, "--dry-run", "--json"]) == 0
        second = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (first["type"], first["to_do"], second["to_do"], second["output"]) == ("plan", first["total"], 0, name)
        assert second["skipped"] == second["total"] == first["total"]


def test_a_plan_of_training_says_what_a_finished_and_another_run_mean(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def planned(*words: str) -> tuple[int, dict[str, Any], str]:
        code = run([*TRAIN, "pairs", *words, "--dry-run", "--json"])
        said = capsys.readouterr()
        plan = json.loads(said.out.splitlines()[-1]) if said.out else {}
        if plan:
            jsonschema.Draft202012Validator(schema_of("plan")).validate(plan)
        return code, plan, said.err

    code, plan, said = planned()
    assert (code, plan["to_do"], plan["output"]) == (0, 1, "saved_models/cryo_cnn")
    assert (plan["model"], plan["parameters"], plan["device"], plan["micrographs"]) == ("cryo_cnn", 2625, "cpu", 4)
    assert (plan["train_pairs"], plan["validation_pairs"], plan["patch_size"]) == (6, 2, 24)
    assert (plan["epochs"], plan["steps_per_epoch"], plan["minutes"], plan["read_bytes"]) == (
        1,
        1,
        None,
        8 * 2 * 24 * 24 * 4,
    )
    assert "6 pairs of 24 px to train on, 2 to validate on, of 4 micrographs" in said
    assert "network: cryo_cnn (2,625 parameters) on cpu" in said
    assert run([*TRAIN, "pairs"]) == 0
    folder = here / "saved_models" / "cryo_cnn"
    written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.suffix != ".png")
    assert written / 4 < plan["needed_bytes"] < 4 * written
    before = everything(here)
    capsys.readouterr()
    code, plan, said = planned()
    assert (code, plan["to_do"], plan["skipped"]) == (0, 0, 1)
    assert planned("--lr", "0.1")[0] == 2
    assert planned("--lr", "0.1", "--overwrite")[2].count("would start again, and forget the run in") == 1
    assert planned("--epochs", "2", "--resume")[2].count("would go on with the run in") == 1
    with RunFolder(folder):
        assert planned()[0] == 8
    assert everything(here).keys() == before.keys()


def test_a_plan_of_training_is_of_one_process(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert run([*TRAIN, "pairs", "--dry-run"]) == 2


@pytest.mark.parametrize(
    "words",
    [
        [*CONVERT, "a.mrc", "b.mrc", "--stride", "20"],
        [*CONVERT, "a.mrc", "--store", "whole", "--dtype", "float16"],
        [*CONVERT, "a.mrc", "--angpix", "4"],
        [*CONVERT, "x_EVN.mrc", "y_EVN.mrc", "--pairs", "halves"],
    ],
    ids=" ".join,
)
def test_a_store_takes_the_space_that_its_plan_names(
    here: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, "--dry-run", "--json"]) == 0
    said = capsys.readouterr()
    plan = json.loads(said.out.splitlines()[-1])
    assert run(words) == 0
    capsys.readouterr()
    counted = json.loads((here / "store" / "dataset.json").read_text())["counts"]
    assert plan["pairs"] == counted["train"] + counted["test"] and f"would pack {plan['pairs']} " in said.err
    assert plan["needed_bytes"] == sum(path.stat().st_size for path in (here / "store").glob("*.bin")) > 0


def test_a_plan_of_an_evaluation_names_what_is_judged_and_by_what(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*EVALUATE, "x_EVN.mrc", "--dry-run", "--json"]) == 0
    said = capsys.readouterr()
    plan = json.loads(said.out)
    jsonschema.Draft202012Validator(schema_of("plan")).validate(plan)
    assert "would judge x_EVN.mrc with its odd half" in said.err and "evaluation.json" in plan["writes"]
    assert plan["parameters"] > 0 and plan["device"] == "cpu" and plan["output"] == "judged"
    assert run([*EVALUATE, "a.mrc", "--clean", "b.mrc", "--denoised", "smaller.mrc", "--dry-run", "--json"]) == 4
    assert "shape (64, 64) but a.mrc has (96, 96)" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[*DENOISE, "a.mrc"], [*EVALUATE, "x_EVN.mrc"], [*TRAIN, "pairs"]], ids=" ".join)
def test_a_plan_for_the_cpu_does_without_torch(here: Path, words: list[str]) -> None:
    called = f"run({[*words, '--dry-run']})"
    code = f"import sys; from cryoplug.cli.main import run; sys.exit({called} or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_disk_that_is_too_small_is_told_before_the_run(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    assert run([*DENOISE, "a.mrc", "--dry-run"]) == 5
    assert "about 38 kB of 1.0 kB free: not enough" in capsys.readouterr().out
