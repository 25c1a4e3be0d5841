"""Several processes of one run, each with a device of its own: one result, one STAR file, one exit code."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import mrcfile
import numpy as np
import pytest

from cryoplug.cli.denoise import Numbers
from cryoplug.core.results import BatchResult, FileResult
from cryoplug.errors import DeviceError, UsageError
from cryoplug.formats.mrc import write_mrc
from cryoplug.formats.star import image_table, read_star
from cryoplug.inference.denoiser import Denoiser
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec
from cryoplug.workflows.denoise import DenoiseRequest, denoise
from cryoplug.workflows.denoise import run as denoise_module
from warm_start import WarmStart

COUNT = 12

COMMAND = """
import sys
from dataclasses import replace
from cryoplug.cli.main import run
from cryoplug.workflows.denoise import run as denoise_module
denoise_module.requests_for = lambda request, files, by_itself: [replace(request, gpu=(), device="cpu", threads=1, star=None)] * 2
if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = {name: tensor.numpy() for name, tensor in model_spec("cryo_cnn").build(seed=1).state_dict().items()}
    folder = tmp_path_factory.mktemp("checkpoints") / "run" / "epoch_0001"
    save_checkpoint(folder, Checkpoint("cryo_cnn", weights, normalize="zscore"), 0.5)
    return folder.parent


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(50, 4, (70, 90)).astype(np.float32)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        denoise_module,
        "requests_for",
        lambda request, files, by_itself: (
            [replace(request, gpu=(), device="cpu", threads=1, star=None)] * (len(request.gpu) or 1)
        ),
    )
    (tmp_path / "mics").mkdir()
    for seed in range(COUNT):
        write_mrc(tmp_path / "mics" / f"m{seed}.mrc", pixels(seed))
    yield tmp_path
    left = [path.name for path in tmp_path.rglob("*") if "partial" in path.name or path.suffix == ".claim"]
    assert left == []


def run(checkpoint: Path, **named: object) -> tuple[BatchResult, list[FileResult]]:
    told: list[FileResult] = []
    request = DenoiseRequest(("mics",), checkpoint, Path("out"), star=Path("out.star"), gpu=(0, 1), **named)
    return denoise(request, told.append), told


def journal() -> list[dict[str, object]]:
    return [json.loads(line) for line in Path("out/denoise.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_give_one_result_and_one_star_file(here: Path, checkpoint: Path) -> None:
    Path("mics/m3.mrc").write_bytes(b"broken" * 400)
    batch, told = run(checkpoint)
    assert [result.input.name for result in batch.files] == sorted(f"m{seed}.mrc" for seed in range(COUNT))
    assert batch.exit_code == 3 and {result.input.name for result in batch.failed} == {"m3.mrc"}
    assert {result.status for result in batch.files} == {"done", "failed"}
    assert sum(result.status == "done" for result in told) == COUNT - 1
    assert len(image_table(read_star(Path("out.star"))).block.rows) == COUNT - 1
    assert len({line["pid"] for line in journal()} - {os.getpid()}) in (1, 2)
    denoiser = Denoiser.from_checkpoint(checkpoint, device="cpu", threads=1)
    for seed in set(range(COUNT)) - {3}:
        assert np.allclose(mrcfile.read(f"out/m{seed}.mrc"), denoiser.denoise(pixels(seed)), rtol=0, atol=1e-4)
    # The same command again finds all done but the broken one; with overwrite each is redone once.
    Path("mics/m3.mrc").unlink()
    before = len(journal())
    assert {result.status for result in run(checkpoint)[0].files} == {"skipped"} and len(journal()) == before
    assert {result.status for result in run(checkpoint, overwrite=True)[0].files} == {"done"}
    assert len(journal()) == before + COUNT - 1


@pytest.mark.slow
def test_an_error_that_ends_one_process_ends_the_run_with_it(here: Path, checkpoint: Path, monkeypatch) -> None:
    def one_without_a_gpu(request: DenoiseRequest, files: int, by_itself: bool) -> list[DenoiseRequest]:
        return [replace(request, gpu=(), device=device, star=None) for device in ("cpu", "cuda:77")]

    monkeypatch.setattr(denoise_module, "requests_for", one_without_a_gpu)
    with pytest.raises(DeviceError, match="cuda:77"):
        run(checkpoint)


@pytest.mark.slow
def test_when_one_process_is_killed_the_others_do_its_share(here: Path, checkpoint: Path) -> None:
    notes: list[str] = []
    killed: list[int] = []

    def kill_one(result: FileResult) -> None:
        if not killed:
            killed.append(multiprocessing.active_children()[0].pid or 0)
            os.kill(killed[0], signal.SIGKILL)

    request = DenoiseRequest(("mics",), checkpoint, Path("out"), star=Path("out.star"), gpu=(0, 1), previews=False)
    batch = denoise(request, kill_one, notes.append)
    assert batch.exit_code == 0 and len(batch.files) == COUNT
    assert len(list(Path("out").glob("*.mrc"))) == len(image_table(read_star(Path("out.star"))).block.rows) == COUNT
    assert any("ended by SIGKILL" in text and "the others do its share" in text for text in notes), notes


@pytest.mark.slow
def test_when_all_processes_are_killed_the_run_says_so(here: Path, checkpoint: Path) -> None:
    def kill_all(result: FileResult) -> None:
        for process in multiprocessing.active_children():
            process.kill()

    request = DenoiseRequest(("mics",), checkpoint, Path("out"), gpu=(0, 1), previews=False)
    with pytest.raises(DeviceError, match="ended by SIGKILL without a message"):
        denoise(request, kill_all)
    denoise(replace(request, star=Path("out.star")))  # the same command goes on, and leaves no claim


@pytest.mark.slow
def test_a_stop_is_passed_on_and_the_same_command_goes_on(here: Path, checkpoint: Path, warm_start: WarmStart) -> None:
    command = ("denoise", "mics", "--checkpoint", checkpoint, "-o", "out", "--gpu", "0,1", "--json")
    child = warm_start.start(*command, program=COMMAND, stdout=here / "lines")
    while child.poll() is None and not (here / "lines").read_text().endswith("\n"):
        time.sleep(0.002)
    child.send_signal(signal.SIGTERM)
    lines, said = child.communicate(timeout=120)
    finished = [json.loads(line) for line in lines.splitlines()]
    if child.returncode == 0:
        assert len(finished) == COUNT, "it was done before the signal came"
    else:
        assert child.returncode == 143 and "the same command goes on" in said, said
        assert {Path(str(item["output"])).name for item in finished} == {
            path.name for path in Path("out").glob("*.mrc")
        }
    again = warm_start.start(*command, program=COMMAND)
    said = again.communicate(timeout=120)[1]
    assert again.returncode == 0 and len(list(Path("out").glob("*.mrc"))) == COUNT, said


def test_numbers_of_gpus_come_with_commas_or_as_a_list_of_a_config_file() -> None:
    numbers = Numbers()
    for value in ("0,2", "0, 2", [0, 2], (0, 2)):
        assert numbers.convert(value, None, None) == (0, 2)
    assert numbers.convert(3, None, None) == (3,)
    for wrong in ("", "0,", "-1", "a", "0;1"):
        with pytest.raises(click.BadParameter, match="allowed: a number from 0, or several as in 0,1"):
            numbers.convert(wrong, None, None)


def test_a_precision_that_is_asked_for_is_part_of_how_a_result_was_made(here: Path, checkpoint: Path) -> None:
    request = DenoiseRequest(("mics/m0.mrc",), checkpoint, Path("out"), device="cpu", threads=1)
    denoise(request)
    assert journal()[-1]["precision"] == "float32"
    again = denoise(replace(request, precision="float32"))
    assert again.files[0].status == "failed" and "precision auto, now float32" in again.files[0].message


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"gpu": (1, 1)}, "each GPU once"),
        ({"gpu": (0, 1), "device": "cpu"}, "name different devices"),
        ({"gpu": (0, 1), "watch": True}, "start one such command for each GPU"),
        ({"precision": "half"}, "allowed: auto, float32, float16, bf16"),
    ],
)
def test_what_contradicts_itself_is_refused(named: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DenoiseRequest(("mics",), Path("run"), Path("out"), **named)
