"""`cryoplug denoise` of many micrographs on a GPU, from a RAM disk to a RAM disk, against `cp` of the same files.

    python benchmarks/gpu_denoise.py [--files 100] [--size 4096] [--folder /dev/shm] [--csv gpu_denoise.csv]

Parts, in turn within each round: `cp` of all files, `cryo_cnn`, `unet` at full resolution (depth 3, width 32), and
`unet_angpix` (depth 3, width 32, stem 2, skip none) at twice the pixel size of the files, as the command does it by itself
(on a GPU in eight orientations) and with `--tta off`, and the general model at two pixel sizes, at one of them also without
previews. Each command runs in a process of its own, which first denoises two other files: what is timed is the whole command,
from finding the files to the last record, but neither the start of Python, torch and CUDA nor the compilation of kernels; the
time of the process from its start to its end is printed beside it. The rate from the first tenth of the files on leaves out
what a command pays once: weights, locked memory, the page. Then: the stages of one micrograph one after another, what the
bookkeeping of a file takes, differences from the CPU, and micrographs of a quarter and of four times the area.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cryoplug
from cryoplug.core import fourier_crop
from cryoplug.formats.mrc import write_mrc
from cryoplug.inference.denoiser import Denoiser
from cryoplug.inference.regrid import Regrid
from cryoplug.inference.whole.regrid import finish, resample_image
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec
from rows import append_rows

PIXEL_SIZE_ANGSTROM = 1.0
"""Of the files."""
ANGPIX = 2.0
"""What `unet_angpix` works at."""
CONFIGS: dict[str, dict[str, Any]] = {
    "cryo_cnn": {},
    "unet": {},
    "unet_angpix": {"depth": 3, "width": 32, "stem": 2, "skip": "none"},
}
MODELS = tuple(CONFIGS)
PROGRAMS: dict[str, tuple[str, ...]] = {
    "cryo_cnn": ("cryo_cnn",),
    "unet": ("unet",),
    "unet_angpix": ("unet_angpix",),
    "unet_angpix, --tta off": ("unet_angpix", "--tta", "off"),
    "general model, 0.8 A/px": ("general", "--pixel-size", "0.8"),
    "general model, 1.3 A/px": ("general", "--pixel-size", "1.3"),
    "general model, 0.8 A/px, --no-previews": ("general", "--pixel-size", "0.8", "--no-previews"),
}
"""What is timed: a network, and options of its command. The general model is the one that cryoplug brings."""
STAGED = {
    **{model: (model, PIXEL_SIZE_ANGSTROM) for model in MODELS},
    "general model, 0.8 A/px": ("general", 0.8),
    "general model, 1.3 A/px": ("general", 1.3),
}
"""What is timed stage by stage: a network, and the pixel size that the files are said to have."""

COMMAND = """
import json, sys, threading, time
from pathlib import Path
import torch
from benchmarks.device_memory import limit, watch_memory
from cryoplug.cli.main import run
from cryoplug.workflows.denoise.work import Work
checkpoint, source, target, warm, device, memory, *options = sys.argv[1:]
limit(float(memory))
spent, lock = {"claim": 0.0, "begin": 0.0, "finish": 0.0}, threading.Lock()
def watch(name):
    real = getattr(Work, name)
    def timed(*arguments):
        start = time.perf_counter()
        try:
            return real(*arguments)
        finally:
            with lock:
                spent[name] += time.perf_counter() - start
    setattr(Work, name, timed)
for name in spent:
    watch(name)
seen = watch_memory()
def denoise(source, target):
    start = time.perf_counter()
    code = run(["denoise", source, "--checkpoint", checkpoint, "-o", target, "--device", device, "--json",
                "--star", target + ".star", *options])
    assert code == 0, code
    return time.perf_counter() - start
denoise(warm, target + "-warm")
spent.update(dict.fromkeys(spent, 0.0))
seen.clear()
gpu = device != "cpu"
if gpu:
    torch.cuda.reset_peak_memory_stats()
seconds = denoise(source, target)
peak = torch.cuda.max_memory_allocated() / 2**20 if gpu else 0
times = sorted(path.stat().st_mtime for path in Path(target).glob("*.mrc"))
first = len(times) // 10
rate = (len(times) - 1 - first) / (times[-1] - times[first]) if len(times) > 2 else 0.0
print(json.dumps({"seconds": seconds, "rate": rate, "peak_mib": peak, "spent": spent, "memory": seen.said()}))
"""

STAGES = """
import json, sys, time
from pathlib import Path
import numpy as np, torch
from cryoplug.core.normalization import fit_to
from cryoplug.formats.mrc import MrcMicrograph
from cryoplug.inference.denoiser import Denoiser
from cryoplug.inference.whole.pixels import DevicePixels, decode, normalised, restored, written_numbers
from cryoplug.inference.whole.regrid import finish, resample_image
path, checkpoint, device, target, pixel_size = sys.argv[1:]
denoiser = Denoiser.from_checkpoint(checkpoint, device=device)
gpu = denoiser.device.type == "cuda"
found = {}
def stage(name, work):
    start = time.perf_counter()
    result = work()
    if gpu:
        torch.cuda.synchronize()
    found.setdefault(name, []).append(1000 * (time.perf_counter() - start))
    return result
with MrcMicrograph(Path(path)) as source, torch.inference_mode():
    size = source.shape[0] * source.shape[1] * 4
    plan = denoiser.regrid.plan(source.shape, float(pixel_size), path=Path(path))
    host, back = (torch.empty(size, dtype=torch.uint8, pin_memory=gpu) for _ in range(2))
    for _ in range(8):
        stage("read", lambda: source.read_stored(0, source.shape[0], host.numpy().data))
        stored = stage("copy to the device", lambda: host.to(denoiser.device, non_blocking=True))
        pixels = stage("decode", lambda: decode(stored, source.stored_dtype, source.shape))
        if not plan.does_nothing:
            raw = pixels
            stage("measure before the crop", lambda: DevicePixels(raw, Path(path)).statistics())
            pixels = stage("Fourier crop", lambda: resample_image(raw, plan.network_shape))
        fitted = stage("measure", lambda: fit_to(DevicePixels(pixels, Path(path)), denoiser.normalize))
        seen = stage("normalise", lambda: normalised(pixels, fitted))
        denoised = stage("network", lambda: denoiser.forward_on_device(seen))
        grey = stage("grey values", lambda: restored(denoised, fitted))
        if not plan.does_nothing:
            grey = stage("padding back", lambda: finish(grey, None, plan))
        stage("measure again", lambda: written_numbers(grey, grey))
        stage("copy back", lambda: back.copy_(grey.flatten().view(torch.uint8), non_blocking=True))
        Path(target).unlink(missing_ok=True)
        stage("write", lambda: Path(target).write_bytes(back.numpy().data))
print(json.dumps({name: sorted(times)[len(times) // 2] for name, times in found.items()}))
"""


def main() -> int:
    """Run all parts, print them and append CSV rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=100, help="micrographs (default 100)")
    parser.add_argument("--size", type=int, default=4096, help="side in pixels (default 4096)")
    parser.add_argument("--rounds", type=int, default=3, help="default 3")
    parser.add_argument("--device", default="cuda", help="default cuda")
    parser.add_argument("--parts", nargs="+", choices=[part.__name__ for part in PARTS], help="default: all")
    parser.add_argument("--programs", nargs="+", choices=list(PROGRAMS), help="networks that are timed (default: all)")
    parser.add_argument(
        "--memory-gib",
        type=float,
        nargs="+",
        default=[0.0],
        help="device memory a command may take, several in turn (default: 0, all)",
    )
    parser.add_argument("--no-stages", action="store_true", help="leave the stages of one micrograph out")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="the RAM disk (default /dev/shm)")
    parser.add_argument("--csv", type=Path, default=Path("gpu_denoise.csv"), help="rows are appended to it")
    arguments = parser.parse_args()
    gpu = arguments.device != "cpu"
    common = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "gpu": torch.cuda.get_device_name() if gpu else "none",
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cryoplug": cryoplug.__version__,
    }
    names = ["part", "program", "files", "shape", "dtype", "median", "unit", "range", "peak_mib"]
    with tempfile.TemporaryDirectory(prefix="cryoplug-benchmark-", dir=arguments.folder) as name:
        folder = Path(name)
        for model in MODELS:
            make_checkpoint(folder / model, model)
        parts = [part for part in PARTS if not arguments.parts or part.__name__ in arguments.parts]
        rows = ({**common, **row} for part in parts for row in part(folder, arguments))
        append_rows(arguments.csv, rows, [*common, *names])
    return 0


def rates(folder: Path, arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Time `cp` and all networks in turn."""
    source = make_files(folder / "in", arguments.files, arguments.size)
    warm = make_files(folder / "warm", 2, arguments.size)
    chosen = {name: words for name, words in PROGRAMS.items() if not arguments.programs or name in arguments.programs}
    programs = {
        f"{name}, {memory:g} GiB of device memory" if memory else name: (memory, words)
        for name, words in chosen.items()
        for memory in arguments.memory_gib
    }
    seconds: dict[str, list[float]] = {"cp": [], **{program: [] for program in programs}}
    steady: dict[str, list[float]] = {program: [] for program in programs}
    peaks: dict[str, float] = {}
    for _ in range(arguments.rounds):
        copy = folder / "copy"
        copy.mkdir()
        start = time.perf_counter()
        subprocess.run(["cp", *map(str, sorted(source.glob("*.mrc"))), str(copy)], check=True)
        seconds["cp"].append(time.perf_counter() - start)
        shutil.rmtree(copy)
        for program, (memory, (model, *options)) in programs.items():
            done = command(folder, where(folder, model), source, warm, arguments.device, *options, memory_gib=memory)
            seconds[program].append(done["seconds"])
            steady[program].append(done["rate"])
            peaks[program] = done["peak_mib"]
            each = {name: f"{1000 * value / arguments.files:.2f}" for name, value in done["spent"].items()}
            print(
                f"{program}: {done['seconds']:.2f} s, {done['rate']:.1f} files/s from the first tenth on, process "
                f"{done['process']:.2f} s, {done['peak_mib']:.0f} MiB; ms a file: {each}; memory: {done['memory']}",
                flush=True,
            )
    shape = f"{arguments.size}x{arguments.size}"
    part = "files/s, RAM disk to RAM disk"
    for program, times in seconds.items():
        summary = of([arguments.files / item for item in times], "files/s")
        peak = round(peaks.get(program, 0))
        yield show(
            {"part": part, "program": program, "files": arguments.files, "shape": shape, **summary, "peak_mib": peak}
        )
    for program, found in steady.items():
        row = {"part": f"{part}, from the first tenth on", "program": program, "files": arguments.files, "shape": shape}
        yield show({**row, **of(found, "files/s")})
    for program in programs:
        ratio = statistics.median(seconds["cp"]) / statistics.median(seconds[program])
        print(f"{program}: {100 * ratio:.0f} % of the rate of cp", flush=True)
    first = next(source.glob("*.mrc"))
    for program, (model, pixel_size) in () if arguments.no_stages else STAGED.items():
        stages = child(STAGES, first, where(folder, model), arguments.device, folder / "stage.mrc", pixel_size)
        for stage, value in stages.items():
            yield show({"part": f"stage: {stage}", "program": program, "shape": shape, **of([value], "ms")})
    shutil.rmtree(source)


def differences(folder: Path, arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Compare with the plain float32 layers on the CPU, on a smaller image."""
    size = min(1024, arguments.size)
    image = np.random.default_rng(2).gamma(3.0, 2.0, (size, size)).astype(np.float32)
    for program, (model, pixel_size) in STAGED.items():
        options: dict[str, Any] = {"tta": "on"} if model == "general" else {"tta": "off"}
        whole = Denoiser.from_checkpoint(where(folder, model), device="cpu", **options)
        reference = whole.denoise(image, pixel_size_angstrom=pixel_size).astype(np.float64)
        for precision in ("auto", "float32", "float16", "bf16") if arguments.device != "cpu" else ("auto",):
            options["precision"] = precision
            denoiser = Denoiser.from_checkpoint(where(folder, model), device=arguments.device, **options)
            error = np.abs(denoiser.denoise(image, pixel_size_angstrom=pixel_size) - reference)
            spread = float(np.ptp(reference))
            yield show(
                {
                    "part": "difference from the CPU, of the output's range: largest, root mean square",
                    "program": program,
                    "shape": f"{size}x{size}",
                    "dtype": f"{precision}: {denoiser.network.precision}, kernels {denoiser.network.kernels.kernels}",
                    "median": f"{error.max() / spread:.2e}",
                    "range": f"{np.sqrt((error**2).mean()) / spread:.2e}",
                }
            )


def grid_differences(folder: Path, arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Compare the change of pixel size on the device with the float64 one on the CPU, for dose-weighted grey values."""
    size = min(4096, arguments.size)
    image = np.random.default_rng(3).normal(6802, 8.9, (size, size)).astype(np.float32)
    for target in (2.0, 2.6, 0.9):
        plan = Regrid(target).plan(image.shape, PIXEL_SIZE_ANGSTROM, path=folder)
        small = fourier_crop.resample_image(image, plan.network_shape)
        whole = fourier_crop.resample_image(small, plan.shape)
        found = resample_image(torch.from_numpy(image).to(arguments.device), plan.network_shape)
        back = finish(torch.from_numpy(small).to(arguments.device), None, plan)
        for name, pixels, reference in (("crop", found, small), ("back", back, whole)):
            error = np.abs(pixels.cpu().numpy().astype(np.float64) - reference)
            spread = float(np.ptp(reference))
            yield show(
                {
                    "part": "difference from the CPU, of the output's range: largest, root mean square",
                    "program": f"{name}, {PIXEL_SIZE_ANGSTROM:g} A and {target:g} A, mean 6802",
                    "shape": f"{size}x{size}",
                    "dtype": f"one float32 step is {np.spacing(np.float32(6802)) / spread:.2e}",
                    "median": f"{error.max() / spread:.2e}",
                    "range": f"{np.sqrt((error**2).mean()) / spread:.2e}",
                }
            )


def areas(folder: Path, arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Time the same number of pixels in smaller and in larger micrographs."""
    for factor in (0.5, 1, 2):
        size, files = int(arguments.size * factor), max(1, int(arguments.files / factor**2))
        source, warm = make_files(folder / "area", files, size), make_files(folder / "area-warm", 2, size)
        done = [command(folder, folder / "cryo_cnn", source, warm, arguments.device)]
        stages = child(STAGES, source / "m000.mrc", folder / "cryo_cnn", arguments.device, folder / "stage.mrc", 1)
        on_device = sum(value for name, value in stages.items() if name not in ("read", "write"))
        yield show(
            {
                "part": "area: copies and all that the device does",
                "program": "cryo_cnn",
                "files": 1,
                "shape": f"{size}x{size}",
                **of([1e6 * on_device / size**2], "ns/pixel"),
            }
        )
        shutil.rmtree(source)
        shutil.rmtree(warm)
        yield show(
            {
                "part": "area",
                "program": "cryo_cnn",
                "files": files,
                "shape": f"{size}x{size}",
                **of([1e9 * item["seconds"] / (files * size * size) for item in done], "ns/pixel"),
                "peak_mib": round(done[0]["peak_mib"]),
            }
        )


def where(folder: Path, model: str) -> Path:
    """Give the checkpoint of a network; the general model goes by its name."""
    return Path(model) if model == "general" else folder / model


def make_files(folder: Path, count: int, size: int) -> Path:
    """Write equal micrographs."""
    folder.mkdir()
    first = folder / "m000.mrc"
    pixels = np.random.default_rng(0).gamma(3.0, 2.0, (size, size)).astype(np.float32)
    write_mrc(first, pixels, pixel_size_angstrom=PIXEL_SIZE_ANGSTROM)
    for number in range(1, count):
        shutil.copyfile(first, folder / f"m{number:03d}.mrc")
    return folder


def make_checkpoint(folder: Path, name: str) -> None:
    """Save a network with weights from a seed; those of a U-Net's output are zero until it is trained, so not here."""
    model, config = name.removesuffix("_angpix"), CONFIGS[name]
    angpix = ANGPIX if name.endswith("_angpix") else None
    state = model_spec(model).build(seed=0, config=config).state_dict()
    weights = {key: tensor.numpy().copy() for key, tensor in state.items()}
    if model == "unet":
        shape = weights["output.weight"].shape
        weights["output.weight"] = np.random.default_rng(1).normal(0, 0.03, shape).astype(np.float32)
    details = {} if angpix is None else {"angpix": angpix}
    save_checkpoint(folder / "epoch_0001", Checkpoint(model, weights, config, "zscore", angpix, details), 0.0)


def command(
    folder: Path, checkpoint: Path, source: Path, warm: Path, device: str, *options: str, memory_gib: float = 0.0
) -> dict[str, Any]:
    """Denoise a folder in a fresh process and remove the results; 0 GiB are all that the device has."""
    target = folder / "out"
    start = time.perf_counter()
    done = child(COMMAND, checkpoint, source, target, warm, device, memory_gib, *options)
    done["process"] = time.perf_counter() - start
    for path in (target, Path(f"{target}-warm")):
        shutil.rmtree(path)
        Path(f"{path}.star").unlink()
    return done


def child(code: str, *arguments: object) -> dict[str, Any]:
    """Run a script in a fresh interpreter and read the JSON in its last line."""
    return json.loads(output([sys.executable, "-c", code, *arguments]).strip().splitlines()[-1])


def output(command: list[object]) -> str:
    """Run a program; give its stdout."""
    words = [str(word) for word in command]
    # The interpreter's -c looks for packages in the working folder first: the checkout that this file is part of.
    done = subprocess.run(words, cwd=Path(__file__).resolve().parents[1], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"exit {done.returncode}\n{done.stderr[-3000:]}")
    return done.stdout


def of(values: list[float], unit: str) -> dict[str, object]:
    """Give median and range."""
    return {
        "median": f"{statistics.median(values):.4g}",
        "unit": unit,
        "range": f"{min(values):.4g}-{max(values):.4g}",
    }


def show(row: dict[str, object]) -> dict[str, object]:
    """Print a row and give it back."""
    print(json.dumps(row), flush=True)
    return row


PARTS = (rates, differences, grid_differences, areas)

if __name__ == "__main__":
    sys.exit(main())
