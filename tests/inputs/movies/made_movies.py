"""Small movies, with drift, gain and motion files, that several tests share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np

from cryoplug.core.correlation import high_correlation, sample_image
from cryoplug.inputs.discovered import DiscoveredMicrograph
from cryoplug.inputs.movies.frame_sums import ShiftedSum
from cryoplug.inputs.movies.gain_of_run import RunGain
from cryoplug.inputs.movies.halves import Halves, MovieInput, MovieSummer

SHAPE = (240, 320)
FRAMES = 9
DOSE = 30.0


def specimen(seed: int = 5, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Blobs of a few pixels, mean 1, contrast 20 %, that end smoothly before the border."""
    image = np.random.default_rng(seed).normal(size=shape)
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    image = np.fft.irfft2(np.fft.rfft2(image) * np.exp(-((fy**2 + fx**2) / (2 * 0.04**2))), s=shape)
    return 1 + 0.2 * image / image.std() * np.outer(np.hanning(shape[0]), np.hanning(shape[1]))


def detector(seed: int = 1, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """A gain reference with stripes in both directions and a pattern of single pixels."""
    rng = np.random.default_rng(seed)
    stripes = rng.normal(size=(shape[0], 1)) + rng.normal(size=(1, shape[1]))
    return (1 + 0.05 * stripes + 0.05 * rng.normal(size=shape)).clip(0.5, 2).astype(np.float32)


def drift(frames: int = FRAMES) -> list[tuple[float, float]]:
    """Where the specimen stands in each frame, (y, x) in pixels."""
    return [(1.3 * i - 0.1 * i * i, 0.9 * i) for i in range(frames)]


def moved(image: np.ndarray, shift: tuple[float, float]) -> np.ndarray:
    with ThreadPoolExecutor(1) as pool:
        total = ShiftedSum(image.shape, pool)
        total.add(image.astype(np.float32), shift)
        return total.result()


def raw_frames(*, gain: np.ndarray | None = None, still: bool = False, seed: int = 7, sample: int = 5) -> np.ndarray:
    """Electrons counted by a detector whose pixels lose 1 - 1 / gain of them."""
    rng = np.random.default_rng(seed)
    shifts = [(0.0, 0.0)] * FRAMES if still else drift()
    response = 1 if gain is None else 1 / np.where(gain == 0, np.inf, gain)
    return np.stack([rng.poisson(DOSE * moved(specimen(sample), s) * response) for s in shifts]).astype(np.uint16)


def write_stack(path: Path, frames: np.ndarray) -> Path:
    """Write an MRC stack of mode 6 by hand: the writer of cryoplug makes single images."""
    header = np.zeros(256, "<i4")
    header[:4] = *frames.shape[:0:-1], len(frames), 6
    header[7:10] = (*frames.shape[:0:-1], 1)
    header[10:13] = (np.array((*frames.shape[:0:-1], 1), "<f4") * np.float32(1.1)).view("<i4")
    header[13:16] = np.full(3, 90, "<f4").view("<i4")
    header[16:19] = 1, 2, 3
    header[52:54] = np.frombuffer(b"MAP DD\0\0", "<i4")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.tobytes() + frames.astype("<u2").tobytes())
    return path


def write_motion(path: Path, shifts: list[tuple[float, float]], *, shape: tuple[int, int] = SHAPE, **more: str) -> Path:
    """Write the motion STAR file of a movie; shifts undo a drift, so they are its opposite."""
    fields = {
        "rlnImageSizeX": shape[1],
        "rlnImageSizeY": shape[0],
        "rlnImageSizeZ": len(shifts),
        "rlnMicrographMovieName": path.with_suffix(".mrc"),
        "rlnMicrographOriginalPixelSize": "1.100000",
        **more,
    }
    lines = ["", "# version 30001", "", "data_general", "", *(f"_{key}   {value}" for key, value in fields.items())]
    lines += ["", "data_global_shift", "", "loop_"]
    lines += ["_rlnMicrographFrameNumber #1", "_rlnMicrographShiftX #2", "_rlnMicrographShiftY #3"]
    lines += [f"{i} {-x:.6f} {-y:.6f} " for i, (y, x) in enumerate(shifts, start=1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def item(path: Path, **more: object) -> MovieInput:
    return MovieInput(0, DiscoveredMicrograph(path, PurePosixPath(path.name)), **more)  # type: ignore[arg-type]


def summed(path: Path, pool: ThreadPoolExecutor, gain: Path | None = None, defects: Path | None = None) -> Halves:
    return MovieSummer(RunGain(gain, defects), pool).halves(item(path))


def pixels(halves: Halves) -> tuple[np.ndarray, np.ndarray]:
    return tuple(source.read_rows(0, source.shape[0]) for source in (halves.even, halves.odd))  # type: ignore[return-value]


def agreement(one: np.ndarray, two: np.ndarray) -> float:
    inner = np.s_[20:-20, 20:-20]
    return float(np.corrcoef(one[inner].ravel(), two[inner].ravel())[0, 1])


def high(halves: Halves) -> float:
    return high_correlation(sample_image(halves.even), sample_image(halves.odd)).value
