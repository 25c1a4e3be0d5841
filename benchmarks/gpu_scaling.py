"""`cryoplug denoise --gpu 0,1` and training by torchrun, on one GPU and on several of one host.

    python benchmarks/gpu_scaling.py [--processes 1,2] [--parts denoise,train,recipe,losses,kill,reduce] [--seconds 270]

Each row of the CSV file is a part, a configuration and a number of processes: its rate, how many times that of one process,
and whether the result is that of one process. A part that fails or has no time left prints why, and the next one begins.

denoise   All files from a RAM disk to a RAM disk, by the general model and by `cryo_cnn`, without previews. The rate counts
          from the first tenth of the files on, so that the start of Python and CUDA is not in it; `wall_s` has it. `cp` of the
          same files shows what the disk allows. Pixels must be those of one process, bit for bit. The files are links to a
          few different ones; what is written is written.
train     The `unet` of the recipe for halves. N processes take N times the patches a step; the rate is beside that of one
          process with the same --batch-size.
recipe    The general model's recipe with a pool of fields for each process, likewise.
losses    Both again by one process with N times the patches, or N pools, one beside the other: the losses must be those of
          N processes.
kill      The general model denoises; one process is killed with -9 after a quarter of the files. All must be done.
reduce    `Processes.average` alone, of as many gradients as the two networks have: what a step pays for company.

`--device cpu` is a dry run: gloo, small sizes, and for denoise several commands that share a folder.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from cryoplug.formats.mrc import write_mrc
from cryoplug.workflows.convert import ConvertRequest, convert
from gpu_denoise import make_checkpoint
from programs import ROOT, Deadline, Program, torchrun
from rows import append_rows

COLUMNS = (
    *("date", "gpu", "torch", "part", "program", "processes", "shape", "rate", "unit"),
    *("times_one", "same_as_one", "wall_s", "note"),
)
LIMITS = {"denoise": 125.0, "train": 75.0, "recipe": 85.0, "losses": 75.0, "kill": 40.0, "reduce": 30.0}
"""The parts, the most important first, and how many seconds each may take at most."""
SAME_LOSS = 1e-3
"""Relative; in bf16. In float32 it is 1e-5, which tests/training/test_distributed.py keeps."""
SAME_DECIBELS = 0.01
"""What 1e-3 of a loss of about 10 dB is."""
PIXEL_SIZE_ANGSTROM = 1.1
"""Of the files to denoise; 1 would mean that nobody knows it."""
DIFFERENT = 8
"""So many of the files to denoise have pixels of their own."""
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
    recipe: tuple[str, ...]
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
    recipe=("--steps", "1000", "--cool-down", "500", "--molecules", "400"),
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
    recipe=(
        *("--steps", "4", "--cool-down", "1", "--batch", "1", "--side-px", "64", "--field-px", "128", "--fields", "2"),
        *("--molecules", "6", "--warm-up", "1", "--config"),
        '{"depth": 1, "width": 8, "most": 8, "stem": 2, "skip": "none", "outputs": 2, "clip": 8.0}',
    ),
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
    losses: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    """By program and number of processes: what `losses` compares with."""
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
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="a RAM disk")
    parser.add_argument("--csv", type=Path, default=Path("gpu_scaling.csv"))
    arguments = parser.parse_args()
    deadline = Deadline.after(arguments.seconds)
    sizes = FULL if arguments.device == "cuda" else DRY
    if arguments.files:
        sizes = replace(sizes, files=arguments.files)
    asked = sorted({1, *map(int, arguments.processes.split(","))})
    there = torch.cuda.device_count() if arguments.device == "cuda" else asked[-1]
    counts = [count for count in asked if count <= there]
    if counts != asked:
        print(f"{there} GPUs are there: only {counts} of {asked} processes are measured", flush=True)
    if not counts:
        return 1
    measures = {"denoise": denoise, "train": train, "recipe": recipe, "losses": losses, "kill": kill, "reduce": reduce}
    failed = []
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="gpu_scaling.") as name:
        bench = Bench(Path(name), arguments.device, counts, sizes)
        for part in arguments.parts.split(","):
            start = time.monotonic()
            bench.deadline = deadline.or_after(LIMITS[part])
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
    """Measure `denoise` by several processes, and `cp` of the same files."""
    yield copied(bench)
    for model in bench.sizes.models:
        one, pixels = 0.0, ""
        for count in bench.counts:
            run = Denoising(bench, model, count)
            run.wait(bench.deadline)
            found = run.digest()
            if count == 1:
                one, pixels = run.rate(), found
            yield {
                **{
                    "program": model,
                    "processes": count,
                    "shape": shape_of(bench),
                    "rate": run.rate(),
                    "unit": "files/s",
                },
                **{"times_one": run.rate() / one, "same_as_one": found == pixels, "wall_s": run.wall_s},
            }
            run.remove()


def copied(bench: Bench) -> dict[str, object]:
    """Time `cp`, once the memory of the RAM disk has been touched."""
    source, target = bench.mics, bench.folder / "copy"
    for _ in range(2):
        start = time.perf_counter()
        subprocess.run(["cp", "-rL", source, target], check=True, timeout=bench.deadline.left())
        took = time.perf_counter() - start
        shutil.rmtree(target)
    rate = bench.sizes.files / took
    return {"program": "cp", "processes": 1, "shape": shape_of(bench), "rate": rate, "unit": "files/s", "wall_s": took}


def kill(bench: Bench) -> Iterator[dict[str, object]]:
    """Kill one of several processes in the middle; the others must do all."""
    sizes = bench.sizes
    for count in bench.counts[1:]:
        run = Denoising(bench, sizes.models[0], count)
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
        command = training(bench, count, sizes.batch, sizes.steps * sizes.batch * count, f"models-{count}")
        records = epochs_of(Program(command).output(bench.deadline))
        bench.losses["unet, halves", count] = losses_of(records)
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
        bench.losses["general model", count], pace = said_by_recipe(text)
        one = pace if count == 1 else one
        yield {
            **{"program": "general model", "processes": count, "shape": "a pool a process"},
            **{"rate": pace * count, "unit": "steps/s x pools", "times_one": pace * count / one},
            "wall_s": time.perf_counter() - start,
        }


def losses(bench: Bench) -> Iterator[dict[str, object]]:
    """Compare the losses of several processes with those of one that takes as much a step."""
    sizes = bench.sizes
    for count in bench.counts[1:]:
        crops = sizes.steps * sizes.batch * count
        start = time.perf_counter()
        unet = Program(training(bench, 1, sizes.batch * count, crops, f"models-1-{count}"), card(bench, 0))
        model = general(bench, 1, pools=count, beside=1)
        with ThreadPoolExecutor(2) as waiting:
            texts = [waiting.submit(program.output, bench.deadline) for program in (unet, model)]
        for name, text in zip(("unet, halves", "general model"), texts, strict=True):
            try:
                together = bench.losses[name, count]
                if name == "general model":
                    alone, _ = said_by_recipe(text.result())
                    apart, most, unit = (
                        max(abs(a - b) for a, b in zip(together, alone, strict=True)),
                        SAME_DECIBELS,
                        "dB",
                    )
                else:
                    alone = losses_of(epochs_of(text.result()))
                    apart, most, unit = max(abs(a / b - 1) for a, b in zip(together, alone, strict=True)), SAME_LOSS, ""
            except (KeyError, RuntimeError):
                traceback.print_exc()
                continue
            yield {
                **{"program": name, "processes": count, "shape": "", "rate": apart, "unit": f"{unit} apart".strip()},
                **{"same_as_one": apart <= most, "wall_s": time.perf_counter() - start},
                "note": f"together {' '.join(f'{x:.6g}' for x in together)}; alone {' '.join(f'{x:.6g}' for x in alone)}",
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


class Denoising:
    """A denoise run under way: one command with several GPUs, or on a CPU several commands in one folder."""

    def __init__(self, bench: Bench, model: str, count: int) -> None:
        self.out = bench.folder / "out"
        self.times: list[float] = []
        """When a file was done, seconds since the start."""
        self.wall_s = 0.0
        """Of the whole run."""
        self._device = bench.device
        gpus = ",".join(map(str, range(count)))
        where = ["--gpu", gpus] if bench.device == "cuda" else ["--device", "cpu", "--threads", "1"]
        words = ["denoise", str(bench.mics), "-o", str(self.out), "--checkpoint", checkpoint_of(bench.folder, model)]
        command = [sys.executable, "-m", "cryoplug", *words, "--no-previews", "--json", *where]
        self._start = time.perf_counter()
        self._programs = [Program(command) for _ in range(1 if bench.device == "cuda" else count)]
        self._said: list[str] = []
        self._readers = [
            threading.Thread(target=read, args=(program,), daemon=True)
            for program in self._programs
            for read in (self._read, self._listen)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, program: Program) -> None:
        assert program.process.stdout is not None
        for line in program.process.stdout:
            if json.loads(line).get("status") == "done":
                self.times.append(time.perf_counter() - self._start)

    def _listen(self, program: Program) -> None:
        assert program.process.stderr is not None
        self._said.extend(program.process.stderr)

    def kill_one(self) -> None:
        """Kill a process that computes."""
        first = self._programs[0].process.pid
        os.kill(first if self._device == "cpu" else children(first)[0], signal.SIGKILL)

    def wait(self, deadline: Deadline) -> list[int]:
        """Wait for the end; give the exit codes."""
        try:
            codes = [program.process.wait(deadline.left()) for program in self._programs]
        finally:
            for program in self._programs:
                program.kill()
        self.wall_s = time.perf_counter() - self._start
        for reader in self._readers:
            reader.join()
        if any(code not in (0, -signal.SIGKILL) for code in codes) or not self.times:
            raise RuntimeError(f"denoise: exit codes {codes}\n{''.join(self._said[-30:])}")
        return codes

    def rate(self) -> float:
        """Give files a second after the first tenth."""
        times = sorted(self.times)
        first = len(times) // 10
        return (len(times) - 1 - first) / (times[-1] - times[first])

    def digest(self) -> str:
        """Give a hash of all pixels; headers name time and process."""
        with ThreadPoolExecutor(8) as pool:
            each = pool.map(
                lambda path: hashlib.sha256(path.read_bytes()[1024:]).digest(), sorted(self.out.glob("*.mrc"))
            )
        return hashlib.sha256(b"".join(each)).hexdigest()

    def remove(self) -> None:
        """Delete the results."""
        shutil.rmtree(self.out)


def children(parent: int) -> list[int]:
    """Give the processes that a command with several GPUs began, without multiprocessing's own."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            above = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words = (folder / "cmdline").read_text()
        except (OSError, ValueError, IndexError):
            continue
        if above == parent and "spawn_main" in words:
            found.append(int(folder.name))
    return sorted(found)


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


def make_linked_files(folder: Path, count: int, side: int) -> None:
    """Write a few different micrographs, and links to them."""
    folder.mkdir()

    def write(number: int) -> None:
        pixels = np.random.default_rng(number).standard_normal((side, side), np.float32) * 3 + 20
        write_mrc(folder / f"m{number:03d}.mrc", pixels, pixel_size_angstrom=PIXEL_SIZE_ANGSTROM)

    with ThreadPoolExecutor(DIFFERENT) as pool:
        list(pool.map(write, range(min(DIFFERENT, count))))
    for number in range(DIFFERENT, count):
        (folder / f"m{number:03d}.mrc").hardlink_to(folder / f"m{number % DIFFERENT:03d}.mrc")


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


def training(bench: Bench, count: int, batch: int, crops: int, name: str) -> list[str]:
    """Give the command that trains for two epochs, of which the second one is not slowed by reading the set."""
    words = ["train", str(bench.store), *bench.sizes.train, "--epochs", "2", "--crops-per-epoch", str(crops)]
    words += ["--batch-size", str(batch), "--device", bench.device, "--save", "--no-evaluation", "--json"]
    words += ["--checkpoint-dir", str(bench.folder / name), "--val-split", "0.25"]
    return torchrun(count, ["-m", "cryoplug", *words])


def epochs_of(text: str) -> list[dict[str, float]]:
    """Give the records of the epochs."""
    records = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [record for record in records if record["type"] == "epoch"]


def losses_of(records: Sequence[dict[str, float]]) -> list[float]:
    """Give the losses of all epochs."""
    return [record[name] for record in records for name in ("train_loss", "val_loss")]


def general(bench: Bench, count: int, *, pools: int, beside: int | None = None) -> Program:
    """Start training by the recipe; `beside` is the card that it alone sees."""
    state = bench.folder / f"state-{count}-{pools}"
    words = [str(ROOT / "examples/train_general/train.py"), "--state", str(state), "--pools", str(pools)]
    variables = {"CUDA_VISIBLE_DEVICES": ""} if bench.device == "cpu" else card(bench, beside)
    return Program(torchrun(count, [*words, *bench.sizes.recipe]), variables)


def said_by_recipe(text: str) -> tuple[list[float], float]:
    """Give the losses of the last report, dB, and its steps a second."""
    found = re.findall(r"image ([-+.\d]+) dB, particles ([-+.\d]+) dB, ([.\d]+) steps/s", text)
    if not found:
        raise RuntimeError(f"the recipe said no losses\n{text[-2000:]}")
    image, particles, pace = map(float, found[-1])
    return [image, particles], pace


def card(bench: Bench, number: int | None) -> dict[str, str]:
    """Give the variable that shows a program one of the GPUs alone; None: all of them."""
    if number is None or bench.device == "cpu":
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
