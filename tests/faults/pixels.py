"""Pixels that no network can use, and pixels that look as if."""

from __future__ import annotations

import numpy as np

from faults.table import fault
from faults.trial import Trial

_GOOD = "mic_0001.mrc"


def _write(trial: Trial, name: str, pixels: np.ndarray) -> None:
    """Write pixels with the header of a good micrograph."""
    head = bytearray((trial.bench.micrographs / "mic_0002.mrc").read_bytes()[:1024])
    for place, size in zip((0, 4, 28, 32), (pixels.shape[1], pixels.shape[0]) * 2, strict=True):
        head[place : place + 4] = int(size).to_bytes(4, "little")
    (trial.inputs / name).write_bytes(bytes(head) + pixels.astype("<f4").tobytes())


def _pixels(trial: Trial, path: str = "mic_0002.mrc") -> np.ndarray:
    payload = (trial.bench.micrographs / path).read_bytes()[1024:]
    return np.frombuffer(payload, "<f4").reshape(512, 512).copy()


def _denoise(trial: Trial, *more: str) -> list[str]:
    return ["denoise", "in", "--checkpoint", str(trial.bench.checkpoint), "-o", "out", *more]


def _refused(trial: Trial, pixels: np.ndarray, says: str | tuple[str, ...]) -> None:
    """Check that denoise and convert name the bad micrograph and use the good one."""
    trial.add(_GOOD)
    _write(trial, "bad.mrc", pixels)
    wanted = ("bad.mrc", says) if isinstance(says, str) else ("bad.mrc", *says)
    trial.fault(*_denoise(trial), code=3, says=wanted)
    trial.same_results([_GOOD])
    trial.only_results([_GOOD])
    done = trial.run("convert", "in", "-o", "out/store", "--patch-size", "64", "--stride", "64", code=3)
    trial.check("bad.mrc" in done.stderr, "convert leaves it out too", "convert does not name it")


@fault
def constant(trial: Trial) -> None:
    """A constant micrograph."""
    _refused(trial, np.full((512, 512), 7.0), "7")


@fault
def one_nan(trial: Trial) -> None:
    """One NaN pixel, the last."""
    pixels = _pixels(trial)
    pixels[-1, -1] = np.nan
    _refused(trial, pixels, "finite")


@fault
def one_infinite(trial: Trial) -> None:
    """One infinite pixel."""
    pixels = _pixels(trial)
    pixels[100, 200] = -np.inf
    _refused(trial, pixels, "finite")


@fault
def hot_pixel(trial: Trial) -> None:
    """A hot pixel of 1e6: the rest comes out as without it."""
    pixels = _pixels(trial)
    pixels[256, 256] = 1e6
    _write(trial, "hot.mrc", pixels)
    trial.fault(*_denoise(trial), code=0, says="hot.mrc")
    payload = (trial.bench.denoised / "mic_0002.mrc").read_bytes()[1024:]
    clean = np.frombuffer(payload, "<f4").reshape(512, 512)
    found = np.frombuffer((trial.out / "hot.mrc").read_bytes()[1024:], "<f4").reshape(512, 512)
    away = np.ones((512, 512), bool)
    away[246:267, 246:267] = False
    worst = np.abs(found - clean)[away].max() / clean.std()
    trial.check(
        bool(worst < 0.01), "10 px away it differs by < 1 % of the contrast", f"differs by {worst:.2g} contrasts"
    )


@fault
def one_by_one(trial: Trial) -> None:
    """A micrograph of one pixel."""
    _refused(trial, np.ones((1, 1)), ())


@fault
def narrow(trial: Trial) -> None:
    """A micrograph of 1 x 700 pixels."""
    _write(trial, "narrow.mrc", np.random.default_rng(3).poisson(50, (1, 700)))
    trial.fault(*_denoise(trial), code=0, says="narrow.mrc")
    found = np.frombuffer((trial.out / "narrow.mrc").read_bytes()[1024:], "<f4")
    trial.check(found.size == 700 and bool(np.isfinite(found).all()), "700 finite pixels", "wrong pixels")


@fault
def huge_values(trial: Trial) -> None:
    """Pixels of 1e38, near the end of float32."""
    pixels = _pixels(trial) * np.float32(5e35)
    _write(trial, "huge.mrc", pixels)
    trial.add(_GOOD)
    done = trial.fault(*_denoise(trial), code=(0, 3), says="huge.mrc")
    result = trial.out / "huge.mrc"
    finite = not result.exists() or bool(np.isfinite(np.frombuffer(result.read_bytes()[1024:], "<f4")).all())
    trial.check(finite, "never a result that is not finite", "the result is not finite")
    trial.check(
        (done.code == 0) == result.exists(), "and the exit code says which", f"{done.code} but {result.exists()}"
    )
    trial.same_results([_GOOD])


@fault
def float16_overflow(trial: Trial) -> None:
    """Counts beyond the range of float16 (65504) with --float16."""
    _write(trial, "bright.mrc", _pixels(trial) * np.float32(1000))
    trial.fault(*_denoise(trial, "--float16"), code=(3, 4), says=("bright.mrc", "65504"))
    trial.check(not (trial.out / "bright.mrc").exists(), "no result with infinite pixels", "a result was written")


@fault
def wrong_pixel_size(trial: Trial) -> None:
    """A micrograph of another pixel size than the network was trained at: done, with a warning."""
    import struct

    payload = bytearray((trial.bench.micrographs / "mic_0002.mrc").read_bytes())
    for place in (40, 44):
        struct.pack_into("<f", payload, place, 512 * 0.65)
    (trial.inputs / "fine.mrc").write_bytes(payload)
    done = trial.fault(*_denoise(trial), code=0, says=("pixel size", "0.65", "2.6"))
    trial.check("fine.mrc" in done.stderr, "the micrograph is named", "the micrograph is not named")


@fault
def clean_of_other_shape(trial: Trial) -> None:
    """The clean partner has another shape."""
    trial.add(_GOOD)
    (trial.inputs / "clean").mkdir()
    _write(trial, f"clean/{_GOOD}", _pixels(trial)[:256])
    words = ["convert", f"in/{_GOOD}", "--pairs", "clean", "--clean", "in/clean", "-o", "out", "--patch-size", "64"]
    trial.fault(*words, code=4, says="shape")
    trial.check(not (trial.out / "dataset.json").exists(), "no store", "a store was written")


@fault
def halves_of_two_exposures(trial: Trial) -> None:
    """Even and odd halves that do not belong together (swapped files)."""
    _halves(trial, {"mic_0001.mrc": "mic_0002.mrc", "mic_0002.mrc": "mic_0001.mrc"})
    words = ["convert", "--pairs", "halves", "--even", "in/even", "--odd", "in/odd", "-o", "out", "--patch-size", "64"]
    trial.fault(*words, code=4, says=("in/even/mic_0001.mrc", "in/odd/mic_0001.mrc", "do not belong together"))
    trial.check(not (trial.out / "dataset.json").exists(), "no store", "a store was written")


@fault
def half_given_twice(trial: Trial) -> None:
    """The even half is given as the odd half too."""
    _halves(trial, {})
    words = ["convert", "--pairs", "halves", "--even", "in/even", "--odd", "in/even", "-o", "out", "--patch-size", "64"]
    trial.fault(*words, code=(2, 4), says="in/even/mic_0001.mrc")
    trial.check(not (trial.out / "dataset.json").exists(), "no store", "a store was written")


@fault
def half_missing(trial: Trial) -> None:
    """One odd half is missing."""
    _halves(trial, {})
    (trial.inputs / "odd" / "mic_0002.mrc").unlink()
    words = ["convert", "--pairs", "halves", "--even", "in/even", "--odd", "in/odd", "-o", "out", "--patch-size", "64"]
    trial.fault(*words, code=4, says="mic_0002.mrc")
    trial.check(not (trial.out / "dataset.json").exists(), "no store", "a store was written")


def _halves(trial: Trial, odd_from: dict[str, str]) -> None:
    import shutil

    for side in ("even", "odd"):
        (trial.inputs / side).mkdir()
        for name in ("mic_0001.mrc", "mic_0002.mrc"):
            source = odd_from.get(name, name) if side == "odd" else name
            shutil.copy(trial.bench.root / "sim" / side / source, trial.inputs / side / name)
