"""A training step of a `unet` on a GPU: torch's layers, and cryoplug's for training in bf16, in turn within each round.

    python benchmarks/gpu_unet_step.py [--rounds 3] [--csv gpu_unet_step.csv]

The steps are whole ones, recorded and replayed, with everything on the device: the recipe for halves (mixtures of 16 pairs of
256 x 256, AdamW, clipped, averaged) of width 32 and 64, and the general model's recipe (10 crops of 512 x 512). `error` is how
far a gradient of the first step is from that of float32 layers at most, of the largest number in it, over all weights.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from cryoplug.kernels import dispatch
from cryoplug.models.registry import model_spec
from cryoplug.training.average import WeightAverage
from cryoplug.training.config import TrainConfig
from cryoplug.training.data.balance import Balance
from cryoplug.training.data.mixing import Mixer
from cryoplug.training.distributed import ALONE
from cryoplug.training.engine import WholeBatchEngine, open_engine
from cryoplug.training.steps import make_optimizer, open_steps
from programs import ROOT
from rows import append_rows

COLUMNS = ("date", "gpu", "torch", "program", "kernels", "shape", "median", "unit", "range", "peak_mib", "error")
KERNELS = {"plain": "torch's layers", "auto": "cryoplug's"}
"""What the variable of `cryoplug.kernels.dispatch` may be."""
STEPS = 100
Step = Callable[[], None]


def main() -> int:
    """Measure all steps and append the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--memory-gib", type=float, nargs="+", default=[0.0], help="device memory, several in turn (default: 0, all)"
    )
    parser.add_argument("--programs", nargs="+", help="steps to measure (default: all)")
    parser.add_argument("--csv", type=Path, default=Path("gpu_unet_step.csv"))
    arguments = parser.parse_args()
    append_rows(arguments.csv, map(shown, limited_rows(arguments)), COLUMNS)
    return 0


def limited_rows(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Measure all steps with each limit of memory."""
    whole = torch.cuda.get_device_properties(0).total_memory
    for memory_gib in arguments.memory_gib:
        torch.cuda.set_per_process_memory_fraction(memory_gib * 2**30 / whole if memory_gib else 1.0)
        limit = f", at most {memory_gib:g} GiB" if memory_gib else ""
        for row in rows(arguments.rounds, arguments.programs):
            yield {**row, "program": f"{row['program']}{limit}"}


def rows(rounds: int, chosen: Sequence[str] | None) -> Iterator[dict[str, object]]:
    """Measure each step by both kinds of layers."""
    device = torch.device("cuda", 0)
    programs: dict[str, tuple[str, Callable[[ExitStack], Step]]] = {
        "halves, width 32": ("16x256x256", lambda stack: halves_step(stack, device, 32)),
        "halves, width 64": ("16x256x256", lambda stack: halves_step(stack, device, 64)),
        "general model": ("10x512x512", lambda stack: general_step(device)),
    }
    for name, (shape, begin) in programs.items():
        if chosen is not None and name not in chosen:
            continue
        times: dict[str, list[float]] = {kind: [] for kind in KERNELS}
        peaks: dict[str, int] = {}
        for _ in range(rounds):
            for kind, found in times.items():
                with ExitStack() as stack:
                    choose(kind)
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats()
                    found.append(milliseconds(begin(stack)))
                    peaks[kind] = round(torch.cuda.max_memory_allocated() / 2**20)
        for kind, found in times.items():
            choose(kind)
            error = gradient_error(device, int(name.split()[-1])) if name.startswith("halves") else ""
            yield {
                **{
                    "program": name,
                    "kernels": KERNELS[kind],
                    "shape": shape,
                    "median": f"{statistics.median(found):.3f}",
                },
                **{
                    "unit": "ms",
                    "range": f"{min(found):.3f}-{max(found):.3f}",
                    "peak_mib": peaks[kind],
                    "error": error,
                },
            }


def choose(kind: str) -> None:
    """Use one kind of layers from now on."""
    os.environ[dispatch.VARIABLE] = kind
    dispatch.kernels_were_tested.cache_clear()


def halves_step(stack: ExitStack, device: torch.device, width: int) -> Step:
    """Give the step of the recipe for halves, with its reading of the losses."""
    options = {"depth": 3, "width": width, "stem": 2, "skip": "none"}
    config = TrainConfig(model="unet", model_options=options, weight_decay=0.1, clip_norm=1.0, ema=0.999)
    spec = model_spec("unet").configured(options)
    module = spec.build(seed=0, config=options)
    engine = stack.enter_context(open_engine(module, spec, device=device, threads=1, precision="bf16", batch_size=16))
    mixer = Mixer(0.5, Balance(), seed=0, device=device)
    steps = open_steps(engine, make_optimizer(engine, config), config, WeightAverage(module, 0.999), mixer)
    even, odd = (torch.randn(16, 1, 256, 256, device=device) for _ in range(2))
    numbers = itertools.count(1)

    def run() -> None:
        number = next(numbers)
        steps.take(even, odd, lr=1e-3, number=number, images=range(16))
        if number % steps.queue == 0:
            steps.outcome()

    return run


def general_step(device: torch.device) -> Step:
    """Give the step of the general model's recipe on fields that stay."""
    sys.path.insert(0, str(ROOT / "examples/train_general"))
    from train import Plan, Run  # type: ignore[import-not-found]

    torch.backends.cudnn.benchmark = True
    run = Run(Plan(steps=60_000), device, ALONE)
    crops = torch.randn(10, 3, 512, 512, device=device).half()
    numbers = itertools.count(0)

    def step() -> None:
        run.step(crops, next(numbers))

    return step


def gradient_error(device: torch.device, width: int) -> str:
    """Give how far the gradients in bf16 are from those of float32 layers."""
    options = {"depth": 3, "width": width, "stem": 2, "skip": "none"}
    spec = model_spec("unet").configured(options)
    generator = torch.Generator(device).manual_seed(1)
    noisy, clean = (torch.randn(8, 1, 256, 256, device=device, generator=generator) for _ in range(2))
    found = []
    torch.backends.cudnn.allow_tf32 = False
    for precision in ("bf16", "float32"):
        module = spec.build(seed=0, config=options)
        torch.nn.init.normal_(
            module.get_parameter("output.weight"), std=0.05, generator=torch.Generator().manual_seed(2)
        )
        with open_engine(module, spec, device=device, threads=1, precision=precision) as engine:
            assert isinstance(engine, WholeBatchEngine)
            found.append(engine.enqueue(noisy, clean)[1])
    errors = [float((a - b).abs().max() / b.abs().max()) for a, b in zip(*found, strict=True)]
    return f"{max(errors):.1e}"


def milliseconds(run: Step) -> float:
    """Time a step on the device."""
    for _ in range(10):
        run()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(STEPS):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / STEPS


def shown(row: dict[str, object]) -> dict[str, object]:
    """Complete a row, and print it."""
    print(json.dumps(row), flush=True)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"date": now, "gpu": torch.cuda.get_device_name(0), "torch": torch.__version__, **row}


if __name__ == "__main__":
    sys.exit(main())
