"""Does half precision on a GPU change what `cryoplug evaluate` says? The same micrographs in float32 on the CPU beside it.

    python benchmarks/half_precision.py [--count 4] [--size 2048] [--pixel-size 1.1] [--device cuda] [--csv half_precision.csv]

`cryoplug simulate` makes micrographs with a truth and two halves. `cryoplug denoise` denoises micrographs and halves with the
general model, by the GPU as it does by itself (float16), and by the CPU in float32, in the same number of orientations.
`cryoplug evaluate --denoised` judges the files of both with the truth and with the halves. A row for each way to denoise and
each judge: two figures of the CPU's files, and the largest difference of any figure in decibels between both sides, over all
micrographs; of the other figures, the largest difference in parts of the figure. The ways run side by side: nothing is timed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from programs import Deadline, Program
from rows import add_place_options, run_in_its_place

WAYS = {
    "image, eight orientations": ("--tta", "on"),
    "particles, eight orientations": ("--tta", "on", "--target", "particles"),
}
"""What is compared, and the options of `cryoplug denoise`."""
LIMIT_S = 900
"""No command may take longer."""
COLUMNS = (
    *("date", "gpu", "torch", "way", "micrographs", "shape", "pixel_size_angstrom", "judge", "psnr_db", "snr_db"),
    *("largest_difference_db", "figure", "largest_relative_difference", "other_figure"),
)
Figures = dict[tuple[str, str], float]
"""By judge and name."""


def main() -> int:
    """Run both sides and append the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=4, help="micrographs (default 4)")
    parser.add_argument("--size", type=int, default=2048, help="side in pixels (default 2048)")
    parser.add_argument("--pixel-size", type=float, default=1.1, help="A/px (default 1.1)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--device", default="cuda")
    add_place_options(parser, "half_precision.csv")
    return run_in_its_place(parser.parse_args(), rows, COLUMNS)


def rows(arguments: argparse.Namespace, folder: Path) -> Iterator[dict[str, object]]:
    """Give the rows of all ways."""
    folder = folder.resolve()  # a command runs in another folder
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / "simulated"
    sizes = {
        "count": arguments.count,
        "size": arguments.size,
        "pixel-size": arguments.pixel_size,
        "seed": arguments.seed,
    }
    cryoplug("simulate", "-o", made, *(word for name, value in sizes.items() for word in (f"--{name}", value)))
    common = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "gpu": torch.cuda.get_device_name() if arguments.device != "cpu" else "none: a dry run",
        "torch": torch.__version__,
        "micrographs": arguments.count,
        "shape": f"{arguments.size}x{arguments.size}",
        "pixel_size_angstrom": arguments.pixel_size,
    }
    with ThreadPoolExecutor(len(WAYS)) as pool:
        sides = pool.map(
            lambda way: compared(made, folder / str(list(WAYS).index(way)), arguments.device, WAYS[way]), WAYS
        )
        for way, (gpu, cpu) in zip(WAYS, sides, strict=True):
            for judge in ("truth", "halves"):
                row = {**common, "way": way, "judge": judge, **differences(judge, gpu, cpu)}
                print(json.dumps(row), flush=True)
                yield row


def compared(made: Path, folder: Path, device: str, options: tuple[str, ...]) -> tuple[list[Figures], list[Figures]]:
    """Denoise all files by both sides, and judge them; all that can be done at a time is done at a time."""
    sides = {"gpu": device, "cpu": "cpu"}

    def denoise(task: tuple[str, str]) -> None:
        side, part = task
        words = ("denoise", made / part, "-o", folder / side / part, "--device", sides[side], "--no-previews", *options)
        cryoplug(*words)

    truth = "particles_only" if "particles" in options else "clean"
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(denoise, [(side, part) for side in sides for part in ("noisy", "even", "odd")]))
        gpu, cpu = pool.map(lambda side: judged(made, folder / side, truth), sides)
    return gpu, cpu


def differences(judge: str, gpu: list[Figures], cpu: list[Figures]) -> dict[str, object]:
    """Give the largest differences of one judge's figures."""
    decibels: dict[str, float] = {}
    others: dict[str, float] = {}
    for here, there in zip(gpu, cpu, strict=True):
        for (who, figure), value in there.items():
            if who == judge:
                difference = abs(here[who, figure] - value)
                where, scale = (decibels, 1.0) if figure.endswith("_db") else (others, abs(value) or 1.0)
                where[figure] = max(where.get(figure, 0.0), difference / scale)
    largest, other = max(decibels, key=decibels.__getitem__), max(others, key=others.__getitem__)
    means = {name: sum(one[judge, name] for one in cpu) / len(cpu) for name in ("psnr_db", "snr_db")}
    return {
        **{name: f"{value:.4f}" for name, value in means.items()},
        "largest_difference_db": f"{decibels[largest]:.1e}",
        "figure": largest,
        "largest_relative_difference": f"{others[other]:.1e}",
        "other_figure": other,
    }


def judged(made: Path, out: Path, truth: str) -> list[Figures]:
    """Judge the files of one side with the truth, then with the halves; give the figures of each micrograph."""
    names = [path.name for path in sorted(out.joinpath("noisy").glob("*.mrc"))]

    def all_of(option: str, folder: Path) -> list[object]:
        return [word for name in names for word in (option, folder / name)]

    with ThreadPoolExecutor(2) as pool:
        with_truth = pool.submit(
            evaluated, out / "truth", *(made / "noisy" / name for name in names),
            *all_of("--denoised", out / "noisy"), *all_of("--clean", made / truth),
        )  # fmt: skip
        with_halves = pool.submit(
            evaluated, out / "halves", *all_of("--even", made / "even"), *all_of("--odd", made / "odd"),
            *all_of("--denoised", out / "even"), *all_of("--denoised-odd", out / "odd"),
        )  # fmt: skip
    return [
        {
            (judge, figure): value
            for judge, record in (("truth", first["truth"]), ("halves", second["halves"]))
            for figure, value in record["denoised"].items()
            if isinstance(value, float)
        }
        for first, second in zip(with_truth.result(), with_halves.result(), strict=True)
    ]


def evaluated(out: Path, *words: object) -> list[dict[str, Any]]:
    """Run `cryoplug evaluate` and give its records of micrographs."""
    lines = cryoplug("evaluate", *words, "-o", out, "--device", "cpu", "--json").splitlines()
    records = [json.loads(line) for line in lines]
    return [record for record in records if record["type"] == "micrograph"]


def cryoplug(*words: object) -> str:
    """Run a command of this checkout; give its stdout."""
    command = [sys.executable, "-m", "cryoplug", *map(str, words)]
    return Program(command).output(Deadline.after(LIMIT_S))


if __name__ == "__main__":
    sys.exit(main())
