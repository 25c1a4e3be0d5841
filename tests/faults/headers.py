"""Micrographs whose headers lie: cut, huge, negative, of another kind. Good ones beside them are always done."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

from faults.table import fault
from faults.trial import Trial

_GOOD = "mic_0001.mrc"
_NX, _NY, _NZ, _MODE, _NSYMBT = 0, 4, 8, 12, 92
_MAP, _STAMP = 208, 212


def _bytes(trial: Trial) -> bytearray:
    return bytearray((trial.bench.micrographs / "mic_0002.mrc").read_bytes())


def _with(payload: bytearray, **values: int) -> bytearray:
    places = {"nx": _NX, "ny": _NY, "nz": _NZ, "mode": _MODE, "nsymbt": _NSYMBT}
    for name, value in values.items():
        struct.pack_into("<i", payload, places[name], value)
    return payload


def _refused(trial: Trial, payload: bytes, says: str | tuple[str, ...], name: str = "bad.mrc") -> Path:
    """Put a bad file beside a good one: the good one is done, the bad one is named; `inspect` says the same quickly."""
    trial.add(_GOOD)
    path = trial.inputs / name
    path.write_bytes(payload)
    wanted = (name, says) if isinstance(says, str) else (name, *says)
    words = ["denoise", "in", "--checkpoint", str(trial.bench.checkpoint), "-o", "out"]
    trial.fault(*words, code=3, says=wanted)
    trial.same_results([_GOOD])
    trial.only_results([_GOOD])
    trial.quick(trial.run("inspect", f"in/{name}", code=1))
    return path


@fault
def truncated(trial: Trial) -> None:
    """A truncated MRC file."""
    payload = _bytes(trial)
    _refused(trial, payload[: len(payload) // 2], "bytes")


@fault
def header_cut(trial: Trial) -> None:
    """An MRC file of 512 bytes: not even a header."""
    _refused(trial, _bytes(trial)[:512], "512 bytes")


@fault
def empty_file(trial: Trial) -> None:
    """An empty file."""
    _refused(trial, b"", "empty")


@fault
def text_file(trial: Trial) -> None:
    """A text named .mrc."""
    _refused(trial, b"This is not a micrograph.\n" * 100, "text")


@fault
def random_bytes(trial: Trial) -> None:
    """Random bytes named .mrc."""
    import numpy as np

    _refused(trial, np.random.default_rng(7).integers(0, 256, 5000, np.uint8).tobytes(), ())


@fault
def claims_2_31(trial: Trial) -> None:
    """A header that claims 2147483647 x 2147483647 pixels."""
    _refused(trial, _with(_bytes(trial), nx=2**31 - 1, ny=2**31 - 1), "2147483647")


@fault
def claims_2_31_cubed(trial: Trial) -> None:
    """A header that claims 2147483647 sections of 2147483647 x 2147483647 pixels."""
    _refused(trial, _with(_bytes(trial), nx=2**31 - 1, ny=2**31 - 1, nz=2**31 - 1), "2147483647")


@fault
def claims_wrapping(trial: Trial) -> None:
    """A header whose size is 0 in 32 bits (65536 x 65536, mode 0)."""
    _refused(trial, _with(_bytes(trial), nx=65536, ny=65536, mode=0), "65536")


@fault
def negative_side(trial: Trial) -> None:
    """A header with a negative extent."""
    _refused(trial, _with(_bytes(trial), nx=-512), "-512")


@fault
def no_pixels(trial: Trial) -> None:
    """A header with an extent of 0."""
    _refused(trial, _with(_bytes(trial), ny=0), "0")


@fault
def extended_huge(trial: Trial) -> None:
    """An extended header of 2147483647 bytes (nsymbt) in a file of 1 MB."""
    _refused(trial, _with(_bytes(trial), nsymbt=2**31 - 1), "2147483647")


@fault
def extended_negative(trial: Trial) -> None:
    """An extended header of -4 bytes (nsymbt)."""
    _refused(trial, _with(_bytes(trial), nsymbt=-4), "-4")


@fault
def mode_4(trial: Trial) -> None:
    """Complex pixels (mode 4)."""
    payload = _with(_bytes(trial), mode=4, nx=256)
    _refused(trial, payload, ("mode 4", "complex"))


@fault
def mode_99(trial: Trial) -> None:
    """A mode that does not exist (99)."""
    _refused(trial, _with(_bytes(trial), mode=99), "mode 99")


@fault
def stack_as_micrograph(trial: Trial) -> None:
    """A movie of 4 frames where a micrograph is expected."""
    payload = _with(_bytes(trial), nx=2048, ny=128, nz=4, mode=0)
    _refused(trial, payload, "4 sections")


@fault
def big_endian(trial: Trial) -> None:
    """A big-endian file: read as it is meant."""
    import numpy as np

    payload = _bytes(trial)
    words = np.frombuffer(bytes(payload), "<u4").copy()
    text = slice(224 // 4, 1024 // 4)
    swapped = words.byteswap()
    swapped[text] = words[text]
    swapped[_MAP // 4] = words[_MAP // 4]
    out = bytearray(swapped.tobytes())
    out[_STAMP : _STAMP + 4] = bytes([17, 17, 0, 0])
    _read_well(trial, out)


@fault
def no_map_stamp(trial: Trial) -> None:
    """A file without the letters MAP and without a machine stamp: read, with a warning."""
    payload = _bytes(trial)
    payload[_MAP : _MAP + 8] = bytes(8)
    _read_well(trial, payload)
    done = trial.run("inspect", "in/bad.mrc", code=1)
    trial.check("MAP" in done.stdout + done.stderr, "inspect says so", "inspect does not say so")


@fault
def extra_bytes(trial: Trial) -> None:
    """A file with 1000 bytes more than its header says: read."""
    _read_well(trial, _bytes(trial) + bytes(1000))


def _read_well(trial: Trial, payload: bytes) -> None:
    """Check that a strange file gives the pixels of the micrograph that it was made from."""
    import numpy as np

    (trial.inputs / "bad.mrc").write_bytes(payload)
    words = ["denoise", "in", "--checkpoint", str(trial.bench.checkpoint), "-o", "out"]
    trial.fault(*words, code=0, says="bad.mrc")
    result, wanted = trial.out / "bad.mrc", trial.bench.denoised / "mic_0002.mrc"
    pixels = [np.frombuffer(path.read_bytes()[1024:], "<f4") for path in (result, wanted) if path.exists()]
    same = len(pixels) == 2 and np.array_equal(*pixels)
    trial.check(same, "pixels bit-equal to those of the undamaged file", "other pixels than from the undamaged file")


@fault
def sparse_giant(trial: Trial) -> None:
    """A sparse file of 64 GB whose header is right: nothing but zeros."""
    trial.add(_GOOD)
    path = trial.inputs / "bad.mrc"
    path.write_bytes(_with(_bytes(trial), nx=131072, ny=131072)[:1024])
    with path.open("r+b") as stream:
        stream.truncate(1024 + 131072 * 131072 * 4)
    trial.forget_inputs()
    words = ["denoise", "in", "--checkpoint", str(trial.bench.checkpoint), "-o", "out"]
    trial.fault(*words, code=3, says="bad.mrc")
    trial.same_results([_GOOD])
    trial.quick(trial.run("inspect", "in/bad.mrc", code=1))
    path.unlink()


@fault
def gzip_bomb(trial: Trial) -> None:
    """A gzip bomb: 2 GB of zeros in 9 MB, named .mrc.gz."""
    path = trial.inputs / "bad.mrc.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(_with(_bytes(trial), nx=2**15, ny=2**14)[:1024])
        block = bytes(1 << 24)
        for _ in range(128):
            stream.write(block)
    _refused(trial, path.read_bytes(), (), name="bad.mrc.gz")


@fault
def gzip_cut(trial: Trial) -> None:
    """A compressed micrograph that is cut off."""
    whole = gzip.compress(bytes(_bytes(trial)))
    _refused(trial, whole[: len(whole) // 2], ("damaged or incomplete",), name="bad.mrc.gz")


@fault
def gzip_flipped(trial: Trial) -> None:
    """A compressed micrograph with one wrong byte."""
    whole = bytearray(gzip.compress(bytes(_bytes(trial))))
    whole[len(whole) // 2] ^= 0x10
    _refused(trial, bytes(whole), (), name="bad.mrc.gz")


@fault
def tiff_cut(trial: Trial) -> None:
    """A TIFF file that is cut off."""
    import io

    import numpy as np
    import tifffile

    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.random.default_rng(1).normal(100, 10, (256, 256)).astype(np.float32))
    _refused(trial, buffer.getvalue()[: len(buffer.getvalue()) // 2], (), name="bad.tif")
