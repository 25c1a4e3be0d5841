"""Training and denoising with `cryo_cnn` on a GPU: cryoplug against a plain PyTorch program, both in this run.

    python benchmarks/gpu_training.py --plain plain_pytorch_train.py [--csv gpu_training.csv]

Three parts: a training step with the batch on the device (float32, TF32, and cryoplug, each with Adam); denoising of one
4096 x 4096 image that is on the device; and training end to end from raw bins, with cryoplug's fused kernels and its plain
layers from the same start, so that their validation losses can be compared. The plain program has the interface of
`cpu_training.py`'s, with ``--workers N``.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import datetime
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from cryoplug.kernels.dispatch import choose_kernels, fused_network
from cryoplug.models.registry import model_spec
from cryoplug.training.config import TrainConfig
from cryoplug.training.engine import open_engine
from cryoplug.training.loop import make_optimizer

STEPS, REPEATS = 20, 15
IMAGE_PX = 4096


def main() -> int:
    """Run all parts, print them and append CSV rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plain", type=Path, required=True, help="path of the plain program")
    parser.add_argument("--patches", type=int, default=200, help="patches in the set; a tenth validates (default 200)")
    parser.add_argument("--size", type=int, default=1024, help="side of a patch (default 1024)")
    parser.add_argument("--batch-size", type=int, default=8, help="default 8")
    parser.add_argument("--epochs", type=int, default=5, help="default 5")
    parser.add_argument("--workers", type=int, default=4, help="of the plain program's loader (default 4)")
    parser.add_argument("--csv", type=Path, default=Path("gpu_training.csv"), help="rows are appended to it")
    arguments = parser.parse_args()
    device = torch.device("cuda", 0)
    print("kernels:", choose_kernels(model_spec("cryo_cnn").build(seed=0), device).reason, flush=True)
    common = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "gpu": torch.cuda.get_device_name(device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }
    rows = []
    for row in itertools.chain(step_rows(device, arguments), denoise_rows(device), end_to_end_rows(arguments)):
        rows.append({**common, **row})
        print(json.dumps(row), flush=True)
    fresh = not arguments.csv.exists()
    with open(arguments.csv, "a", newline="") as stream:
        names = ["part", "program", "shape", "dtype", "median", "unit", "range", "peak_mib", "val_loss"]
        writer = csv.DictWriter(stream, [*common, *names])
        if fresh:
            writer.writeheader()
        writer.writerows(rows)
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
def cryoplug_step(device: torch.device, noisy: torch.Tensor, clean: torch.Tensor) -> Iterator[Callable[[], None]]:
    """Give the step of the training loop, with its reading of the loss."""
    spec = model_spec("cryo_cnn")
    module = spec.build(seed=0)
    config = TrainConfig(model="cryo_cnn")
    with open_engine(module, spec, device=device, threads=1, width=noisy.shape[-1]) as engine:
        optimizer = make_optimizer(engine, config)
        compare_gradients(module, noisy, clean, engine.loss_and_gradients(noisy, clean)[1])
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)

        def run() -> None:
            _, gradients = engine.loss_and_gradients(noisy, clean)
            for parameter, gradient in zip(module.parameters(), gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()

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


def end_to_end_rows(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Train from raw bins that are in the page cache."""
    with tempfile.TemporaryDirectory(prefix="cryoplug-benchmark-") as name:
        folder = Path(name)
        make_bins(folder, count=arguments.patches, size=arguments.size)
        shape = f"{arguments.patches}x{arguments.size}x{arguments.size}"
        common = ["--epochs", arguments.epochs, "--batch-size", arguments.batch_size, "--val-split", 0.1]
        command = [sys.executable, arguments.plain, folder, *common, "--size", arguments.size]
        done = json.loads(output([*command, "--workers", arguments.workers]).splitlines()[-1])
        yield {
            "part": f"end to end, {arguments.epochs} epochs",
            "program": f"plain, {arguments.workers} workers",
            "shape": shape,
            "dtype": "TF32",
            **summary(done["train_images_per_s"], "images/s"),
            "val_loss": done["val_loss"][-1],
        }
        for kernels in ("plain", "auto"):
            saved = folder / kernels
            command = [sys.executable, "-m", "cryoplug", "train", folder, *common, "--patch-size", arguments.size]
            output([*command, "--save", "--checkpoint-dir", saved], CRYOPLUG_KERNELS=kernels)
            records = [json.loads(line) for line in next(saved.rglob("metrics.jsonl")).read_text().splitlines()]
            yield {
                "part": f"end to end, {arguments.epochs} epochs",
                "program": f"cryoplug, kernels {kernels}",
                "shape": shape,
                "dtype": "float32" if kernels == "plain" else "float16 inside",
                **summary([record["samples_per_s"] for record in records], "images/s"),
                "val_loss": records[-1]["val_loss"],
            }


def make_bins(folder: Path, *, count: int, size: int) -> None:
    """Smooth images and noisy copies of them."""
    rng = np.random.default_rng(0)
    with open(folder / "clean_train.bin", "wb") as clean_file, open(folder / "noisy_train.bin", "wb") as noisy_file:
        for _ in range(count):
            coarse = rng.normal(size=(size // 16, size // 16)).astype(np.float32)
            clean = coarse.repeat(16, 0).repeat(16, 1) * 0.2 + 0.5
            clean.astype("<f4").tofile(clean_file)
            (clean + rng.normal(scale=0.3, size=clean.shape)).astype("<f4").tofile(noisy_file)


def timed(run: Callable[[], object], *, times: int) -> list[float]:
    """Give the seconds of `times` calls, measured again and again on the device."""
    for _ in range(5):
        run()
    found = []
    for _ in range(REPEATS):
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
