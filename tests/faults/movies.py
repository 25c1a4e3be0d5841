"""Movies and the files of other programs: cut, lying, of the wrong shape."""

from __future__ import annotations

import pickle
import shutil
import struct
from pathlib import Path

import numpy as np
import tifffile

from faults.checkpoints import Gadget
from faults.process import Finished
from faults.table import fault
from faults.trial import Trial

_WORDS = ("convert", "--pairs", "halves", "in", "-o", "out", "--patch-size", "32", "--stride", "32")
_SHAPE = (6, 96, 128)


def _movie(trial: Trial, name: str = "m1.tif", seed: int = 1) -> Path:
    """Write a movie: six frames of a pattern that they share, with noise of their own."""
    random = np.random.default_rng(seed)
    coarse = random.normal(0, 8, (_SHAPE[1] // 8, _SHAPE[2] // 8))
    scene = 40 + np.kron(coarse, np.ones((8, 8)))
    path = trial.inputs / name
    frames = random.poisson(np.clip(scene, 1, None), _SHAPE).astype(np.uint16)
    with tifffile.TiffWriter(path) as stream:
        for frame in frames:
            stream.write(frame, compression="zlib", contiguous=False)
    return path


def _no_store(trial: Trial) -> None:
    trial.check(not (trial.out / "dataset.json").exists(), "no store", "a store was written")


@fault
def gain_of_other_shape(trial: Trial) -> None:
    """A gain reference of another shape than the movies."""
    _movie(trial)
    tifffile.imwrite(trial.folder / "gain.tif", np.ones((96, 96), np.float32))
    trial.fault(*_WORDS, "--gain", "gain.tif", code=4, says=("gain.tif", "96"))
    _no_store(trial)


@fault
def gain_not_finite(trial: Trial) -> None:
    """A gain reference with NaN: that pixel is a defect, and is replaced."""
    _movie(trial)
    gain = np.ones(_SHAPE[1:], np.float32)
    gain[3, 5] = np.nan
    tifffile.imwrite(trial.folder / "gain.tif", gain)
    trial.fault(*_WORDS, "--gain", "gain.tif", code=0, says="m1.tif: done")
    bins = [np.fromfile(path, "<f4") for path in trial.out.glob("*.bin")]
    good = bool(bins) and all(np.isfinite(values).all() for values in bins)
    trial.check(good, "only finite pixels in the store", "pixels in the store that are not finite")


@fault
def gain_missing(trial: Trial) -> None:
    """The gain reference is not there."""
    _movie(trial)
    trial.fault(*_WORDS, "--gain", "gain.mrc", code=4, says="gain.mrc")
    _no_store(trial)


@fault
def movie_cut(trial: Trial) -> None:
    """A movie that is cut off among good ones: named, the others are used."""
    _movie(trial, "m1.tif", 1)
    bad = _movie(trial, "m2.tif", 2)
    _movie(trial, "m3.tif", 3)
    payload = bad.read_bytes()
    bad.write_bytes(payload[: len(payload) * 2 // 3])
    trial.fault(*_WORDS, code=3, says=("m2.tif", "failed"))
    trial.check((trial.out / "dataset.json").exists(), "a store of the others", "no store")


@fault
def movie_of_one_frame(trial: Trial) -> None:
    """A movie of one frame has no halves."""
    tifffile.imwrite(trial.inputs / "m1.tif", np.random.default_rng(1).poisson(40, (96, 128)).astype(np.uint16))
    trial.fault(*_WORDS, code=4, says="m1.tif")
    _no_store(trial)


@fault
def movie_killed(trial: Trial) -> None:
    """Kill -9 while movies are summed into halves, then the same command again."""
    import signal

    from faults.signals import interrupted

    for number in range(8):
        _movie(trial, f"m{number}.tif", number)
    partial = lambda: any(trial.out.glob(".noisy_train*"))  # noqa: E731
    trial.judge(interrupted(trial, list(_WORDS), signal.SIGKILL, partial), code=-9)
    trial.run(*_WORDS)
    words = [*_WORDS]
    words[words.index("out")] = "undisturbed"
    trial.run(*words)
    trial.same_files(trial.out, trial.folder / "undisturbed", "*.bin", "the store's bins")
    trial.no_leftovers()


def _good_ser(trial: Trial) -> Finished:
    """Inspect a good SER file: the library for it takes a second to load."""
    head = struct.pack("<HHH", 0x4949, 0x0197, 0x0210) + struct.pack("<IIIIII", 0x4122, 0x4152, 1, 1, 30, 0)
    calibration = struct.pack("<ddi", 0, 2e-10, 0) * 2 + struct.pack("<hii", 2, 64, 64)
    pixels = np.random.default_rng(1).integers(1, 99, (64, 64)).astype("<u2").tobytes()
    path = trial.folder / "good.ser"
    path.write_bytes(head + struct.pack("<II", 38, 0) + calibration + pixels)
    return trial.run("inspect", "good.ser")


def _refused(trial: Trial, name: str, payload: bytes, slow_library: bool = False) -> None:
    """Put a bad file beside a good micrograph: the good one is done, and the bad one is refused quickly."""
    trial.add("mic_0001.mrc")
    (trial.inputs / name).write_bytes(payload)
    words = ["denoise", "in", "--checkpoint", str(trial.bench.checkpoint), "-o", "out"]
    trial.fault(*words, code=3, says=(name, "failed"))
    trial.same_results(["mic_0001.mrc"])
    trial.only_results(["mic_0001.mrc"])
    trial.quick(trial.run("inspect", f"in/{name}", code=1), _good_ser(trial) if slow_library else None)


@fault
def tiff_loop(trial: Trial) -> None:
    """A TIFF movie whose list of pages leads back to its first page: no endless walk, no lost frames."""
    path = _movie(trial, "loop.tif")
    payload = bytearray(path.read_bytes())
    first = place = struct.unpack_from("<I", payload, 4)[0]
    while following := struct.unpack_from("<I", payload, end := place + 2 + 12 * _short(payload, place))[0]:
        place = following
    struct.pack_into("<I", payload, end, first)
    path.unlink()
    _refused(trial, "loop.tif", bytes(payload))


def _short(payload: bytearray, place: int) -> int:
    return int(struct.unpack_from("<H", payload, place)[0])


@fault
def tiff_huge(trial: Trial) -> None:
    """A TIFF file of 300 bytes that claims 2147483647 x 2147483647 pixels."""
    tags = [(256, 4, 2**31 - 1), (257, 4, 2**31 - 1), (258, 3, 32), (259, 3, 1), (262, 3, 1), (273, 4, 200)]
    tags += [(277, 3, 1), (278, 4, 2**31 - 1), (279, 4, 100), (339, 3, 3)]
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    payload = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + body + bytes(4)
    _refused(trial, "huge.tif", payload.ljust(300, b"\0"))


@fault
def ser_lies(trial: Trial) -> None:
    """A SER file that claims 2^31 images of which none is there."""
    head = struct.pack("<HHH", 0x4949, 0x0197, 0x0210) + struct.pack("<IIII", 0x4122, 0x4152, 2**31 - 1, 2**31 - 1)
    _refused(trial, "lies.ser", head + struct.pack("<II", 30, 0) + bytes(200), slow_library=True)


@fault
def dm4_lies(trial: Trial) -> None:
    """A DM4 file that claims 2^60 tags."""
    head = struct.pack(">IQI", 4, 1000, 1) + struct.pack(">BBQ", 1, 0, 2**60)
    _refused(trial, "lies.dm4", head + bytes(500), slow_library=True)


@fault
def eer_garbage(trial: Trial) -> None:
    """An EER movie whose frames are random bytes."""
    path = trial.folder / "garbage.tif"
    frame = np.random.default_rng(1).integers(0, 256, 5000, np.uint8)
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8))
    payload = path.read_bytes()
    _refused(trial, "garbage.eer", payload[:8] + frame.tobytes())


@fault
def cs_with_code(trial: Trial) -> None:
    """A cryoSPARC dataset (.cs) with pickled objects in it: its code never runs."""
    ran = trial.folder / "ran"
    rows = np.empty(1, [("blob/path", object)])
    rows[0] = (Gadget(ran),)
    with (trial.folder / "set.cs").open("wb") as stream:
        np.lib.format.write_array(stream, rows, allow_pickle=True)
    trial.fault("denoise", "set.cs", "--checkpoint", str(trial.bench.checkpoint), "-o", "out", code=4, says="set.cs")
    trial.only_results([])
    trial.check(not ran.exists(), "its code never ran", "ITS CODE RAN")
    trial.check(b"touch" in pickle.dumps(Gadget(ran)), "it was there to run", "the row was harmless")


@fault
def cs_cut(trial: Trial) -> None:
    """A cryoSPARC dataset (.cs) that is cut in the middle of a row."""
    rows = np.zeros(50, [("micrograph_blob/path", "S80"), ("micrograph_blob/psize_A", "<f4")])
    rows["micrograph_blob/path"] = b"in/mic_0001.mrc"
    shutil.copy(trial.bench.micrographs / "mic_0001.mrc", trial.inputs)
    path = trial.folder / "set.cs"
    with path.open("wb") as stream:
        np.save(stream, rows)
    path.write_bytes(path.read_bytes()[:-30])
    trial.fault("denoise", "set.cs", "--checkpoint", str(trial.bench.checkpoint), "-o", "out", code=4, says="set.cs")
    trial.only_results([])
