"""Training and denoising with `cryo_cnn` on a GPU: cryoplug against a plain PyTorch program, both in this run.

    python benchmarks/gpu_training.py --plain plain_pytorch_train.py [--csv gpu_training.csv]

Parts (``--parts``): ``step``, a training step with the batch on the device (float32, TF32, and cryoplug, each with Adam);
``networks``, the same for `unet` and `residual_cnn` with float32 and bf16, steps recorded or launched one by one;
``denoise``, one 4096 x 4096 image that is on the device; ``stages``, reading, copying and computing each for itself;
``end``, training end to end from raw bins in the page cache, with every kind of cache, from the same start, so that the
validation losses can be compared. The plain program has the interface of `cpu_training.py`'s, with ``--workers N``.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from cryoplug.kernels.dispatch import choose_kernels, fused_network
from cryoplug.models.registry import model_spec
from cryoplug.store.manifest import Manifest, MicrographEntry
from cryoplug.store.pairs import Crop, PairStore, create_store, open_store
from cryoplug.training.config import TrainConfig
from cryoplug.training.data.augment import Draw
from cryoplug.training.data.cache import GpuCache
from cryoplug.training.data.device_loader import DeviceLoader
from cryoplug.training.engine import WholeBatchEngine, open_engine
from cryoplug.training.steps import make_optimizer, open_steps
from rows import append_rows

STEPS, REPEATS = 20, 15
PARTS = ("step", "networks", "denoise", "stages", "end")
IMAGE_PX = 4096


def main() -> int:
    """Run all parts, print them and append CSV rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plain", type=Path, required=True, help="path of the plain program")
    parser.add_argument(
        "--patches", type=int, default=1000, help="patches in the set; a tenth validates (default 1000)"
    )
    parser.add_argument("--size", type=int, default=1024, help="side of a patch (default 1024)")
    parser.add_argument("--batch-size", type=int, default=8, help="default 8")
    parser.add_argument("--epochs", type=int, default=3, help="default 3")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    parser.add_argument("--only", default="", help="end to end: only programs whose name holds this")
    parser.add_argument("--device", default="cuda", help="cpu: a dry run of the stages (default cuda)")
    parser.add_argument("--workers", type=int, default=4, help="of the plain program's loader (default 4)")
    parser.add_argument("--csv", type=Path, default=Path("gpu_training.csv"), help="rows are appended to it")
    arguments = parser.parse_args()
    device = torch.device("cuda", 0) if arguments.device == "cuda" else torch.device("cpu")
    print("kernels:", choose_kernels(model_spec("cryo_cnn").build(seed=0), device).reason, flush=True)
    common = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else "none",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }
    names = ["part", "program", "shape", "dtype", "median", "unit", "range", "peak_mib", "val_loss", "total_s"]

    def show(row: dict[str, object]) -> dict[str, object]:
        print(json.dumps(row), flush=True)
        return {**common, **row}

    with tempfile.TemporaryDirectory(prefix="cryoplug-benchmark-") as name:
        folder = Path(name)
        if {"stages", "end"} & {*arguments.parts}:
            make_bins(folder, count=arguments.patches, size=arguments.size)
        parts = {
            "step": lambda: step_rows(device, arguments),
            "networks": lambda: network_rows(device),
            "denoise": lambda: denoise_rows(device),
            "stages": lambda: stage_rows(folder, device, arguments),
            "end": lambda: end_to_end_rows(folder, arguments),
        }
        rows = itertools.chain.from_iterable(parts[part]() for part in arguments.parts)
        append_rows(arguments.csv, map(show, rows), [*common, *names])
    return 0


def step_rows(device: torch.device, arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Time a step with everything on the device."""
    shape = (arguments.batch_size, 1, arguments.size, arguments.size)
    noisy, clean = torch.randn(shape, device=device), torch.randn(shape, device=device)
    for program, dtype in (("plain", "float32"), ("plain", "TF32"), ("cryoplug", "float16 inside")):
        with contextlib.ExitStack() as stack:
            stack.callback(setattr, torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
            torch.backends.cudnn.allow_tf32 = dtype == "TF32"
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            step = plain_step if program == "plain" else cryoplug_step
            run = stack.enter_context(step(device, noisy, clean))
            seconds = [item / STEPS for item in timed(run, times=STEPS)]
        yield {
            "part": "step with Adam, data on the device",
            "program": program,
            "shape": "x".join(map(str, shape)),
            "dtype": dtype,
            **summary([arguments.batch_size / item for item in seconds], "images/s"),
            "peak_mib": round(torch.cuda.max_memory_allocated(device) / 2**20),
        }


@contextlib.contextmanager
def plain_step(device: torch.device, noisy: torch.Tensor, clean: torch.Tensor) -> Iterator[Callable[[], None]]:
    """Give a step as anybody would write it."""
    module = model_spec("cryo_cnn").build(seed=0).to(device)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)

    def run() -> None:
        optimizer.zero_grad()
        functional.mse_loss(module(noisy), clean).backward()
        optimizer.step()

    yield run


@contextlib.contextmanager
def cryoplug_step(
    device: torch.device,
    noisy: torch.Tensor,
    clean: torch.Tensor,
    *,
    model: str = "cryo_cnn",
    options: Mapping[str, Any] | None = None,
    precision: str = "float32",
    recorded: bool | None = None,
) -> Iterator[Callable[[], None]]:
    """Give the step of the training loop, with its reading of the losses."""
    config = TrainConfig(model=model, model_options=options or {})
    spec = model_spec(model).configured(config.model_options)
    module = spec.build(seed=0, config=config.model_options)
    with open_engine(module, spec, device=device, threads=1, precision=precision, batch_size=len(noisy)) as engine:
        assert isinstance(engine, WholeBatchEngine)
        optimizer = make_optimizer(engine, config)
        if model == "cryo_cnn":
            compare_gradients(module, noisy, clean, engine.loss_and_gradients(noisy, clean)[1])
        if recorded is not None:
            engine.worth_recording = lambda noisy: recorded  # type: ignore[method-assign]
        steps = open_steps(engine, optimizer, config, None)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        taken = itertools.count(1)

        def run() -> None:
            number = next(taken)
            steps.take(noisy, clean, lr=config.lr, number=number)
            if number % steps.queue == 0:
                steps.outcome()

        yield run


def compare_gradients(
    module: torch.nn.Module, noisy: torch.Tensor, clean: torch.Tensor, gradients: list[torch.Tensor]
) -> None:
    """Print how far gradients are from those of the layers in float32, relative to the largest of each."""
    functional.mse_loss(module(noisy), clean).backward()
    for (name, parameter), found in zip(module.named_parameters(), gradients, strict=True):
        expected = parameter.grad
        assert expected is not None
        error = float((found - expected).abs().max() / expected.abs().max())
        print(f"gradient of {name}: largest difference {error:.1e} of the largest", flush=True)
    module.zero_grad()


def denoise_rows(device: torch.device) -> Iterator[dict[str, object]]:
    """Time the network alone on one image."""
    pixels = torch.randn(1, 1, IMAGE_PX, IMAGE_PX, device=device)
    module = model_spec("cryo_cnn").build(seed=0).to(device).eval()
    with torch.inference_mode():
        expected = module(pixels)
        network = fused_network(list(module.parameters()), batch=1, height=IMAGE_PX, width=IMAGE_PX)
        error = float((network.forward(pixels) - expected).abs().max() / expected.std())
        print(f"largest difference of the fused network: {error:.2e} standard deviations", flush=True)
        for program, dtype, run in (
            ("plain", "float32", lambda: module(pixels)),
            ("cryoplug", "float16 inside", lambda: network.forward(pixels)),
        ):
            yield {
                "part": "denoise, image on the device",
                "program": program,
                "shape": f"{IMAGE_PX}x{IMAGE_PX}",
                "dtype": dtype,
                **summary([1000 * item / STEPS for item in timed(run, times=STEPS)], "ms"),
            }


def network_rows(device: torch.device) -> Iterator[dict[str, object]]:
    """Time a step of the deeper networks with everything on the device."""
    of_halves = {"depth": 3, "width": 32, "stem": 2, "skip": "none"}
    for name, model, options, shape in (
        ("unet", "unet", {}, (8, 1, 256, 256)),
        ("unet", "unet", {}, (8, 1, 1024, 1024)),
        ("unet of the recipe for halves", "unet", of_halves, (32, 1, 256, 256)),
        ("residual_cnn", "residual_cnn", {}, (8, 1, 256, 256)),
        ("residual_cnn", "residual_cnn", {}, (8, 1, 1024, 1024)),
    ):
        noisy, clean = torch.randn(shape, device=device), torch.randn(shape, device=device)
        for precision, recorded in (("float32", False), ("bf16", False), ("bf16", True)):
            torch.cuda.empty_cache()
            with cryoplug_step(
                device, noisy, clean, model=model, options=options, precision=precision, recorded=recorded
            ) as run:
                seconds = [item / 5 for item in timed(run, times=5, repeats=3)]
            yield {
                "part": "step with Adam, data on the device",
                "program": f"cryoplug, {name}, {'recorded' if recorded else 'launched'}",
                "shape": "x".join(map(str, shape)),
                "dtype": precision,
                **summary([len(noisy) / item for item in seconds], "images/s"),
                "peak_mib": round(torch.cuda.max_memory_allocated(device) / 2**20),
            }


def stage_rows(folder: Path, device: torch.device, arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Time what an epoch consists of, each for itself, in images/s."""
    shape = f"{arguments.patches}x{arguments.size}x{arguments.size}"
    order = np.random.default_rng(0).permutation(arguments.patches)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def row(stage: str, dtype: str, seconds: list[float]) -> dict[str, object]:
        rates = [arguments.patches / item for item in seconds]
        return {
            "part": f"stage: {stage}",
            "program": "cryoplug",
            "shape": shape,
            "dtype": dtype,
            **summary(rates, "images/s"),
        }

    make_float16(folder, folder / "float16", size=arguments.size)
    for dtype, path in (("float32", folder), ("float16", folder / "float16")):
        with open_store(path, patch_size=arguments.size) as store:
            for readers in (1, 4, 8):
                seconds = [timed_reading(store, order, readers) for _ in range(2)]
                yield row(f"page cache to host buffers, {readers} threads", dtype, seconds[1:])
            for readers, cached, turned in (
                (4, False, False), (6, False, False), (8, False, False), (8, False, True), (8, True, False), (8, True, True)
            ):  # fmt: skip
                cache = (
                    GpuCache(store, device, needed=True, note=lambda _: None, free_bytes=free_bytes) if cached else None
                )
                loader = DeviceLoader(
                    store, batch_size=arguments.batch_size, device=device, readers=readers, cache=cache
                )
                seconds = []
                for epoch in range(4):
                    wait()
                    begin = time.perf_counter()
                    for _ in loader.batches(order, draw=Draw(0, epoch, turn=turned)):
                        pass
                    wait()
                    seconds.append(time.perf_counter() - begin)
                where = "GPU memory to batches" if cached else f"page cache to batches on the GPU, {readers} threads"
                yield row(where + (", turned" if turned else ""), dtype, seconds[2 if cached else 1 :])
                del loader, cache
                if device.type == "cuda":
                    torch.cuda.empty_cache()


def free_bytes(device: torch.device) -> tuple[int, int]:
    """Give free and total memory; in a dry run as much as is asked for."""
    return torch.cuda.mem_get_info(device) if device.type == "cuda" else (1 << 60, 1 << 60)


def timed_reading(store: PairStore, order: np.ndarray, readers: int) -> float:
    """Read all pairs into one buffer for each thread."""
    local = threading.local()

    def read(index: int) -> None:
        if not hasattr(local, "out"):
            local.out = np.empty(store.patch_shape, store.dtype)
        for side in range(2):
            store.read_crop(side, Crop(index, 0, 0), local.out)

    with ThreadPoolExecutor(readers) as pool:
        begin = time.perf_counter()
        list(pool.map(read, order.tolist()))
        return time.perf_counter() - begin


def end_to_end_rows(folder: Path, arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Train from raw bins that are in the page cache."""
    shape = f"{arguments.patches}x{arguments.size}x{arguments.size}"
    part = {"part": f"end to end, {arguments.epochs} epochs", "shape": shape}
    common = ["--epochs", arguments.epochs, "--batch-size", arguments.batch_size, "--val-split", 0.1]
    if arguments.only in "plain":
        command = [sys.executable, arguments.plain, folder, *common, "--size", arguments.size]
        begin = time.perf_counter()
        done = json.loads(output([*command, "--workers", arguments.workers]).splitlines()[-1])
        yield {
            **part,
            "program": f"plain, {arguments.workers} workers",
            "dtype": "TF32",
            **summary(done["train_images_per_s"], "images/s"),
            "val_loss": done["val_loss"][-1],
            "total_s": round(time.perf_counter() - begin, 2),
        }
    float16 = folder / "float16"
    for name, data, kernels, words in (
        ("kernels plain", folder, "plain", ["--patch-size", arguments.size]),
        ("cache none", folder, "auto", ["--patch-size", arguments.size, "--cache", "none"]),
        ("cache auto", folder, "auto", ["--patch-size", arguments.size]),
        ("cache auto, dihedral", folder, "auto", ["--patch-size", arguments.size, "--augment", "dihedral"]),
        ("cache none, float16 store", float16, "auto", ["--cache", "none"]),
        ("cache auto, float16 store", float16, "auto", []),
    ):
        if arguments.only not in name:
            continue
        if data == float16 and not data.exists():
            make_float16(folder, data, size=arguments.size)
        saved = folder / name.replace(" ", "-")
        command = [sys.executable, "-m", "cryoplug", "train", data, *common, *words]
        begin = time.perf_counter()
        output([*command, "--save", "--checkpoint-dir", saved], CRYOPLUG_KERNELS=kernels)
        seconds = time.perf_counter() - begin
        records = [json.loads(line) for line in next(saved.rglob("metrics.jsonl")).read_text().splitlines()]
        print(name, [(record["samples_per_s"], record["waiting_for_data"], record["seconds"]) for record in records])
        yield {
            **part,
            "program": f"cryoplug, {name}",
            "dtype": "float32" if kernels == "plain" else "float16 inside",
            **summary([record["samples_per_s"] for record in records], "images/s"),
            "val_loss": records[-1]["val_loss"],
            "total_s": round(seconds, 2),
        }


def make_bins(folder: Path, *, count: int, size: int) -> None:
    """Smooth images and noisy copies of them."""
    rng = np.random.default_rng(0)
    with open(folder / "clean_train.bin", "wb") as clean_file, open(folder / "noisy_train.bin", "wb") as noisy_file:
        for _ in range(count):
            coarse = rng.normal(size=(size // 16, size // 16)).astype(np.float32)
            clean = coarse.repeat(16, 0).repeat(16, 1) * 0.2 + 0.5
            clean.astype("<f4").tofile(clean_file)
            noise = rng.standard_normal(clean.shape, np.float32)
            (clean + 0.3 * noise).astype("<f4").tofile(noisy_file)


def make_float16(bins: Path, target: Path, *, size: int) -> None:
    """Write the same pairs as a store of half the bytes."""
    head = Manifest((size, size), "float16", "clean", "none", 0, size)
    noisy, clean = (np.empty((1, size, size), np.float32) for _ in range(2))
    with open_store(bins, patch_size=size) as store, create_store(target, head) as writer:
        for index in range(store.count()):
            store.read([index], noisy, clean)
            writer.append("train", noisy[0], clean[0], (0, 0))
            if index % 10 == 9:
                writer.acknowledge(MicrographEntry(f"{index // 10}", "train", (size, size), None, {"kind": "none"}))
        writer.finish()


def timed(run: Callable[[], object], *, times: int, repeats: int = REPEATS) -> list[float]:
    """Give the seconds of `times` calls, measured again and again on the device."""
    for _ in range(5):
        run()
    found = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(times):
            run()
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end) / 1000)
    return found


def summary(values: list[float], unit: str) -> dict[str, object]:
    """Give median and range."""
    return {
        "median": round(statistics.median(values), 3),
        "unit": unit,
        "range": f"{min(values):.4g}-{max(values):.4g}",
    }


def output(command: list[object], **environment: str) -> str:
    """Run a program; give its stdout."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: exit {done.returncode}\n{done.stderr[-3000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
