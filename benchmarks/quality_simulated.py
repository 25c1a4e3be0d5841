"""How close to the truth: micrographs of a density map, trained on their halves alone, denoised, compared with the truth.

    python benchmarks/quality_simulated.py --map emd_5625.map [--dose 12] [--minutes 5] [--models unet:2.6 cryo_cnn:5.2]

Everything between the simulated files and the denoised ones is done by the commands, as a user would type them: convert
--pairs halves, train, denoise. The figures are means over the held-out micrographs: dB of the signal-to-noise ratio after
the best ``a*x + b``, above the radial Wiener filter that is fitted on the truth itself (with the ice's texture counted as
signal), and above the best Gaussian blur (against the particles alone, the ice's texture counted as noise). A lower dose
makes the micrographs weaker in contrast. Another program denoises the same micrographs with --peer, a line for the shell:

    --peer "topaz denoise {input}/*.mrc -o {output} --patch-size 1024 --patch-padding 128"
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from cryoplug.formats.mrc import write_mrc
from cryoplug.formats.registry import open_micrograph
from cryoplug.metrics.linear import fit_baselines
from cryoplug.metrics.pixel import correlation
from cryoplug.metrics.truth import fitted_snr_db
from cryoplug.simulation.micrograph import SimulationSettings, simulate_micrograph
from cryoplug.workflows.simulate import read_molecules
from rows import add_place_options, run_in_its_place

TRUTHS = ("clean", "particles_only")
BEST = {"clean": "wiener", "particles_only": "gaussian"}
COLUMNS = (
    *("date", "device", "torch", "map", "micrographs", "pixel_size", "dose", "ice_grain"),
    *("minutes", "options", "model", "angpix"),
    *("convert_s", "train_s", "denoise_s", "clean_above_wiener_db", "clean_deviation_db"),
    *("particles_only_above_gaussian_db", "particles_only_deviation_db"),
)


def main() -> int:
    """Simulate, train, denoise, compare; print a table and append CSV rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--map", type=Path, help="density map; default: the invented shapes of cryoplug simulate")
    parser.add_argument("--train", type=int, default=20, help="micrographs to learn from (default 20)")
    parser.add_argument("--test", type=int, default=4, help="micrographs to judge (default 4)")
    parser.add_argument("--size", type=int, default=4096, help="side in pixels (default 4096)")
    parser.add_argument("--pixel-size", type=float, default=1.3, help="angstrom (default 1.3)")
    parser.add_argument("--dose", type=float, default=40.0, help="electrons per square angstrom (default 40)")
    parser.add_argument("--ice-grain", type=float, default=0.012, help="rms phase of the ice's grain (default 0.012)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=5.0, help="training time of a network (default 5)")
    parser.add_argument(
        "--models", nargs="*", default=["unet:2.6", "cryo_cnn:5.2"], help="network:pixel size to train at"
    )
    parser.add_argument(
        "--convert-option",
        action="append",
        help="instead of --store=whole: more of cryoplug convert, as in --stride=128",
    )
    parser.add_argument("--train-option", action="append", default=[], help="more of cryoplug train, as in --mix=1")
    parser.add_argument("--denoise-option", action="append", default=[], help="more of cryoplug denoise")
    parser.add_argument(
        "--truth", action="store_true", help="train on the truth instead of on halves: what can be reached"
    )
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        help="command of another program that denoises the files in {input} into {output}, names kept",
    )
    add_place_options(parser, "quality_simulated.csv")
    arguments = parser.parse_args()
    return run_in_its_place(arguments, run, COLUMNS)


def run(arguments: argparse.Namespace, folder: Path) -> Iterator[dict[str, object]]:
    """Do all of it in a folder; give a row for each network and each peer."""
    settings = SimulationSettings(
        size_px=arguments.size,
        pixel_size_angstrom=arguments.pixel_size,
        dose_e_per_angstrom2=arguments.dose,
        seed=arguments.seed,
        ice_grain_rad=arguments.ice_grain,
        molecules=read_molecules([] if arguments.map is None else [arguments.map], []),
    )
    # A peer needs none to learn from.
    needed = range(0 if arguments.models else arguments.train, arguments.train + arguments.test)
    workers = min(len(needed), len(os.sched_getaffinity(0)))
    begin = time.perf_counter()
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(write, [(folder, settings, index, kinds(arguments, index)) for index in needed]))
        print(f"{len(needed)} micrographs simulated in {time.perf_counter() - begin:.0f} s", flush=True)
        names = sorted(path.name for path in (folder / "noisy").iterdir())
        raw = list(pool.map(baseline_snr, [(folder, name) for name in names]))
        report("raw", [score["identity"] for score in raw], raw)
        report("best Gaussian", [score["gaussian"] for score in raw], raw)
        perfect = np.mean([score["clean"]["particles_only"] - score["gaussian"]["particles_only"] for score in raw])
        print(f"noise-free micrograph itself: particles_only_above_gaussian_db {perfect:+.3f}", flush=True)
        for text in arguments.models:
            model, _, angpix = text.partition(":")
            work = folder / text
            seconds = train_and_denoise(folder, work, arguments, model=model, angpix=angpix)
            found = list(pool.map(denoised_snr, [(folder, work, name) for name in names]))
            margins = report(f"{model} at {angpix} A/px", found, raw)
            yield {**context(arguments), "model": model, "angpix": angpix, **seconds, **margins}
        for number, command in enumerate(arguments.peer, 1):
            work = folder / f"peer_{number}"
            seconds = denoise_by_peer(command, folder / "noisy", work / "denoised")
            found = list(pool.map(denoised_snr, [(folder, work, name) for name in names]))
            of_training = {"minutes": "", "options": ""}
            yield {**context(arguments), **of_training, "model": command, **seconds, **report(command, found, raw)}


def kinds(arguments: argparse.Namespace, index: int) -> dict[str, str]:
    """Say what is kept of a micrograph, by folder: pairs to learn from, or the sum and its truths to judge by."""
    if index >= arguments.train:
        return {kind: kind for kind in ("noisy", *TRUTHS)}
    return {"input": "noisy", "target": "clean"} if arguments.truth else {"input": "even", "target": "odd"}


def write(task: tuple[Path, SimulationSettings, int, dict[str, str]]) -> None:
    """Simulate one micrograph."""
    folder, settings, index, kept = task
    micrograph = simulate_micrograph(settings, index)
    for subfolder, kind in kept.items():
        (folder / subfolder).mkdir(parents=True, exist_ok=True)
        path = folder / subfolder / f"mic_{index:04d}.mrc"
        pixels = getattr(micrograph, kind)
        write_mrc(path, pixels, pixel_size_angstrom=settings.pixel_size_angstrom, label="quality_simulated")


def pixels_of(path: Path) -> np.ndarray:
    with open_micrograph(path) as source:
        return source.read_rows(0, source.shape[0])


def baseline_snr(task: tuple[Path, str]) -> dict[str, dict[str, float]]:
    """Give dB by filter and truth, of filters fitted on the truth; and of the noise-free micrograph, against the particles."""
    folder, name = task
    noisy = pixels_of(folder / "noisy" / name)
    found: dict[str, dict[str, float]] = {"identity": {}, "gaussian": {}, "wiener": {}}
    for truth in TRUTHS:
        clean = pixels_of(folder / truth / name)
        filters = fit_baselines(noisy, clean, judge_is_truth=True).filters
        for filter_name, snr in found.items():
            snr[truth] = fitted_snr_db(correlation(filters[filter_name](noisy), clean))
    noise_free, particles = (pixels_of(folder / truth / name) for truth in TRUTHS)
    return {**found, "clean": {"particles_only": fitted_snr_db(correlation(noise_free, particles))}}


def denoised_snr(task: tuple[Path, Path, str]) -> dict[str, float]:
    """Give dB by truth, of a denoised file."""
    folder, work, name = task
    denoised = pixels_of(work / "denoised" / name)
    return {truth: fitted_snr_db(correlation(denoised, pixels_of(folder / truth / name))) for truth in TRUTHS}


def report(name: str, found: list[dict[str, float]], raw: list[dict[str, dict[str, float]]]) -> dict[str, object]:
    """Print what is above the best simple filters, with the standard deviation over micrographs."""
    margins: dict[str, object] = {}
    for truth in TRUTHS:
        best = np.array([score[BEST[truth]][truth] for score in raw])
        above = np.array([score[truth] for score in found]) - best
        margins[f"{truth}_above_{BEST[truth]}_db"] = round(float(above.mean()), 3)
        margins[f"{truth}_deviation_db"] = round(float(above.std(ddof=min(1, len(above) - 1))), 3)
    text = ", ".join(
        f"{key} {value:+}" if key.endswith("er_db") or "above" in key else "" for key, value in margins.items()
    )
    print(f"{name}: {text.replace(', ,', ',').strip(', ')}", flush=True)
    return margins


def train_and_denoise(
    folder: Path, work: Path, arguments: argparse.Namespace, *, model: str, angpix: str
) -> dict[str, object]:
    """Convert, train and denoise by the commands; give their seconds."""
    work.mkdir()
    seconds: dict[str, object] = {}
    convert_options = arguments.convert_option or ["--store=whole"]
    train_options = ["--minutes", arguments.minutes, *arguments.train_option]
    denoise_options = ["--checkpoint", work / "models" / model, *arguments.denoise_option]
    pairs = ["--pairs", "halves", "--even", folder / "input", "--odd", folder / "target"]
    if arguments.truth:
        pairs = ["--pairs", "clean", folder / "input", "--clean", folder / "target"]
        train_options = ["--recipe", "halves", "--augment", "dihedral", *train_options]
    for step, words in {
        "convert": [*pairs, "--angpix", angpix, *convert_options, "-o", work / "store"],
        "train": [work / "store", "--model", model, *train_options, "--save", "--checkpoint-dir", work / "models"],
        "denoise": [folder / "noisy", *denoise_options, "-o", work / "denoised"],
    }.items():
        begin = time.perf_counter()
        command = [sys.executable, "-m", "cryoplug", step, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-3000:]}")
        seconds[f"{step}_s"] = round(time.perf_counter() - begin, 1)
        print(f"cryoplug {step}: {seconds[f'{step}_s']} s; {last_line(done.stderr)}", flush=True)
    return seconds


def denoise_by_peer(command: str, noisy: Path, denoised: Path) -> dict[str, object]:
    """Run another program; give its seconds."""
    denoised.mkdir(parents=True)
    begin = time.perf_counter()
    line = command.format(input=shlex.quote(str(noisy)), output=shlex.quote(str(denoised)))
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{line}: exit {done.returncode}\n{done.stderr[-3000:]}")
    return {"denoise_s": round(time.perf_counter() - begin, 1)}


def last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]


def context(arguments: argparse.Namespace) -> dict[str, object]:
    """Say on what and with what it was measured."""
    import torch

    on_gpu = torch.cuda.is_available()
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(0) if on_gpu else "CPU",
        "torch": torch.__version__,
        "map": "invented shapes" if arguments.map is None else arguments.map.stem,
        "micrographs": f"{arguments.train}+{arguments.test} of {arguments.size}x{arguments.size}",
        "pixel_size": arguments.pixel_size,
        "dose": arguments.dose,
        "ice_grain": arguments.ice_grain,
        "minutes": arguments.minutes,
        "options": json.dumps(
            [
                *(["--truth"] if arguments.truth else ()),
                *(arguments.convert_option or ()),
                *arguments.train_option,
                *arguments.denoise_option,
            ]
        ),
    }


if __name__ == "__main__":
    sys.exit(main())
