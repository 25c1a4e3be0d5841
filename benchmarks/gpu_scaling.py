"""`cryoplug denoise --gpu 0,1` and training by torchrun, on one GPU and on several of one host.

    python benchmarks/gpu_scaling.py [--processes 1,2] [--parts denoise,kill,train,recipe,reduce] [--csv gpu_scaling.csv]

Each row of the CSV file is a part, a configuration and a number of processes: its rate, how many times that of one process,
and whether the result is that of one process.

denoise   All files from a RAM disk to a RAM disk, by the general model and by `cryo_cnn`, without previews. The rate counts
          from the first tenth of the files on, so that the start of Python and CUDA is not in it; `wall_s` has it. `cp` of the
          same files shows what the disk allows. Pixels must be those of one process, bit for bit.
kill      The same with the general model; one process is killed with -9 after a quarter of the files. All must be done.
train     The `unet` of the recipe for halves. N processes take N times the patches a step; the rate is beside that of one
          process with the same --batch-size, the losses are beside those of one process with N times the --batch-size.
recipe    The general model's recipe with a pool of fields for each process, likewise.
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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from cryoplug.formats.mrc import write_mrc
from cryoplug.workflows.convert import ConvertRequest, convert
from gpu_denoise import make_checkpoint, make_files
from rows import append_rows

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = (
    *("date", "gpu", "torch", "part", "program", "processes", "shape", "rate", "unit"),
    *("times_one", "same_as_one", "wall_s", "note"),
)
PARTS = ("denoise", "kill", "train", "recipe", "reduce")
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
    recipe: tuple[str, ...]
    reduce: tuple[int, ...]


FULL = Sizes(
    files=200,
    side=4096,
    models=("general", "cryo_cnn"),
    micrographs=16,
    micrograph_side=4096,
    train=("--model", "unet", "--recipe", "halves", "--crop-size", "256"),
    batch=16,
    steps=1000,
    recipe=("--steps", "1500", "--cool-down", "500"),
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


def main() -> int:
    """Measure all parts and append the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--processes", default="1,2", help="how many, with commas; 1 is always measured first")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--files", type=int, help="micrographs to denoise")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="a RAM disk")
    parser.add_argument("--csv", type=Path, default=Path("gpu_scaling.csv"))
    arguments = parser.parse_args()
    sizes = FULL if arguments.device == "cuda" else DRY
    if arguments.files:
        sizes = replace(sizes, files=arguments.files)
    counts = sorted({1, *map(int, arguments.processes.split(","))})
    there = torch.cuda.device_count() if arguments.device == "cuda" else counts[-1]
    if there < counts[-1]:
        parser.error(f"--processes {counts[-1]}, but {there} GPUs are there")
    measures = {"denoise": denoise, "kill": kill, "train": train, "recipe": recipe, "reduce": reduce}
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="gpu_scaling.") as name:
        for part in arguments.parts.split(","):
            folder = Path(name) / part
            folder.mkdir()
            rows = measures[part](folder, arguments.device, counts, sizes)
            append_rows(arguments.csv, (shown(part, arguments.device, row) for row in rows), COLUMNS)
            shutil.rmtree(folder)
    return 0


def denoise(folder: Path, device: str, counts: Sequence[int], sizes: Sizes) -> Iterator[dict[str, object]]:
    """Measure `denoise` by several processes, and `cp` of the same files."""
    source = make_files(folder / "mics", sizes.files, sizes.side)
    shape = f"{sizes.files} x {sizes.side}x{sizes.side}"
    start = time.perf_counter()
    subprocess.run(["cp", "-r", source, folder / "copy"], check=True)
    took = time.perf_counter() - start
    yield {
        "program": "cp",
        "processes": 1,
        "shape": shape,
        "rate": sizes.files / took,
        "unit": "files/s",
        "wall_s": took,
    }
    shutil.rmtree(folder / "copy")
    for model in sizes.models:
        one, pixels = 0.0, ""
        for count in counts:
            run = Denoising(folder, checkpoint_of(folder, model), device, count)
            run.wait()
            one, pixels = (run.rate(), run.digest()) if count == 1 else (one, pixels)
            yield {
                **{"program": model, "processes": count, "shape": shape, "rate": run.rate(), "unit": "files/s"},
                **{"times_one": run.rate() / one, "same_as_one": run.digest() == pixels, "wall_s": run.wall_s},
            }
            run.remove()


def kill(folder: Path, device: str, counts: Sequence[int], sizes: Sizes) -> Iterator[dict[str, object]]:
    """Kill one of several processes in the middle; the others must do all."""
    make_files(folder / "mics", sizes.files, sizes.side)
    for count in counts[1:]:
        run = Denoising(folder, checkpoint_of(folder, sizes.models[0]), device, count)
        while len(run.times) < sizes.files // 4:
            time.sleep(0.01)
        run.kill_one()
        codes = run.wait()
        done = len(list((folder / "out").glob("*.mrc")))
        yield {
            **{"program": sizes.models[0], "processes": count, "shape": f"{sizes.files} x {sizes.side}x{sizes.side}"},
            **{"rate": run.rate(), "unit": "files/s", "same_as_one": done == sizes.files, "wall_s": run.wall_s},
            "note": f"one killed after a quarter: {done} of {sizes.files} done, exit codes {codes}",
        }
        run.remove()


def train(folder: Path, device: str, counts: Sequence[int], sizes: Sizes) -> Iterator[dict[str, object]]:
    """Measure training of the `unet` on halves."""
    store = halves_store(folder, sizes)
    one = 0.0
    for count in counts:
        crops = sizes.steps * sizes.batch * count
        records = trained(folder, store, device, count, sizes.batch, crops, sizes)
        rate = float(records[-1]["samples_per_s"])
        one = rate if count == 1 else one
        row: dict[str, object] = {"program": "unet, halves", "processes": count, "rate": rate, "unit": "crops/s"}
        row |= {"shape": f"{sizes.batch} a process", "times_one": rate / one}
        if count > 1:
            alone = trained(folder, store, device, 1, sizes.batch * count, crops, sizes)
            apart = max(
                abs(a[name] / b[name] - 1)
                for a, b in zip(records, alone, strict=True)
                for name in ("train_loss", "val_loss")
            )
            row |= {
                "same_as_one": apart <= SAME_LOSS,
                "note": f"losses {apart:.1e} from one process of {count} x the batch",
            }
        yield row


def recipe(folder: Path, device: str, counts: Sequence[int], sizes: Sizes) -> Iterator[dict[str, object]]:
    """Measure the general model's recipe."""
    one = 0.0
    for count in counts:
        losses, rate = general(folder, device, count, pools=count, sizes=sizes)
        one = rate if count == 1 else one
        row: dict[str, object] = {
            "program": "general model",
            "processes": count,
            "rate": rate * count,
            "unit": "steps/s x pools",
        }
        row |= {"times_one": rate * count / one}
        if count > 1:
            alone, _ = general(folder, device, 1, pools=count, sizes=sizes)
            apart = max(abs(a - b) for a, b in zip(losses, alone, strict=True))
            row |= {
                "same_as_one": apart <= SAME_DECIBELS,
                "note": f"losses {apart:.1e} dB from one process with {count} pools",
            }
        yield row


def reduce(folder: Path, device: str, counts: Sequence[int], sizes: Sizes) -> Iterator[dict[str, object]]:
    """Measure what averaging the gradients takes."""
    script = folder / "reduce.py"
    script.write_text(REDUCE)
    for count in counts[1:]:
        words = [str(script), device, ",".join(map(str, sizes.reduce)), "50"]
        for line in output(torchrun(count, words)).splitlines():
            if line.startswith("took"):
                _, size, took = line.split()
                note = f"{4e-9 * int(size) / float(took):.3g} GB/s of gradients"
                yield {
                    "program": "average",
                    "processes": count,
                    "shape": size,
                    "rate": 1e3 * float(took),
                    "unit": "ms",
                    "note": note,
                }


class Denoising:
    """A denoise run under way: one command with several GPUs, or on a CPU several commands in one folder."""

    def __init__(self, folder: Path, checkpoint: str, device: str, count: int) -> None:
        self._out = folder / "out"
        where = (
            ["--gpu", ",".join(map(str, range(count)))] if device == "cuda" else ["--device", "cpu", "--threads", "1"]
        )
        words = [
            "denoise",
            str(folder / "mics"),
            "-o",
            str(self._out),
            "--checkpoint",
            checkpoint,
            "--no-previews",
            "--json",
        ]
        command = [sys.executable, "-m", "cryoplug", *words, *where]
        self._start = time.perf_counter()
        self._device = device
        self.times: list[float] = []
        """When a file was done, seconds since the start."""
        self.wall_s = 0.0
        """Of the whole run."""
        self._commands = [
            subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            for _ in range(1 if device == "cuda" else count)
        ]
        self._readers = [threading.Thread(target=self._read, args=(item,)) for item in self._commands]
        for reader in self._readers:
            reader.start()

    def _read(self, command: subprocess.Popen[str]) -> None:
        assert command.stdout is not None
        for line in command.stdout:
            if json.loads(line).get("status") == "done":
                self.times.append(time.perf_counter() - self._start)

    def kill_one(self) -> None:
        """Kill a process that computes."""
        if self._device == "cpu":
            self._commands[0].kill()
            return
        os.kill(children(self._commands[0].pid)[0], signal.SIGKILL)

    def wait(self) -> list[int]:
        """Wait for the end; give the exit codes."""
        codes = [command.wait() for command in self._commands]
        self.wall_s = time.perf_counter() - self._start
        for reader in self._readers:
            reader.join()
        if any(code not in (0, -signal.SIGKILL) for code in codes):
            raise SystemExit(f"denoise: exit codes {codes}")
        return codes

    def rate(self) -> float:
        """Give files a second after the first tenth."""
        times = sorted(self.times)
        first = len(times) // 10
        return (len(times) - 1 - first) / (times[-1] - times[first])

    def digest(self) -> str:
        """Give a hash of all pixels; headers name time and process."""
        digest = hashlib.sha256()
        for path in sorted(self._out.glob("*.mrc")):
            digest.update(path.read_bytes()[1024:])
        return digest.hexdigest()

    def remove(self) -> None:
        """Delete the results."""
        shutil.rmtree(self._out)


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


def halves_store(folder: Path, sizes: Sizes) -> Path:
    """Convert two halves of counted waves to a store of whole micrographs."""
    raw = folder / "raw"
    raw.mkdir()
    rng = np.random.default_rng(3)
    y, x = np.mgrid[: sizes.micrograph_side, : sizes.micrograph_side]
    for number in range(sizes.micrographs):
        signal = (1.0 + 0.5 * np.sin(y / (3.0 + number % 5)) * np.cos(x / 5.0)).astype(np.float32)
        for half in ("EVN", "ODD"):
            write_mrc(raw / f"m{number}_{half}.mrc", rng.poisson(signal).astype(np.float32), pixel_size_angstrom=1.5)
    request = ConvertRequest((str(raw),), folder / "store", pairs="halves", store="whole", patch_size=32, test_split=0)
    if convert(replace(request, accept_unproven=True)).exit_code:
        raise SystemExit("convert failed")
    shutil.rmtree(raw)
    return folder / "store"


def trained(
    folder: Path, store: Path, device: str, count: int, batch: int, crops: int, sizes: Sizes
) -> list[dict[str, float]]:
    """Train for two epochs; give the records of both, of which the second one is not slowed by reading the set."""
    target = folder / "models"
    words = [
        "train",
        str(store),
        *sizes.train,
        "--epochs",
        "2",
        "--crops-per-epoch",
        str(crops),
        "--batch-size",
        str(batch),
    ]
    words += [
        "--device",
        device,
        "--save",
        "--no-evaluation",
        "--checkpoint-dir",
        str(target),
        "--json",
        "--val-split",
        "0.25",
    ]
    lines = output(torchrun(count, ["-m", "cryoplug", *words])).splitlines()
    shutil.rmtree(target)
    return [json.loads(line) for line in lines if line.startswith('{"epoch"')]


def general(folder: Path, device: str, count: int, *, pools: int, sizes: Sizes) -> tuple[list[float], float]:
    """Train by the recipe; give the losses of the last report, dB, and its steps a second."""
    state = folder / f"state-{count}-{pools}"
    words = [str(ROOT / "examples/train_general/train.py"), "--state", str(state), "--pools", str(pools), *sizes.recipe]
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    text = output(torchrun(count, words), **hidden)
    found = re.findall(r"image ([-+.\d]+) dB, particles ([-+.\d]+) dB, ([.\d]+) steps/s", text)
    if not found:
        raise SystemExit(f"the recipe said no losses\n{text[-2000:]}")
    image, particles, pace = map(float, found[-1])
    return [image, particles], pace


def torchrun(count: int, words: Sequence[str]) -> list[str]:
    """Give the command that starts processes on this host; one without torchrun."""
    if count == 1:
        return [sys.executable, *words]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), *words]


def output(command: Sequence[str], **environment: str) -> str:
    """Run a program; give its stdout."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=variables)
    if done.returncode:
        raise SystemExit(f"exit {done.returncode}: {' '.join(command)}\n{done.stderr[-3000:]}")
    return done.stdout


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
