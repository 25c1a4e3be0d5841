"""cryoplug on simulated micrographs, end to end: ``python examples/demo.py OUT`` (or ``make demo``).

First the general model, which needs no training: simulate, then denoise twice, for the image and for the particles alone. The
molecules are new ones, which it has never seen.

Then a small network learns from halves: simulate, convert, train, denoise, inspect. Training never sees the truth: it learns to
predict the odd half of an exposure from the even half. The last three micrographs take no part. They are denoised, and only
then compared with their truth, beside the raw micrograph and the best Gaussian blur.

Each step is the command line that a person would type. Nothing is downloaded; two to three minutes on two cores.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryoplug.formats.registry import open_micrograph
from cryoplug.metrics.baselines import best_gaussian
from cryoplug.metrics.pixel import best_affine, correlation, mse, psnr
from cryoplug.reports.figures import before_after

GENERAL_PIXEL_SIZE_ANGSTROM = 2.6
"""What the general model sees without cropping; a field of 1024 pixels holds some forty large molecules."""

TRAINING, HELD_OUT = 8, 3
SIZE = 1024
# Binned as for picking: a particle is 15 to 50 pixels wide, and cryo_cnn, which sees 7 x 7 pixels, spans 36 angstrom.
PIXEL_SIZE_ANGSTROM = 5.2
EPOCHS = 30


def main() -> int:
    """Run everything and return an exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for all results; old ones are replaced")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"training epochs (default {EPOCHS})")
    arguments = parser.parse_args()
    started = time.perf_counter()
    text = "\n\n".join(
        (general_model(arguments.out / "general"), training(arguments.out / "training", arguments.epochs))
    )
    text += f"\n\nAll of it: {time.perf_counter() - started:.0f} s, start of Python and of torch included.\n"
    (arguments.out / "table.txt").write_text(text, encoding="utf-8")
    print(
        f"\n{text}\nThe general model: {arguments.out / 'general.png'}\nTrained on halves: {arguments.out / 'training.png'}"
    )
    return 0


def general_model(out: Path) -> str:
    """Denoise micrographs of random molecules without any training; draw the first, and return a table."""
    made, names = out / "simulated", ["mic_0001.mrc", "mic_0002.mrc"]
    noisy = [made / "noisy" / name for name in names]
    pixel_size = GENERAL_PIXEL_SIZE_ANGSTROM
    run(
        "simulate", "-o", made, "--count", len(names), "--size", SIZE, "--pixel-size", pixel_size, "--specimen", "random",
        "--dose", 20, "--kinds", 2, "--seed", 2, "--overwrite",
    )  # fmt: skip
    run("denoise", *noisy, "-o", out / "image", "--overwrite")
    run("denoise", *noisy, "--target", "particles", "-o", out / "particles", "--overwrite")
    images, particles = (
        {
            name: compare(
                raw=read(made / "noisy" / name),
                denoised=read(out / target / name),
                truth=read(made / truth / name),
                denoiser=f"general model, {target}",
            )
            for name in names
        }
        for target, truth in (("image", "clean"), ("particles", "particles_only"))
    )
    draw(out.with_suffix(".png"), f"{names[0]}, {pixel_size} angstrom per pixel", images[names[0]])
    draw(out.parent / "general_particles.png", f"{names[0]}, {pixel_size} angstrom per pixel", particles[names[0]])
    return "\n".join(
        (
            "The general model, without training, on molecules that it has never seen.",
            *tabulate(images),
            "",
            "Its other output, against the particles without their ice.",
            *tabulate(particles),
        )
    )


def training(out: Path, epochs: int) -> str:
    """Train a small network on halves and denoise micrographs that it has not seen; draw the first, and return a table."""
    made, runs, denoised = out / "simulated", out / "saved_models", out / "denoised"
    learn_from = f"mic_000[1-{TRAINING}].mrc"
    held_out = [f"mic_{number:04d}.mrc" for number in range(TRAINING + 1, TRAINING + HELD_OUT + 1)]
    noisy = [made / "noisy" / name for name in held_out]
    run(
        "simulate", "-o", made, "--count", TRAINING + HELD_OUT, "--size", SIZE,
        "--pixel-size", PIXEL_SIZE_ANGSTROM, "--dose", 40, "--defocus", 0.8, 2.5, "--seed", 0, "--overwrite",
    )  # fmt: skip
    run(
        "convert", "-o", out / "dataset", "--pairs", "halves", "--even", made / "even" / learn_from,
        "--odd", made / "odd" / learn_from, "--normalize", "zscore", "--patch-size", 512, "--stride", 512,
        "--test-split", 0, "--overwrite",
    )  # fmt: skip
    run(
        "train", out / "dataset", "--epochs", epochs, "--batch-size", 1, "--lr", 0.003,
        "--val-split", 0.25, "--save", "--checkpoint-dir", runs, "--overwrite",
    )  # fmt: skip
    run("denoise", *noisy, "--checkpoint", runs, "-o", denoised, "--overwrite")
    run("inspect", denoised / held_out[0], out / "dataset", runs)
    comparisons = {
        name: compare(
            raw=read(made / "noisy" / name),
            denoised=read(denoised / name),
            truth=read(made / "clean" / name),
            denoiser="cryo_cnn",
        )
        for name in held_out
    }
    draw(out.with_suffix(".png"), f"{held_out[0]}, {PIXEL_SIZE_ANGSTROM} angstrom per pixel", comparisons[held_out[0]])
    return "\n".join(("cryo_cnn, trained on halves, on micrographs held out of training.", *tabulate(comparisons)))


def run(*words: object) -> None:
    """Show a command and run it; the demo ends with the exit code of the first one that fails."""
    arguments = [str(word) for word in words]
    print(f"\n$ cryoplug {shlex.join(arguments)}", flush=True)
    code = subprocess.run([sys.executable, "-m", "cryoplug", *arguments], check=False).returncode
    if code:
        print(f"demo: cryoplug {arguments[0]} ended with exit code {code}", file=sys.stderr)
        sys.exit(code)


@dataclass(frozen=True)
class Comparison:
    """One micrograph in all its versions, in counts per pixel."""

    denoiser: str
    """Caption of the denoised image."""
    images: dict[str, np.ndarray]
    """Caption and pixels as they are: raw, best Gaussian, denoised."""
    truth: np.ndarray
    """Expected counts."""
    sigma_px: float
    """Width of the best Gaussian."""

    def scores(self, name: str) -> tuple[float, float, float]:
        """Return MSE, PSNR and correlation of one image after its best ``a*x + b``."""
        slope, offset = best_affine(self.images[name], self.truth)
        fitted = slope * self.images[name].astype(np.float64) + offset
        decibel = psnr(fitted, self.truth, data_range=float(self.truth.max() - self.truth.min()))
        return mse(fitted, self.truth), decibel, correlation(fitted, self.truth)


def compare(*, raw: np.ndarray, denoised: np.ndarray, truth: np.ndarray, denoiser: str) -> Comparison:
    """Put the best Gaussian blur beside the network's result."""
    sigma, blurred = best_gaussian(raw, truth)
    return Comparison(denoiser, {"raw": raw, "best Gaussian": blurred, denoiser: denoised}, truth, sigma)


def tabulate(comparisons: dict[str, Comparison]) -> list[str]:
    """Return the table of numbers, and say who won."""
    lines = [
        "Distance from the truth, after the best a*x + b of each image.",
        "MSE in (counts per pixel)^2; PSNR with the truth's maximum - minimum as data range.",
        "The Gaussian's width was chosen with the truth at hand, per micrograph; the network never saw any truth.",
        "",
        f"{'micrograph':14s} {'image':24s} {'MSE':>9s} {'PSNR/dB':>9s} {'correlation':>12s}",
    ]
    ratios = []
    for name, comparison in comparisons.items():
        scores = {image: comparison.scores(image) for image in comparison.images}
        for image, (error, decibel, similar) in scores.items():
            caption = f"{image} ({comparison.sigma_px:.2f} px)" if image == "best Gaussian" else image
            lines.append(f"{name:14s} {caption:24s} {error:9.2f} {decibel:9.2f} {similar:12.4f}")
        ratios.append(scores[comparison.denoiser][0] / scores["best Gaussian"][0])
    wins = sum(ratio < 1 for ratio in ratios)
    verdict = "beats" if wins == len(ratios) else "does NOT beat" if wins == 0 else "only sometimes beats"
    listed = ", ".join(f"{ratio:.3f}" for ratio in ratios)
    return [
        *lines,
        "",
        f"{comparison.denoiser}: {verdict} the best Gaussian ({wins} of {len(ratios)}): MSE ratios {listed}.",
    ]


def draw(path: Path, name: str, comparison: Comparison) -> None:
    """Show raw, blurred, denoised and truth with the same grey limits around their means, the whole view and the centre."""
    low, high = np.percentile(comparison.truth - comparison.truth.mean(), [0.1, 99.9])
    # Wider than the truth needs, or the noise of the raw image would be clipped to black and white.
    margin = 0.2 * (high - low)
    before_after(
        path,
        {caption: image - image.mean() for caption, image in {**comparison.images, "truth": comparison.truth}.items()},
        f"{name}, counts around the mean, same grey limits; below: the centre",
        limits=(float(low - margin), float(high + margin)),
        zoom_px=256,
    )


def read(path: Path) -> np.ndarray:
    """Return all pixels of a micrograph."""
    with open_micrograph(path) as source:
        return source.read_rows(0, source.shape[0])


if __name__ == "__main__":
    sys.exit(main())
