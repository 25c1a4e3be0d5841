"""What a user's own data add: ``train --init general``, against a network that learnt the same from nothing.

    python benchmarks/fine_tuning.py --map ribosome.mrc groel.mrc      # a GPU, 20 minutes a map

Each map is simulated as in general_model.py: micrographs of 4096 x 4096 at 1.3 A/px, 40 e/A2. ``convert --pairs halves``
takes 20 of them, and 4 of them (--train 20 4). On each store ``train --model unet`` learns for 5 minutes from nothing, and
``train --init general`` (the small general model) for 3, one after the other. Four other micrographs judge, by the figures of
quality_simulated.py; the row ``untrained`` is the large general model as it is. ``--starts nothing single single_general`` asks
what is lost without halves: ``convert --pairs single`` takes the sums of the same halves. ``truth`` and ``truth_general`` learn
the noise-free images of the same micrographs, from nothing and from the small general model: what no training on noisy ones
can be expected to pass by much.

``--part 0.25`` shortens all trainings to a quarter; the column ``minutes`` says what that makes. ``--epochs 6`` trains for so
many epochs instead (2000 steps each on a GPU). Then others may share the GPU, and the column is empty. With ``--folder`` all
files are kept: what is there is used again, and a training that has ended is not repeated. So several runs, also side by side
on several GPUs, can share the work, and a last one gives all rows. ``--prepare`` makes micrographs and stores, and ends.
``--label`` tells trainings apart that differ by their --train-option.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryoplug.formats.mrc import write_mrc
from cryoplug.models.checkpoint import load_checkpoint
from cryoplug.models.shipped import start_of
from cryoplug.simulation.micrograph import SimulationSettings, simulate_micrograph
from cryoplug.workflows.simulate import read_molecules
from denoisers import HARDWARE_COLUMNS, hardware
from quality_simulated import baseline_snr, denoised_snr, report
from rows import add_place_options, run_in_its_place
from single_exposures import command, one_core

LEARNT = ("even", "odd", "noisy", "clean")
JUDGED = ("noisy", "clean", "particles_only")
FIRST_JUDGED = 20
"""Number of the first micrograph that judges, unless more are learnt from."""
MOST_CORRELATION = 6.0
"""Noise of two halves is independent when its correlation is within so many standard errors of 0."""
Wanted = tuple[Path, int, tuple[str, ...], str]
"""Folder, number and images of a micrograph, and the device to simulate it on."""
COLUMNS = (
    *HARDWARE_COLUMNS,
    *(
        "map",
        "micrographs",
        "pixel_size",
        "angpix",
        "dose",
        "seed",
        "simulate_on",
        "start",
        "general",
        "minutes",
        "steps",
        "train_s",
    ),
    *("options", "epochs", "kept_epoch", "val_loss"),
    *("clean_above_wiener_db", "clean_deviation_db", "particles_only_above_gaussian_db", "particles_only_deviation_db"),
    "clean_above_nothing_db",
)


@dataclass(frozen=True)
class Start:
    """What a training begins with."""

    pairs: str
    """``halves``, ``single`` or ``clean``: what it learns from."""
    options: tuple[str, ...]
    """Of ``cryoplug train``."""
    minutes: float


UNTRAINED = "untrained"
TRUTH = ("--recipe", "halves", "--augment", "dihedral", "--batch-size", "16")
"""The recipe for halves without mixtures, with as many places a step."""
STARTS = {
    "nothing": Start("halves", ("--model", "unet"), 5.0),
    "general": Start("halves", ("--init", "general"), 3.0),
    "single": Start("single", ("--model", "unet"), 5.0),
    "single_general": Start("single", ("--init", "general"), 3.0),
    "truth": Start("clean", ("--model", "unet", *TRUTH), 5.0),
    "truth_general": Start("clean", ("--init", "general", *TRUTH), 3.0),
}


def main() -> int:
    """Simulate, train all, denoise, compare; print a table and append CSV rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--map", type=Path, nargs="+", required=True, help="density maps the general model never saw")
    parser.add_argument(
        "--train", type=int, nargs="+", default=[20, 4], help="micrographs to learn from (default 20 4)"
    )
    parser.add_argument("--test", type=int, default=4, help="other micrographs to judge (default 4)")
    parser.add_argument("--size", type=int, default=4096, help="side in pixels (default 4096)")
    parser.add_argument("--pixel-size", type=float, default=1.3, help="angstrom (default 1.3)")
    parser.add_argument("--angpix", type=float, default=2.6, help="pixel size of the network (default 2.6)")
    parser.add_argument("--dose", type=float, default=40.0, help="electrons per square angstrom (default 40)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--starts", nargs="+", choices=[UNTRAINED, *STARTS], default=[UNTRAINED, "nothing", "general"])
    parser.add_argument("--part", type=float, default=1.0, help="take so large a part of all minutes (default 1)")
    parser.add_argument("--epochs", type=int, help="train for so many epochs instead of minutes")
    parser.add_argument(
        "--simulate-on", default="cpu", help="cpu, or cuda: faster, with other ice and noise (default cpu)"
    )
    parser.add_argument("--prepare", action="store_true", help="only make the micrographs and stores of the --starts")
    parser.add_argument("--train-option", action="append", default=[], help="more of cryoplug train, as in --lr=0.001")
    parser.add_argument("--label", default="", help="of these trainings; rows have it, with the options, as `options`")
    add_place_options(parser, "fine_tuning.csv")
    return run_in_its_place(parser.parse_args(), run, COLUMNS)


def run(arguments: argparse.Namespace, folder: Path) -> Iterator[dict[str, object]]:
    """Do all of it in a folder; give a row for each training when it is judged."""
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, initializer=one_core) as pool, ThreadPoolExecutor(1) as judge:
        judged = []
        for path in arguments.map:
            place = folder / path.stem
            simulate(place, path, arguments, pool)
            trainings = [
                (start, count) for count in arguments.train for start in arguments.starts if start != UNTRAINED
            ]
            for pairs, count in sorted({(STARTS[start].pairs, count) for start, count in trainings}):
                convert(place, pairs, count, arguments)
            if arguments.prepare:
                continue
            untrained = [(UNTRAINED, 0)] if UNTRAINED in arguments.starts else []
            judged.append(compare(place, path, [*untrained, *trainings], arguments, pool, judge))
        for rows in judged:
            yield from rows()


def compare(
    place: Path,
    path: Path,
    trainings: list[tuple[str, int]],
    arguments: argparse.Namespace,
    pool: ProcessPoolExecutor,
    judge: ThreadPoolExecutor,
) -> Callable[[], Iterator[dict[str, object]]]:
    """Train on one map, one after another; a network is judged while the next one is trained. The result waits for the rows."""
    names = sorted(one.name for one in (place / "test" / "noisy").iterdir())
    simple = [pool.submit(baseline_snr, (place / "test", name)) for name in names]

    def judged(name: str, checkpoint: Path | str, about: dict[str, object]) -> dict[str, object]:
        command("denoise", [place / "test" / "noisy", "--checkpoint", checkpoint, "-o", place / name / "denoised"])
        found = list(pool.map(denoised_snr, [(place / "test", place / name, micrograph) for micrograph in names]))
        row = {**about, **report(f"{place.name} {name}", found, [one.result() for one in simple])}
        (place / name / "figures.json").write_text(json.dumps(row))
        return row

    rows: list[Future[dict[str, object]] | dict[str, object]] = []
    for start, count in trainings:
        name = f"{start}_{count}{arguments.label}" if count else start
        if (place / name / "figures.json").exists():
            rows.append(figures_of(place / name))
            continue
        about, checkpoint = context(arguments, path, count), "general"
        if count:
            about |= train(place, name, count, start, arguments)
            checkpoint = str(place / name / "models" / "unet")
        else:
            about |= {"start": start, "minutes": 0}
        if start == UNTRAINED or start.endswith("general"):
            about["general"] = load_checkpoint("general" if start == UNTRAINED else start_of("general")).sha256[:12]
        rows.append(judge.submit(judged, name, checkpoint, about))

    def finished() -> Iterator[dict[str, object]]:
        for (start, count), row in zip(trainings, rows, strict=True):
            figures = row.result() if isinstance(row, Future) else row
            beside: object = ""
            alike = [place / f"nothing_{count}{label}" for label in (arguments.label, "")] if count else []
            if nothing := next((one for one in alike if (one / "figures.json").exists()), None):
                of_nothing = figures_of(nothing)
                key = "clean_above_wiener_db"
                beside = round(float(str(figures[key])) - float(str(of_nothing[key])), 3)
                print(f"{path.stem}, {count} micrographs, from {start}: {beside:+} dB to nothing", flush=True)
            yield {**figures, "clean_above_nothing_db": beside}

    return finished


def figures_of(training: Path) -> dict[str, object]:
    """Read what a training reached that was judged before."""
    figures: dict[str, object] = json.loads((training / "figures.json").read_text())
    return figures


def simulate(place: Path, path: Path, arguments: argparse.Namespace, pool: ProcessPoolExecutor) -> None:
    """Write exposures and their halves to learn from into ``train/``, and sums with their truths into ``test/``."""
    begin, most = time.perf_counter(), max(arguments.train)
    first = max(most, FIRST_JUDGED)
    device = arguments.simulate_on
    wanted: list[Wanted] = [(place / "train", index, LEARNT, device) for index in range(most)]
    wanted += [(place / "test", index, JUDGED, device) for index in range(first, first + arguments.test)]
    missing = [one for one in wanted if not file_of(one[0], one[2][-1], one[1]).exists()]
    if not missing:
        return
    settings = SimulationSettings(
        size_px=arguments.size,
        pixel_size_angstrom=arguments.pixel_size,
        dose_e_per_angstrom2=arguments.dose,
        seed=arguments.seed,
        molecules=read_molecules([path], []),
    )
    correlations = np.array(list(pool.map(write, [(settings, *one) for one in missing])))
    error = 1 / arguments.size
    print(
        f"{path.stem}: {len(missing)} simulated in {time.perf_counter() - begin:.0f} s; noise of the halves correlates by "
        f"{correlations.min():+.5f} to {correlations.max():+.5f}, standard error {error:.5f}",
        flush=True,
    )
    if np.abs(correlations).max() > MOST_CORRELATION * error:
        raise SystemExit(f"{path.stem}: the noise of the halves is not independent; they teach nothing")


def write(task: tuple[SimulationSettings, Path, int, tuple[str, ...], str]) -> float:
    """Simulate one micrograph; give the correlation of the noise of its halves."""
    settings, folder, index, kinds, device = task
    micrograph = simulate_micrograph(settings, index, device=device)
    for kind in kinds:
        target = file_of(folder, kind, index)
        target.parent.mkdir(parents=True, exist_ok=True)
        pixels = getattr(micrograph, kind)
        write_mrc(target, pixels, pixel_size_angstrom=settings.pixel_size_angstrom, label="fine_tuning")
    even, odd = (half.astype(np.float64) - micrograph.clean / 2 for half in (micrograph.even, micrograph.odd))
    return float(np.sum(even * odd) / np.sqrt(np.sum(even**2) * np.sum(odd**2)))


def file_of(folder: Path, kind: str, index: int) -> Path:
    """Say where an image of a micrograph lies."""
    return folder / kind / f"mic_{index:04d}.mrc"


def store_of(place: Path, pairs: str, count: int) -> Path:
    """Say where a store lies."""
    return place / f"{pairs}_store_{count}"


def convert(place: Path, pairs: str, count: int, arguments: argparse.Namespace) -> None:
    """Make a store of so many first micrographs."""
    if store_of(place, pairs, count).exists():
        return
    kinds = {
        "halves": {"--even": "even", "--odd": "odd"},
        "single": {"": "noisy"},
        "clean": {"": "noisy", "--clean": "clean"},
    }
    words = [
        word
        for option, kind in kinds[pairs].items()
        for index in range(count)
        for word in (option, file_of(place / "train", kind, index))
        if word
    ]
    options = ["--angpix", arguments.angpix, "--store", "whole", "--test-split", 0, "--normalize", "zscore"]
    command("convert", ["--pairs", pairs, *words, *options, "-o", store_of(place, pairs, count)])


def train(place: Path, name: str, count: int, start: str, arguments: argparse.Namespace) -> dict[str, object]:
    """Train; say how long, and which of how many epochs was kept."""
    chosen, models = STARTS[start], place / name / "models"
    minutes = None if arguments.epochs else round(chosen.minutes * arguments.part, 3)
    length = ["--epochs", arguments.epochs] if minutes is None else ["--minutes", minutes]
    words = [store_of(place, chosen.pairs, count), *chosen.options, *length, "--no-evaluation"]
    begin = time.perf_counter()
    told = command("train", [*words, *arguments.train_option, "--save", "--checkpoint-dir", models])
    seconds = round(time.perf_counter() - begin, 1)
    (place / name / "train.txt").write_text(told)
    epochs = [json.loads(line) for line in next(models.rglob("metrics.jsonl")).read_text().splitlines()]
    kept = [epoch for epoch in epochs if epoch["best"]][-1]
    planned = re.findall(r"--minutes [^:]*: (\d+) steps", told) or re.findall(r"batch \d+/(\d+)", told)
    steps = int(planned[-1]) * (1 if minutes else len(epochs)) if planned else ""
    return {
        "start": start,
        "minutes": "" if minutes is None else minutes,
        "options": " ".join([arguments.label, *arguments.train_option]).strip(),
        "steps": steps,
        "train_s": seconds,
        "epochs": len(epochs),
        "kept_epoch": kept["epoch"],
        "val_loss": round(kept["val_loss"], 6),
    }


def context(arguments: argparse.Namespace, path: Path, count: int) -> dict[str, object]:
    """Say what was simulated, and on what it ran."""
    return {
        **hardware(),
        "map": path.stem,
        "micrographs": f"{count}+{arguments.test} of {arguments.size}x{arguments.size}",
        **{name: getattr(arguments, name) for name in ("pixel_size", "angpix", "dose", "seed", "simulate_on")},
    }


if __name__ == "__main__":
    sys.exit(main())
