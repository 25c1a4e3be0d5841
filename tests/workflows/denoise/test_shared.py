"""Several processes work into one output folder: each micrograph is done once, and all of them end well."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryoplug.core.results import BatchResult, FileResult
from cryoplug.disk.claims import Claims, process_started
from cryoplug.formats.mrc import write_mrc
from cryoplug.formats.star import image_table, read_star
from cryoplug.inference.denoiser import Denoiser
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec
from cryoplug.outputs.planning import RECORD_FOLDER
from cryoplug.workflows.denoise import DenoiseRequest, denoise
from cryoplug.workflows.denoise import work as denoise_work
from warm_start import WarmStart

PROGRAM = """
import sys, time
from pathlib import Path
from cryoplug.workflows.denoise import DenoiseRequest, denoise

me, other, checkpoint, action = sys.argv[1:5]

def progress(result):
    # Both have begun before either goes on.
    Path(me).touch()
    while action == "hang" or not Path(other).exists():
        time.sleep(0.02)

request = DenoiseRequest(("mics",), Path(checkpoint), Path("out"), star=Path("out.star"), device="cpu", threads=1)
batch = denoise(request, progress)
print(*sorted(item.status for item in batch.files), batch.exit_code)
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
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(denoise_work, "WAIT_POLL_S", 0.05)
    (tmp_path / "mics").mkdir()
    for seed in range(10):
        write_mrc(tmp_path / "mics" / f"m{seed}.mrc", pixels(seed))
    return tmp_path


def journal() -> list[dict[str, object]]:
    return [json.loads(line) for line in Path("out/denoise.jsonl").read_text().splitlines()]


def assert_all_outputs_are_right(checkpoint: Path) -> None:
    denoiser = Denoiser.from_checkpoint(checkpoint, device="cpu", threads=1)
    for seed in range(10):
        assert np.allclose(mrcfile.read(f"out/m{seed}.mrc"), denoiser.denoise(pixels(seed)), rtol=0, atol=1e-4)
    left = [path.name for path in Path("out").rglob("*") if "partial" in path.name or path.suffix == ".claim"]
    assert left == []
    assert len(image_table(read_star("out.star")).block.rows) == 10


def test_two_processes_share_the_work_and_write_nothing_twice(
    here: Path, checkpoint: Path, warm_start: WarmStart
) -> None:
    children = [
        warm_start.start(me, other, checkpoint, "work", program=PROGRAM)
        for me, other in (("first", "second"), ("second", "first"))
    ]
    told = [child.communicate(timeout=120) for child in children]
    assert [child.returncode for child in children] == [0, 0], told
    counts = [Counter(out.split()[:-1]) for out, _ in told]
    assert all(count["done"] >= 1 and count["done"] + count["skipped"] == 10 for count in counts), told
    assert [out.split()[-1] for out, _ in told] == ["0", "0"]
    lines = journal()
    assert sorted(str(line["input"]) for line in lines) == [f"mics/m{seed}.mrc" for seed in range(10)]
    assert {line["pid"] for line in lines} == {child.pid for child in children}
    assert_all_outputs_are_right(checkpoint)


def test_what_a_killed_process_was_working_on_is_taken_over(
    here: Path, checkpoint: Path, warm_start: WarmStart
) -> None:
    child = warm_start.start("first", "none", checkpoint, "hang", program=PROGRAM)
    try:
        while not Path("first").exists():
            assert child.poll() is None, child.communicate()
            threading.Event().wait(0.05)
    finally:
        child.kill()
        child.communicate()
    assert list(Path("out", RECORD_FOLDER).glob("*.claim")), "it was killed with a claim in its hand"
    request = DenoiseRequest(("mics",), checkpoint, Path("out"), star=Path("out.star"), device="cpu", threads=1)
    batch = denoise(request)
    assert batch.exit_code == 0 and Counter(item.status for item in batch.files) == {"done": 9, "skipped": 1}
    assert_all_outputs_are_right(checkpoint)


def test_the_claim_of_a_process_that_was_killed_when_it_had_finished_goes_with_the_next_run(
    here: Path, checkpoint: Path
) -> None:
    request = DenoiseRequest(("mics",), checkpoint, Path("out"), star=Path("out.star"), device="cpu", threads=1)
    denoise(request)
    claim = Path("out", RECORD_FOLDER, "m3.mrc.claim")
    with Claims() as claims:
        claims.take(claim)
        text = claim.read_text()
    claim.write_text(text.replace(process_started(os.getpid()), "7"))
    denoise(request)
    assert_all_outputs_are_right(checkpoint)


def run_two(checkpoint: Path, **named: object) -> list[BatchResult]:
    barrier = threading.Barrier(2)
    found: list[BatchResult] = []

    def work() -> None:
        begun = threading.local()

        def progress(result: FileResult) -> None:
            if not hasattr(begun, "yes"):
                begun.yes = True
                barrier.wait(30)

        request = DenoiseRequest(("mics",), checkpoint, Path("out"), device="cpu", threads=1, **named)
        found.append(denoise(request, progress))

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return found


def test_with_overwrite_each_micrograph_is_redone_once(here: Path, checkpoint: Path) -> None:
    denoise(DenoiseRequest(("mics",), checkpoint, Path("out"), device="cpu", threads=1))
    assert len(journal()) == 10
    found = run_two(checkpoint, overwrite=True)
    assert [batch.exit_code for batch in found] == [0, 0]
    assert len(journal()) == 20
    assert sum(item.status == "done" for batch in found for item in batch.files) == 10


def test_a_micrograph_of_another_process_is_waited_for_and_its_maker_is_named(here: Path, checkpoint: Path) -> None:
    request = DenoiseRequest(("mics",), checkpoint, Path("out"), device="cpu", threads=1)
    notes: list[str] = []
    claim = Path("out", RECORD_FOLDER, "m3.mrc.claim")
    released = []

    def progress(result: FileResult) -> None:
        # The other process ends without having done it, when all the rest is done.
        if result.input.name == "m9.mrc":
            assert [path.name for path in Path("out").glob("m3.mrc")] == []
            other.release(claim)
            released.append(True)

    with Claims() as other:
        other.take(claim)
        batch = denoise(request, progress, notes.append)
    assert released and [item.status for item in batch.files] == ["done"] * 10
    assert len(notes) == 1 and "works on this output folder too; its micrographs are left to it" in notes[0]
