"""Do single exposures teach as much as halves? One network, trained on halves, and on sums with noise drawn like theirs.

    python benchmarks/single_exposures.py --map emd_5625.map      # a GPU, three trainings side by side: 8 minutes
    python benchmarks/single_exposures.py --size 1024 --train 8 --test 3 --dose 10 --minutes 2      # two cores: 9 minutes

Everything between the simulated files and the denoised ones is done by the commands: convert --pairs halves and --pairs
single, train, denoise. ``single_general`` and ``halves_general`` start from the general model (train --init general).
``single_true`` gets the true spectrum of the noise instead of the measured one: in the manifest of its store the power is
replaced by that of the difference of the halves. ``general`` is the general model as it is, without training. Figures are
those of quality_simulated.py, over micrographs that no training has seen. --detector is one of ``cryoplug simulate``, or a
colour that both halves' noise gets alike; only the noise of ``counting`` is known from the counts themselves.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryoplug.core.fourier_crop import resample_image
from cryoplug.formats.mrc import write_mrc
from cryoplug.metrics.noise_power import JUDGED_FROM, JUDGED_TO, POINTS, STEP
from cryoplug.metrics.rings import Rings, spectrum
from cryoplug.simulation.micrograph import SimulationSettings, simulate_micrograph
from cryoplug.simulation.settings import DETECTORS
from cryoplug.workflows.simulate import read_molecules
from quality_simulated import baseline_snr, denoised_snr, last_line, pixels_of, report
from rows import add_place_options, run_in_its_place

KINDS = ("noisy", "even", "odd", "clean", "particles_only")


@dataclass(frozen=True)
class Training:
    """One way to get a network."""

    store: str
    """``halves``, ``single``, ``single_true``; empty: it learns nothing."""
    general: bool
    """Whether it starts from the general model."""


TRAININGS = {
    "halves": Training("halves", general=False),
    "single": Training("single", general=False),
    "single_general": Training("single", general=True),
    "halves_general": Training("halves", general=True),
    "single_true": Training("single_true", general=False),
    "general": Training("", general=True),
}
COLUMNS = (
    *(
        "date",
        "device",
        "torch",
        "map",
        "micrographs",
        "pixel_size",
        "angpix",
        "dose",
        "detector",
        "minutes",
        "options",
    ),
    *("trained_on", "refused", "source", "noise_error_db", "noise_uncertainty_db", "train_s", "steps"),
    *("clean_above_wiener_db", "clean_deviation_db", "particles_only_above_gaussian_db", "particles_only_deviation_db"),
    *("clean_above_halves_db", "particles_only_above_halves_db"),
)


def modulation(frequency: np.ndarray, at_nyquist: float) -> np.ndarray:
    """Return a sinc times a Gaussian."""
    fall = np.log(np.sinc(0.5) / at_nyquist) / 0.25
    return np.sinc(frequency) * np.exp(-fall * frequency**2)


def moved(frequency: np.ndarray) -> np.ndarray:
    """Return the mean power that bilinear interpolation by any part of a pixel leaves along one axis."""
    return 1 - (1 - np.cos(2 * np.pi * frequency)) / 3


Colour = Callable[[np.ndarray, np.ndarray], np.ndarray]
COLOURS: dict[str, Colour] = {
    "rescaled": lambda y, x: np.full(np.broadcast(y, x).shape, 3.7**2),
    "integrating_blurred": lambda y, x: modulation(np.hypot(y, x), 0.45) ** 2,
    "integrating_read_out": lambda y, x: 0.9 * modulation(np.hypot(y, x), 0.2) ** 2 + 0.1,
    "bilinear": lambda y, x: moved(y) * moved(x),
    "superresolution_bilinear": lambda y, x: moved(y / 2) * moved(x / 2),
}
"""Power that white noise gets, by frequency (y, x) in cycles per pixel; ``rescaled``: white, but no counts any more."""


def main() -> int:
    """Simulate, train, denoise, compare; print a table and append CSV rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--map", type=Path, help="density map; default: the invented shapes of cryoplug simulate")
    parser.add_argument("--train", type=int, default=20, help="micrographs to learn from (default 20)")
    parser.add_argument("--test", type=int, default=4, help="micrographs to judge (default 4)")
    parser.add_argument("--size", type=int, default=4096, help="side in pixels (default 4096)")
    parser.add_argument("--pixel-size", type=float, default=1.3, help="angstrom (default 1.3)")
    parser.add_argument("--angpix", type=float, default=2.6, help="pixel size of the network (default 2.6)")
    parser.add_argument("--dose", type=float, default=40.0, help="electrons per square angstrom (default 40)")
    parser.add_argument("--detector", choices=[*DETECTORS, *COLOURS], default=DETECTORS[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=5.0, help="training time of each network (default 5)")
    parser.add_argument(
        "--trainings", nargs="*", choices=list(TRAININGS), default=["halves", "single", "single_general"]
    )
    parser.add_argument("--model", default="unet", help="of what does not start from the general model")
    parser.add_argument(
        "--train-option", action="append", default=[], help="more of cryoplug train, as in --max-batches=4"
    )
    parser.add_argument("--convert-option", action="append", default=[], help="more of cryoplug convert")
    parser.add_argument(
        "--denoise-option", action="append", default=[], help="more of cryoplug denoise, as in --tta=off"
    )
    parser.add_argument("--one-by-one", action="store_true", help="on a GPU, too, train one network after another")
    add_place_options(parser, "single_exposures.csv")
    arguments = parser.parse_args()
    return run_in_its_place(arguments, run, COLUMNS)


def run(arguments: argparse.Namespace, folder: Path) -> Iterator[dict[str, object]]:
    """Do all of it in a folder; give a row for each training as soon as it is judged."""
    on_gpu, context = surroundings(arguments)
    stores = sorted({TRAININGS[name].store for name in arguments.trainings} - {""})
    side_by_side = max(len(arguments.trainings), 1) if on_gpu and not arguments.one_by_one else 1
    with (
        ProcessPoolExecutor(len(os.sched_getaffinity(0)), initializer=one_core) as pool,
        ThreadPoolExecutor(max(len(stores), 1)) as converters,
        ThreadPoolExecutor(side_by_side) as trainers,
    ):
        simulate(folder, arguments, pool)
        begin = time.perf_counter()
        convert = converters.map(lambda store: make_store(folder, store, arguments, pool), stores)
        noises = {"": {}, **dict(zip(stores, convert, strict=True))}
        print(f"stores converted in {time.perf_counter() - begin:.0f} s", flush=True)
        running: dict[str, Future[dict[str, object]]] = {
            name: trainers.submit(train_and_denoise, folder, name, arguments) for name in arguments.trainings
        }
        names = sorted(path.name for path in (folder / "test" / "noisy").iterdir())
        raw = list(pool.map(baseline_snr, [(folder / "test", name) for name in names]))
        report("raw", [score["identity"] for score in raw], raw)
        report("best Gaussian", [score["gaussian"] for score in raw], raw)
        of_halves: dict[str, object] = {}
        for name, training in running.items():
            done = training.result()
            found = list(pool.map(denoised_snr, [(folder / "test", folder / name, micrograph) for micrograph in names]))
            margins = report(name, found, raw)
            of_halves = of_halves or (margins if name == "halves" else {})
            beside = above_halves(margins, of_halves)
            print(f"{name}: {beside}", flush=True)
            yield {**context, "trained_on": name, **noises[TRAININGS[name].store], **done, **margins, **beside}


def one_core() -> None:
    """Leave the other cores to the other workers of the pool."""
    import torch

    torch.set_num_threads(1)


def surroundings(arguments: argparse.Namespace) -> tuple[bool, dict[str, object]]:
    """Say whether there is a GPU, and what each row says of the run."""
    import torch

    on_gpu = torch.cuda.is_available()
    return on_gpu, {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(0) if on_gpu else "CPU",
        "torch": torch.__version__,
        "map": "invented shapes" if arguments.map is None else arguments.map.stem,
        "micrographs": f"{arguments.train}+{arguments.test} of {arguments.size}x{arguments.size}",
        **{name: getattr(arguments, name) for name in ("pixel_size", "angpix", "dose", "detector", "minutes")},
        "options": json.dumps([*arguments.convert_option, *arguments.train_option, *arguments.denoise_option]),
    }


def above_halves(margins: dict[str, object], of_halves: dict[str, object]) -> dict[str, float]:
    """Compare with what halves have taught; empty when nothing was trained on them before."""
    pairs = ("clean", "clean_above_wiener_db"), ("particles_only", "particles_only_above_gaussian_db")
    return {
        f"{truth}_above_halves_db": round(float(str(margins[key])) - float(str(of_halves[key])), 3)
        for truth, key in pairs
        if of_halves
    }


def simulate(folder: Path, arguments: argparse.Namespace, pool: ProcessPoolExecutor) -> None:
    """Write micrographs to learn from into ``train/``, and those to judge by into ``test/``."""
    begin = time.perf_counter()
    settings = SimulationSettings(
        size_px=arguments.size,
        pixel_size_angstrom=arguments.pixel_size,
        dose_e_per_angstrom2=arguments.dose,
        seed=arguments.seed,
        molecules=read_molecules([] if arguments.map is None else [arguments.map], []),
        detector=arguments.detector if arguments.detector in DETECTORS else DETECTORS[0],
    )
    count = arguments.train + arguments.test
    tasks = [
        (folder / ("train" if index < arguments.train else "test"), settings, index, arguments.detector)
        for index in range(count)
    ]
    list(pool.map(write, tasks))
    print(f"{count} micrographs simulated in {time.perf_counter() - begin:.0f} s", flush=True)


def write(task: tuple[Path, SimulationSettings, int, str]) -> None:
    """Simulate one micrograph, with the noise of a detector."""
    folder, settings, index, detector = task
    micrograph = simulate_micrograph(settings, index)
    images = {kind: getattr(micrograph, kind) for kind in KINDS}
    if detector in COLOURS:
        half = micrograph.clean.astype(np.float64) / 2
        frequency = np.fft.fftfreq(half.shape[0])[:, None], np.fft.rfftfreq(half.shape[1])[None]
        gain = np.sqrt(COLOURS[detector](*frequency))
        scale = float(gain[0, 0])  # of the signal, which the simulation has blurred already
        for kind in ("even", "odd"):
            noise = np.fft.irfft2(np.fft.rfft2(images[kind] - half) * gain, s=half.shape)
            images[kind] = (scale * half + noise).astype(np.float32)
        images["noisy"] = images["even"] + images["odd"]
        images["clean"], images["particles_only"] = (scale * images[kind] for kind in ("clean", "particles_only"))
    for kind, pixels in images.items():
        (folder / kind).mkdir(parents=True, exist_ok=True)
        path = folder / kind / f"mic_{index:04d}.mrc"
        write_mrc(path, pixels, pixel_size_angstrom=settings.pixel_size_angstrom, label="single_exposures")


def make_store(folder: Path, name: str, arguments: argparse.Namespace, pool: ProcessPoolExecutor) -> dict[str, object]:
    """Convert for one kind of pairs; say how well the noise is known that training will use."""
    train, store = folder / "train", folder / "stores" / name
    pairs = ["single", train / "noisy"]
    if name == "halves":
        pairs = ["halves", "--even", train / "even", "--odd", train / "odd"]
    options = ["--angpix", arguments.angpix, "--store", "whole", "--test-split", 0, *arguments.convert_option]
    command("convert", ["--pairs", *pairs, *options, "-o", store])
    if name == "halves":
        return {}
    path = store / "dataset.json"
    manifest = json.loads(path.read_text())
    entries = manifest["micrographs"]
    true = list(pool.map(true_power, [(train, entry["name"], tuple(entry["shape"])) for entry in entries]))
    frequency = np.arange(POINTS) * STEP
    judged = (frequency >= JUDGED_FROM) & (frequency <= JUDGED_TO)
    errors = []
    for entry, power in zip(entries, true, strict=True):
        normal = power / entry["normalization"]["scale"] ** 2
        if name == "single_true":
            entry["noise"]["power"] = [float(f"{value:.6g}") for value in normal]
        errors.append(np.mean(10 * np.log10(np.array(entry["noise"]["power"])[judged] / normal[judged])))
    sources = {entry["noise"]["source"] for entry in entries}
    uncertainty = max(entry["noise"]["uncertainty_db"] or 0.0 for entry in entries)
    if name == "single_true":
        path.write_text(json.dumps(manifest))
        sources, uncertainty = {"truth"}, 0.0
    print(
        f"{name}: noise from {', '.join(sources)}, {np.mean(errors):+.3f} dB too high, said to be within {uncertainty:.2f}"
    )
    return {
        "refused": arguments.train - len(entries),
        "source": " ".join(sorted(sources)),
        "noise_error_db": round(float(np.mean(errors)), 3),
        "noise_uncertainty_db": round(uncertainty, 3),
    }


def true_power(task: tuple[Path, str, tuple[int, int]]) -> np.ndarray:
    """Measure the noise of one micrograph on the grid of the store, in the units of its file; smooth over a few rings.

    The halves differ by their noise alone, which is independent: the difference has the power of the sum's noise.
    """
    folder, name, shape = task
    noise = pixels_of(folder / "even" / name).astype(np.float64) - pixels_of(folder / "odd" / name)
    terms = spectrum(resample_image(noise, shape))
    rings = Rings.of(shape, most=32)
    power = rings.cross(terms, terms) / (rings.count / rings.count.sum())
    power[0] = power[1]  # the mean was taken off
    return np.interp(np.arange(POINTS) * STEP, rings.frequency, power)


def train_and_denoise(folder: Path, name: str, arguments: argparse.Namespace) -> dict[str, object]:
    """Train one network and denoise the micrographs to be judged; give seconds and steps of the training."""
    training, work = TRAININGS[name], folder / name
    checkpoint: Path | str = "general"
    seconds, steps = 0.0, ""
    if training.store:
        begin = time.perf_counter()
        model = "unet" if training.general else arguments.model
        start = ["--init", "general"] if training.general else ["--model", model]
        options = [*start, "--minutes", arguments.minutes, "--no-evaluation", *arguments.train_option]
        store = folder / "stores" / training.store
        told = command("train", [store, *options, "--save", "--checkpoint-dir", work / "models"])
        seconds = round(time.perf_counter() - begin, 1)
        planned = re.findall(r"--minutes [^:]*: (\d+) steps", told)
        steps = planned[-1] if planned else ""
        checkpoint = work / "models" / model
        print(f"{name}: trained {steps} steps in {seconds:.0f} s", flush=True)
    words = [folder / "test" / "noisy", "--checkpoint", checkpoint, *arguments.denoise_option, "-o", work / "denoised"]
    command("denoise", words)
    return {"train_s": seconds, "steps": steps}


def command(name: str, words: list[object]) -> str:
    """Run a command of cryoplug; give what it said."""
    line = [sys.executable, "-m", "cryoplug", name, *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    # convert refuses micrographs whose noise it cannot tell, and says so by 3; the others are trained on.
    if done.returncode and (name, done.returncode) != ("convert", 3):
        raise SystemExit(f"{' '.join(line)}: exit {done.returncode}\n{done.stderr[-3000:]}")
    print(f"cryoplug {name}: {last_line(done.stdout) or last_line(done.stderr)}", flush=True)
    return done.stderr


if __name__ == "__main__":
    sys.exit(main())
