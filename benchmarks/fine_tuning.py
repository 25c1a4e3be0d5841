"""What a user's own halves add to the general model: fine-tuned, against a network trained on the same halves from nothing.

    python benchmarks/fine_tuning.py --map ribosome.mrc groel.mrc      # a GPU, 20 minutes a map

Each map is simulated as in general_model.py: micrographs of 4096 x 4096 at 1.3 A/px, 40 e/A2. ``convert --pairs halves``
takes 20 of them, and 4 of them (--train 20 4). On each store ``train --model unet`` learns for 5 minutes from nothing, and
``train --init general`` for 3, one after the other. Four other micrographs judge, by the figures of quality_simulated.py;
the row ``untrained`` is the general model as it is.

``--part 0.25`` shortens all trainings to a quarter; the column ``minutes`` says what that makes. With ``--folder``
micrographs and stores are kept and used again; ``--starts`` with nothing behind it only makes them.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cryoplug.formats.mrc import write_mrc
from cryoplug.simulation.micrograph import SimulationSettings, simulate_micrograph
from cryoplug.workflows.simulate import read_molecules
from denoisers import HARDWARE_COLUMNS, hardware
from quality_simulated import baseline_snr, denoised_snr, report
from rows import add_place_options, run_in_its_place
from single_exposures import command, one_core

LEARNT = ("even", "odd")
JUDGED = ("noisy", "clean", "particles_only")
COLUMNS = (
    *HARDWARE_COLUMNS,
    *("map", "micrographs", "pixel_size", "angpix", "dose", "seed", "start", "minutes", "steps", "train_s"),
    *("clean_above_wiener_db", "clean_deviation_db", "particles_only_above_gaussian_db", "particles_only_deviation_db"),
    "clean_above_nothing_db",
)


@dataclass(frozen=True)
class Start:
    """What a training begins with."""

    options: tuple[str, ...]
    """Of ``cryoplug train``."""
    minutes: float


STARTS = {"nothing": Start(("--model", "unet"), 5.0), "general": Start(("--init", "general"), 3.0)}


def main() -> int:
    """Simulate, train both, denoise, compare; print a table and append CSV rows."""
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
    parser.add_argument("--starts", nargs="*", choices=list(STARTS), default=list(STARTS))
    parser.add_argument("--part", type=float, default=1.0, help="take so large a part of all minutes (default 1)")
    parser.add_argument("--train-option", action="append", default=[], help="more of cryoplug train")
    add_place_options(parser, "fine_tuning.csv")
    return run_in_its_place(parser.parse_args(), run, COLUMNS)


def run(arguments: argparse.Namespace, folder: Path) -> Iterator[dict[str, object]]:
    """Do all of it in a folder; give a row for each training as soon as it is judged."""
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), initializer=one_core) as pool:
        for path in arguments.map:
            place = folder / path.stem
            if not (place / "test").exists():
                simulate(place, path, arguments, pool)
            for count in arguments.train:
                if not (place / f"store_{count}").exists():
                    convert(place, count, arguments)
            if not arguments.starts:
                continue
            names = sorted(one.name for one in (place / "test" / "noisy").iterdir())
            simple = pool.map(baseline_snr, [(place / "test", name) for name in names])
            denoise(place, "untrained", "general")
            raw = list(simple)
            margins = judged(place, "untrained", names, raw, pool)
            yield {**context(arguments, path, 0), "start": "untrained", "minutes": 0, **margins}
            for count in arguments.train:
                of_nothing = None
                for start in arguments.starts:
                    name = f"{start}_{count}"
                    done = train(place, name, count, start, arguments)
                    margins = judged(place, name, names, raw, pool)
                    image = float(str(margins["clean_above_wiener_db"]))
                    of_nothing = image if start == "nothing" else of_nothing
                    beside = "" if of_nothing is None else round(image - of_nothing, 3)
                    print(f"{path.stem}, {count} micrographs, from {start}: {beside} dB to nothing", flush=True)
                    yield {**context(arguments, path, count), **done, **margins, "clean_above_nothing_db": beside}


def simulate(place: Path, path: Path, arguments: argparse.Namespace, pool: ProcessPoolExecutor) -> None:
    """Write halves to learn from into ``train/``, and sums with their truths into ``test/``."""
    begin, most = time.perf_counter(), max(arguments.train)
    settings = SimulationSettings(
        size_px=arguments.size,
        pixel_size_angstrom=arguments.pixel_size,
        dose_e_per_angstrom2=arguments.dose,
        seed=arguments.seed,
        molecules=read_molecules([path], []),
    )
    tasks = [(place / "train", settings, index, LEARNT) for index in range(most)]
    tasks += [(place / "test", settings, index, JUDGED) for index in range(most, most + arguments.test)]
    list(pool.map(write, tasks))
    print(f"{path.stem}: simulated in {time.perf_counter() - begin:.0f} s", flush=True)


def write(task: tuple[Path, SimulationSettings, int, tuple[str, ...]]) -> None:
    """Simulate one micrograph."""
    folder, settings, index, kinds = task
    micrograph = simulate_micrograph(settings, index)
    for kind in kinds:
        path = folder / kind / f"mic_{index:04d}.mrc"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = getattr(micrograph, kind)
        write_mrc(path, pixels, pixel_size_angstrom=settings.pixel_size_angstrom, label="fine_tuning")


def convert(place: Path, count: int, arguments: argparse.Namespace) -> None:
    """Make a store of the halves of so many first micrographs."""
    files = [(f"--{kind}", file) for kind in LEARNT for file in sorted((place / "train" / kind).iterdir())[:count]]
    words = [word for pair in files for word in pair]
    options = ["--angpix", arguments.angpix, "--store", "whole", "--test-split", 0]
    command("convert", ["--pairs", "halves", *words, *options, "-o", place / f"store_{count}"])


def train(place: Path, name: str, count: int, start: str, arguments: argparse.Namespace) -> dict[str, object]:
    """Train and denoise; say how many steps that were."""
    minutes = STARTS[start].minutes * arguments.part
    words = [place / f"store_{count}", *STARTS[start].options, "--minutes", minutes, "--no-evaluation"]
    begin = time.perf_counter()
    told = command("train", [*words, *arguments.train_option, "--save", "--checkpoint-dir", place / name / "models"])
    seconds = round(time.perf_counter() - begin, 1)
    denoise(place, name, place / name / "models" / "unet")
    planned = re.findall(r"--minutes [^:]*: (\d+) steps", told)
    return {
        "start": start,
        "minutes": round(minutes, 3),
        "steps": planned[-1] if planned else "",
        "train_s": seconds,
    }


def denoise(place: Path, name: str, checkpoint: Path | str) -> None:
    """Denoise the micrographs to be judged."""
    command("denoise", [place / "test" / "noisy", "--checkpoint", checkpoint, "-o", place / name / "denoised"])


def judged(
    place: Path, name: str, names: list[str], raw: list[dict[str, dict[str, float]]], pool: ProcessPoolExecutor
) -> dict[str, object]:
    """Compare denoised micrographs with the truth and with the best simple filters."""
    found = list(pool.map(denoised_snr, [(place / "test", place / name, micrograph) for micrograph in names]))
    return report(f"{place.name} {name}", found, raw)


def context(arguments: argparse.Namespace, path: Path, count: int) -> dict[str, object]:
    """Say what was simulated, and on what it ran."""
    return {
        **hardware(),
        "map": path.stem,
        "micrographs": f"{count}+{arguments.test} of {arguments.size}x{arguments.size}",
        **{name: getattr(arguments, name) for name in ("pixel_size", "angpix", "dose", "seed")},
    }


if __name__ == "__main__":
    sys.exit(main())
