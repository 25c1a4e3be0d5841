"""A project of twelve micrographs, a template that stands still, and what must be true in the end."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cryoplug.cli.main import run
from cryoplug.formats.mrc import write_mrc
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec

from cryoplug_slurm.scripts import template_text

COUNT = 12
PATIENCE_S = 180.0
"""A machine whose cores are busy takes its time."""
WORDS = ["mics", "--checkpoint", "run", "-o", "out", "--star", "out.star", "--device", "cpu", "--threads", "1"]
TESTS = Path(__file__).parent


def make(folder: Path) -> Path:
    (folder / "mics").mkdir()
    for seed in range(COUNT):
        pixels = np.random.default_rng(seed).normal(50, 4, (200, 220)).astype(np.float32)
        write_mrc(folder / "mics" / f"m{seed:02d}.mrc", pixels, pixel_size_angstrom=1.5)
    weights = {name: tensor.numpy() for name, tensor in model_spec("cryo_cnn").build(seed=1).state_dict().items()}
    save_checkpoint(folder / "run" / "epoch_0001", Checkpoint("cryo_cnn", weights, normalize="zscore"), 0.5)
    return folder


def call(*words: str) -> int:
    return run(["slurm", *words])


def gated_template() -> str:
    """Make the template one's own: each task stands still after its first micrograph."""
    first, rest = template_text("denoise").split("@COMMAND@ &")
    gated = f"'{sys.executable}' '{TESTS / 'gated_denoise.py'}'"
    Path("gated.sbatch").write_text(f'{first}set -- @COMMAND@\nshift 3\n{gated} "$@" &{rest}')
    return "gated.sbatch"


def until(happened: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not happened():
        logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in Path().glob("slurm-logs/*"))
        assert time.monotonic() < end, f"not in {PATIENCE_S:.0f} s: {what}\n{logs}"
        time.sleep(0.05)


def until_all_stand(tasks: int) -> None:
    until(lambda: all(Path(f"stands-{task}").exists() for task in range(tasks)), "all tasks are in the middle")


def all_is_done_once(folder: Path) -> None:
    assert len(list((folder / "out").glob("*.mrc"))) == COUNT
    done = Counter(line["input"] for line in journal(folder) if line["status"] == "done")
    assert len(done) == COUNT and set(done.values()) == {1}, done
    assert sum("mics/" in line for line in (folder / "out.star").read_text().splitlines()) == COUNT
    assert not [path.name for path in (folder / "out").rglob("*") if "partial" in path.name]


def journal(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out" / "denoise.jsonl").read_text().splitlines()]
