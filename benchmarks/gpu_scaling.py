"""`cryoplug denoise --gpu 0,1` and training by torchrun, on one GPU and on several of one host.

    python benchmarks/gpu_scaling.py [--processes 1,2] [--parts denoise,copy,train,recipe,losses,kill,reduce] [--seconds 270]

Each row of the CSV file is a part, a configuration and a number of processes: its rate, how many times that of one process,
and whether the result is that of one process. A part that fails or has no time left prints why, and the next one begins.

denoise   All files from a RAM disk to a RAM disk, by the general model and by `cryo_cnn`, without previews. The rate counts
          from the first tenth of the files on, so that the start of Python and CUDA is not in it; `wall_s` has it. Pixels must
          be those of one process, bit for bit. The files are links to a few different ones; what is written is written.
copy      `cp` of the same files, which shows what the disk allows.
train     The `unet` of the recipe for halves. N processes take N times the patches a step; the rate is beside that of one
          process with the same --batch-size.
recipe    The general model's recipe with a pool of fields for each process, likewise.
losses    Fewer steps of both, by N processes, then by one process with N times the patches, or N pools: the losses must be
          the same. Nothing is timed, so both networks train at the same time.
kill      The general model denoises; one process is killed with -9 after a quarter of the files. All must be done.
reduce    `Processes.average` alone, of as many gradients as the two networks have: what a step pays for company.

`--device cpu` is a dry run: gloo, small sizes, and for denoise several commands that share a folder.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from cryoplug.formats.mrc import write_mrc
from cryoplug.workflows.convert import ConvertRequest, convert
from denoise_run import Denoising, make_linked_files
from gpu_denoise import make_checkpoint
from gpu_host import touch_memory
from programs import ROOT, Deadline, Program, torchrun
from rows import append_rows

COLUMNS = (
    *("date", "gpu", "torch", "part", "program", "processes", "shape", "rate", "unit"),
    *("times_one", "same_as_one", "wall_s", "note"),
)
LIMITS = {"denoise": 125.0, "copy": 60.0, "train": 75.0, "recipe": 100.0, "losses": 150.0, "kill": 40.0, "reduce": 30.0}
"""The parts, the most important first, and how many seconds each may take at most."""
SLOW = 8
"""So much longer may a dry run take."""
SAME_LOSS = 1e-3
"""Relative; in bf16. In float32 it is 1e-5, which tests/training/test_distributed.py keeps."""
SAME_DECIBELS = 0.01
"""What 1e-3 of a loss of about 10 dB is."""
REDUCE = """
import sys, time, torch
from cryoplug.training.distributed import open_processes
sizes, repeats = [int(word) for word in sys.argv[2].split(",")], int(sys.argv[3])
with open_processes(sys.argv[1]) as (processes, device):
    for size in sizes:
        gradients = [torch.ones(size // 20, device=device) for _ in range(20)]
        loss = torch.ones((), device=device)
        for turn in range(repeats + 5):
            if turn == 5:
                if device.type == "cuda": torch.cuda.synchronize()
                start = time.perf_counter()
            processes.average(loss, gradients, 1 / processes.world)
        if device.type == "cuda": torch.cuda.synchronize()
        if processes.first:
            print("took", size, (time.perf_counter() - start) / repeats, flush=True)
"""


@dataclass(frozen=True)
class Sizes:
    """How large everything is."""

    files: int
    side: int
    models: tuple[str, ...]
    micrographs: int
    micrograph_side: int
    train: tuple[str, ...]
    batch: int
    steps: int
    compared: int
    """Steps, where only losses are compared."""
    recipe: tuple[str, ...]
    recipe_steps: int
    reduce: tuple[int, ...]


FULL = Sizes(
    files=200,
    side=4096,
    models=("general", "cryo_cnn"),
    micrographs=8,
    micrograph_side=2048,
    train=("--model", "unet", "--recipe", "halves", "--crop-size", "256"),
    batch=16,
    steps=600,
    compared=200,
    recipe=("--molecules", "64", "--fields", "64", "--warm-up", "100"),
    recipe_steps=400,
    reduce=(1_948_292, 7_653_768),
)
DRY = Sizes(
    files=10,
    side=256,
    models=("cryo_cnn",),
    micrographs=4,
    micrograph_side=192,
    train=("--model", "unet", "--model-option", "depth=1", "--model-option", "width=4", "--crop-size", "32"),
    batch=2,
    steps=8,
    compared=8,
    recipe=(
        *("--batch", "1", "--side-px", "64", "--field-px", "128", "--fields", "2"),
        *("--molecules", "6", "--warm-up", "1", "--config"),
        '{"depth": 1, "width": 8, "most": 8, "stem": 2, "skip": "none", "outputs": 2, "clip": 8.0}',
    ),
    recipe_steps=4,
    reduce=(2_000,),
)


@dataclass
class Bench:
    """What all parts share."""

    folder: Path
    """On the RAM disk."""
    device: str
    counts: Sequence[int]
    """Of processes; 1 is the first."""
    sizes: Sizes
    deadline: Deadline = field(default_factory=lambda: Deadline.after(0))
    """Of the part that runs."""

    @property
    def mics(self) -> Path:
        """The files to denoise; made when they are first asked for."""
        folder = self.folder / "mics"
        if not folder.exists():
            make_linked_files(folder, self.sizes.files, self.sizes.side)
        return folder

    @property
    def store(self) -> Path:
        """The store to train on; made when it is first asked for."""
        folder = self.folder / "store"
        if not folder.exists():
            make_halves_store(folder, self.sizes.micrographs, self.sizes.micrograph_side)
        return folder


def main() -> int:
    """Measure all parts and append the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--processes", default="1,2", help="how many, with commas; 1 is always measured first")
    parser.add_argument("--parts", default=",".join(LIMITS))
    parser.add_argument("--seconds", type=float, default=270, help="for all parts together (default 270)")
    parser.add_argument("--files", type=int, help="micrographs to denoise")
    parser.add_argument("--models", help="checkpoints to denoise with, with commas")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="a RAM disk")
    parser.add_argument("--csv", type=Path, default=Path("gpu_scaling.csv"))
    arguments = parser.parse_args()
    deadline = Deadline.after(arguments.seconds)
    sizes = FULL if arguments.device == "cuda" else DRY
    if arguments.files:
        sizes = replace(sizes, files=arguments.files)
    if arguments.models:
        sizes = replace(sizes, models=tuple(arguments.models.split(",")))
    asked = sorted({1, *map(int, arguments.processes.split(","))})
    there = torch.cuda.device_count() if arguments.device == "cuda" else asked[-1]
    counts = [count for count in asked if count <= there]
    if counts != asked:
        print(f"{there} GPUs are there: only {counts} of {asked} processes are measured", flush=True)
    if not counts:
        return 1
    measures = {
        "denoise": denoise,
        "copy": copy,
        "train": train,
        "recipe": recipe,
        "losses": losses,
        "kill": kill,
        "reduce": reduce,
    }
    failed = []
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="gpu_scaling.") as name:
        bench = Bench(Path(name), arguments.device, counts, sizes)
        for part in arguments.parts.split(","):
            start = time.monotonic()
            bench.deadline = deadline.or_after(LIMITS[part] * (SLOW if bench.device == "cpu" else 1))
            try:
                append_rows(arguments.csv, (shown(part, bench.device, row) for row in measures[part](bench)), COLUMNS)
            except Exception:  # noqa: BLE001 - the other parts are to be measured all the same
                failed.append(part)
                traceback.print_exc()
            print(f"{part}: {time.monotonic() - start:.1f} s; {deadline.left():.0f} s are left", flush=True)
    if failed:
        print("failed:", *failed, flush=True)
    return bool(failed)


def denoise(bench: Bench) -> Iterator[dict[str, object]]:
    """Measure `denoise` by several processes; compare their results when all have been timed."""
    sizes = bench.sizes
    runs = len(sizes.models) * len(bench.counts)
    bench.mics  # noqa: B018 - made before anything is timed
    touch_memory(bench.folder / "touched", runs * sizes.files * sizes.side**2 * 4)
    done: list[tuple[str, int, Denoising]] = []
    for model in sizes.models:
        for count in bench.counts:
            run = denoising(bench, model, count)
            run.wait(bench.deadline)
            print(f"{model}, {count} processes: {run.rate():.4g} files/s", flush=True)
            done.append((model, count, run))
    digests = {(model, count): run.digest() for model, count, run in done}
    rates = {(model, count): run.rate() for model, count, run in done}
    for model, count, run in done:
        yield {
            **{"program": model, "processes": count, "shape": shape_of(bench)},
            **{"rate": run.rate(), "unit": "files/s", "times_one": run.rate() / rates[model, 1]},
            **{"same_as_one": digests[model, count] == digests[model, 1], "wall_s": run.wall_s},
        }
        run.remove()


def copy(bench: Bench) -> Iterator[dict[str, object]]:
    """Time `cp` of these files, once the memory of the RAM disk has been touched."""
    source, target = bench.mics, bench.folder / "copy"
    touch_memory(bench.folder / "touched", bench.sizes.files * bench.sizes.side**2 * 4)
    start = time.perf_counter()
    subprocess.run(["cp", "-rL", source, target], check=True, timeout=bench.deadline.left())
    took = time.perf_counter() - start
    shutil.rmtree(target)
    rate = bench.sizes.files / took
    yield {"program": "cp", "processes": 1, "shape": shape_of(bench), "rate": rate, "unit": "files/s", "wall_s": took}


def kill(bench: Bench) -> Iterator[dict[str, object]]:
    """Kill one of several processes in the middle; the others must do all."""
    sizes = bench.sizes
    for count in bench.counts[1:]:
        run = denoising(bench, sizes.models[0], count)
        while len(run.times) < sizes.files // 4 and bench.deadline.left() > 1:
            time.sleep(0.01)
        run.kill_one()
        codes = run.wait(bench.deadline)
        done = len(list(run.out.glob("*.mrc")))
        yield {
            **{"program": sizes.models[0], "processes": count, "shape": shape_of(bench)},
            **{"rate": run.rate(), "unit": "files/s", "same_as_one": done == sizes.files, "wall_s": run.wall_s},
            "note": f"one killed after a quarter: {done} of {sizes.files} done, exit codes {codes}",
        }
        run.remove()


def train(bench: Bench) -> Iterator[dict[str, object]]:
    """Measure training of the `unet` on halves."""
    sizes, one = bench.sizes, 0.0
    for count in bench.counts:
        start = time.perf_counter()
        program = training(bench, count, sizes.batch, epochs=2, steps=sizes.steps)
        records = epochs_of(program.output(bench.deadline))
        rate = records[-1]["samples_per_s"]
        one = rate if count == 1 else one
        yield {
            **{"program": "unet, halves", "processes": count, "shape": f"{sizes.batch} a process"},
            **{"rate": rate, "unit": "crops/s", "times_one": rate / one, "wall_s": time.perf_counter() - start},
        }


def recipe(bench: Bench) -> Iterator[dict[str, object]]:
    """Measure the general model's recipe."""
    one = 0.0
    for count in bench.counts:
        start = time.perf_counter()
        text = general(bench, count, pools=count).output(bench.deadline)
        _, pace = said_by_recipe(text)
        one = pace if count == 1 else one
        yield {
            **{"program": "general model", "processes": count, "shape": "a pool a process"},
            **{"rate": pace * count, "unit": "steps/s x pools", "times_one": pace * count / one},
            "wall_s": time.perf_counter() - start,
        }


def losses(bench: Bench) -> Iterator[dict[str, object]]:
    """Compare the losses of several processes with those of one that takes as much a step."""
    batch = bench.sizes.batch
    for count in bench.counts[1:]:
        start = time.perf_counter()
        together = (
            training(bench, count, batch, epochs=1, steps=bench.sizes.compared),
            general(bench, count, pools=count),
        )
        several = outputs(together, bench.deadline)
        alone = (
            training(bench, 1, count * batch, epochs=1, steps=bench.sizes.compared, on=0),
            general(bench, 1, pools=count, on=1),
        )
        one = outputs(alone, bench.deadline)
        for name, most, unit in (("unet, halves", SAME_LOSS, "relative"), ("general model", SAME_DECIBELS, "dB")):
            try:
                if name == "general model":
                    a, b = (said_by_recipe(said[1]())[0] for said in (several, one))
                    apart = max(abs(x - y) for x, y in zip(a, b, strict=True))
                else:
                    a, b = (losses_of(epochs_of(said[0]())) for said in (several, one))
                    apart = max(abs(x / y - 1) for x, y in zip(a, b, strict=True))
            except RuntimeError:
                traceback.print_exc()
                continue
            yield {
                **{"program": name, "processes": count, "shape": "", "rate": apart, "unit": f"{unit}, apart"},
                **{"same_as_one": apart <= most, "wall_s": time.perf_counter() - start},
                "note": f"together {' '.join(f'{x:.6g}' for x in a)}; alone {' '.join(f'{x:.6g}' for x in b)}",
            }


def reduce(bench: Bench) -> Iterator[dict[str, object]]:
    """Measure what averaging the gradients takes."""
    script = bench.folder / "reduce.py"
    script.write_text(REDUCE)
    for count in bench.counts[1:]:
        words = [str(script), bench.device, ",".join(map(str, bench.sizes.reduce)), "50"]
        for line in Program(torchrun(count, words)).output(bench.deadline).splitlines():
            if line.startswith("took"):
                _, size, took = line.split()
                note = f"{4e-9 * int(size) / float(took):.3g} GB/s of gradients"
                yield {
                    **{"program": "average", "processes": count, "shape": size, "rate": 1e3 * float(took)},
                    **{"unit": "ms", "note": note},
                }


def denoising(bench: Bench, model: str, count: int) -> Denoising:
    """Start to denoise the files."""
    out = Path(tempfile.mkdtemp(dir=bench.folder, prefix="out-"))
    return Denoising(bench.mics, out, checkpoint_of(bench.folder, model), bench.device, count)


def checkpoint_of(folder: Path, model: str) -> str:
    """Give what --checkpoint takes."""
    if model == "general":
        return model
    if not (folder / model).exists():
        make_checkpoint(folder / model, model)
    return str(folder / model)


def shape_of(bench: Bench) -> str:
    """Give what is denoised, in words."""
    return f"{bench.sizes.files} x {bench.sizes.side}x{bench.sizes.side}"


def make_halves_store(folder: Path, count: int, side: int) -> None:
    """Convert two halves of counted waves to a store of whole micrographs."""
    raw = folder.with_name("raw")
    raw.mkdir()

    def write(number: int) -> None:
        rng = np.random.default_rng([3, number])
        y, x = np.mgrid[:side, :side]
        signal = (1.0 + 0.5 * np.sin(y / (3.0 + number % 5)) * np.cos(x / 5.0)).astype(np.float32)
        for half in ("EVN", "ODD"):
            write_mrc(raw / f"m{number}_{half}.mrc", rng.poisson(signal).astype(np.float32), pixel_size_angstrom=1.5)

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(write, range(count)))
    request = ConvertRequest((str(raw),), folder, pairs="halves", store="whole", patch_size=32, test_split=0)
    if convert(replace(request, accept_unproven=True)).exit_code:
        raise RuntimeError("convert failed")
    shutil.rmtree(raw)


def training(bench: Bench, count: int, batch: int, *, epochs: int, steps: int, on: int | None = None) -> Program:
    """Start training of the `unet` on halves; in a second epoch nothing is read. `on` is the card that it alone sees."""
    crops = steps * batch * count
    words = ["train", str(bench.store), *bench.sizes.train, "--epochs", str(epochs), "--crops-per-epoch", str(crops)]
    words += ["--batch-size", str(batch), "--device", bench.device, "--save", "--no-evaluation", "--json"]
    words += ["--checkpoint-dir", tempfile.mkdtemp(dir=bench.folder, prefix="models-"), "--val-split", "0.25"]
    return Program(torchrun(count, ["-m", "cryoplug", *words]), card(bench, on))


def outputs(programs: Sequence[Program], deadline: Deadline) -> list[Callable[[], str]]:
    """Wait for programs that run at the same time; each result gives a stdout, or raises why there is none."""
    with ThreadPoolExecutor(len(programs)) as waiting:
        return [waiting.submit(program.output, deadline).result for program in programs]


def epochs_of(text: str) -> list[dict[str, float]]:
    """Give the records of the epochs."""
    records = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [record for record in records if record["type"] == "epoch"]


def losses_of(records: Sequence[dict[str, float]]) -> list[float]:
    """Give the losses of all epochs."""
    return [record[name] for record in records for name in ("train_loss", "val_loss")]


def general(bench: Bench, count: int, *, pools: int, on: int | None = None) -> Program:
    """Start training by the recipe; `on` is the card that it alone sees."""
    state, steps = tempfile.mkdtemp(dir=bench.folder, prefix="state-"), bench.sizes.recipe_steps
    words = [str(ROOT / "examples/train_general/train.py"), "--state", state, "--pools", str(pools)]
    words += ["--steps", str(steps), "--cool-down", str(steps // 2), *bench.sizes.recipe]
    return Program(torchrun(count, words), card(bench, on))


def said_by_recipe(text: str) -> tuple[list[float], float]:
    """Give the losses of the last report, dB, and its steps a second."""
    found = re.findall(r"image ([-+.\d]+) dB, particles ([-+.\d]+) dB, ([.\d]+) steps/s", text)
    if not found:
        raise RuntimeError(f"the recipe said no losses\n{text[-2000:]}")
    image, particles, pace = map(float, found[-1])
    return [image, particles], pace


def card(bench: Bench, number: int | None) -> dict[str, str]:
    """Give the variable that shows a program one of the GPUs alone; None: all of them."""
    if bench.device == "cpu":
        return {"CUDA_VISIBLE_DEVICES": ""}
    if number is None:
        return {}
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return {"CUDA_VISIBLE_DEVICES": seen[number] if len(seen) > number else str(number)}


def shown(part: str, device: str, row: dict[str, object]) -> dict[str, object]:
    """Complete a row, and print it."""
    name = torch.cuda.get_device_name(0) if device == "cuda" else "cpu, a dry run"
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    short = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in row.items()}
    complete = {"date": now, "gpu": name, "torch": torch.__version__, "part": part, **short}
    print(*(f"{key}={value}" for key, value in complete.items() if key not in ("date", "torch")), flush=True)
    return complete


if __name__ == "__main__":
    sys.exit(main())
