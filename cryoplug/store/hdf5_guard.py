"""Open an HDF5 store: libhdf5 reads the file in a separate process, because a damaged file can hang or crash it.

Fuzzing found files of 10 kB on which libhdf5 1.14 loops for ever within C, where Python can neither interrupt nor limit it.
The process returns only numbers and the text of the manifest. Pixels are then read by offset, without libhdf5.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cryoplug.disk.atomic import storage_errors
from cryoplug.disk.checked_input import allocated_bytes
from cryoplug.errors import FormatError, InputError, PairingError
from cryoplug.store.layout import PatchRun, StoreLayout, check_count, storage_dtype
from cryoplug.store.manifest import SPLITS, Manifest
from cryoplug.store.manifest_reader import manifest_from_json

BASE_SECONDS, BASE_BYTES = 0.4, 80_000_000
"""Processor time (s) and memory (bytes) allowed for any file; opening 100,000 patches takes a tenth of it."""
SECONDS_PER_BYTE, MEMORY_PER_BYTE = 5e-8, 0.5
"""Time and memory added for each byte of the file: each patch is visited once, and the manifest is copied six times."""

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from cryoplug.store import hdf5_guard as g; g.child()"
)
_ERRORS: dict[str, type[InputError]] = {"FormatError": FormatError, "PairingError": PairingError}


def hdf5_layout(path: Path) -> StoreLayout:
    """Find the patches of an HDF5 store.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    FormatError, PairingError
        The file is not HDF5, or it is damaged, compressed, laid out in another way, or too large for the limits.
    """
    head, runs, manifest = _ask(path)
    if not runs:
        raise FormatError(f"{path}: no patches under train/noisy, train/clean or test; is it a cryoplug store?")
    dtype = storage_dtype(head["dtype"])
    if (manifest is not None and manifest.whole) or head["shape"] is None:
        return _whole_layout(path, head["shapes"], dtype, runs, manifest)
    shape = int(head["shape"][0]), int(head["shape"][1])
    if manifest is not None:
        if (manifest.patch_shape, manifest.dtype) != (shape, dtype.name):
            raise FormatError(
                f"{path}: patches are {shape} {dtype.name} but the manifest says {manifest.patch_shape} "
                f"{manifest.dtype}; run the convert again"
            )
        for split in SPLITS:
            check_count(path, len(runs[split][0].offsets) if split in runs else 0, manifest, split)
    return StoreLayout(manifest=manifest, patch_shape=shape, dtype=dtype, runs=runs)


def _whole_layout(
    path: Path,
    shapes: dict[str, list[list[int]]],
    dtype: np.dtype,
    runs: dict[str, tuple[PatchRun, PatchRun]],
    manifest: Manifest | None,
) -> StoreLayout:
    found = {split: [(int(y), int(x)) for y, x in rows] for split, rows in shapes.items()}
    if manifest is None or not manifest.whole:
        raise FormatError(f"{path}: whole micrographs without a manifest that says so; run the convert again")
    for split in SPLITS:
        if found.get(split, []) != manifest.image_shapes(split) or manifest.dtype != dtype.name:
            raise FormatError(f"{path}: {split} holds other images than the manifest says; run the convert again")
    return StoreLayout(manifest=manifest, patch_shape=manifest.patch_shape, dtype=dtype, runs=runs, image_shapes=found)


def hdf5_manifest(path: Path) -> Manifest | None:
    """Read the manifest; None if the file has none."""
    return _ask(path)[2]


def _ask(path: Path) -> tuple[dict[str, Any], dict[str, tuple[PatchRun, PatchRun]], Manifest | None]:
    with storage_errors(path):
        size = allocated_bytes(path)
    search = json.dumps([item for item in sys.path if item])
    # Isolated (-I): a file h5py.py in the working folder must not be taken for the library.
    command = [sys.executable, "-I", "-c", _START, search, os.fspath(path.absolute()), os.fspath(path), str(size)]
    # Damaged files name plugins too; this word tells libhdf5 to load none.
    environment = {**os.environ, "HDF5_PLUGIN_PRELOAD": "::"}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            head = _head(process.stdout.readline())
            if head is None:
                code = process.wait()
                why = f"signal {signal.Signals(-code).name}" if code < 0 else f"code {code}"
                raise FormatError(
                    f"{path}: libhdf5 needs more than {BASE_SECONDS + size * SECONDS_PER_BYTE:.1f} s or "
                    f"{BASE_BYTES + int(size * MEMORY_PER_BYTE)} bytes to open it, or fails ({why}): it is damaged; "
                    "run the convert again"
                )
            if "error" in head:
                raise _ERRORS.get(head["error"], FormatError)(head["message"])
            runs = {
                split: (
                    PatchRun(path, _offsets(process.stdout, noisy, path)),
                    PatchRun(path, _offsets(process.stdout, clean, path)),
                )
                for split, (noisy, clean) in head["runs"].items()
            }
            text = process.stdout.read() if head["has_manifest"] else None
        finally:
            process.kill()
    return head, runs, None if text is None else manifest_from_json(text, path=path, pixel_bytes=size)


def _head(line: bytes) -> dict[str, Any] | None:
    return json.loads(line) if line.endswith(b"\n") else None


def _offsets(stream: BinaryIO | Any, record: list[int], path: Path) -> Sequence[int] | NDArray[np.int64]:
    if len(record) == 3:
        return range(*record)
    payload = stream.read(record[0] * 8)
    if len(payload) < record[0] * 8:
        raise FormatError(f"{path}: libhdf5 failed while it listed the patches; the file is damaged, convert again")
    return np.frombuffer(payload, "<i8")


def child() -> None:
    """Read one file and print the answer; only the process that `_ask` starts calls this."""
    from cryoplug.store.hdf5 import read_content

    # A scheduler's signals are for the parent, which ends this process with itself.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    absolute, named, size = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    limit_process(size)
    try:
        content = read_content(absolute)
    except InputError as error:
        message = str(error).replace(str(absolute), named)
        _send(json.dumps({"error": type(error).__name__, "message": message}).encode() + b"\n")
        return
    records, blobs = {}, []
    for split, pair in content.runs.items():
        records[split] = [_record(run.offsets) for run in pair]
        blobs += [np.ascontiguousarray(run.offsets, "<i8").data for run in pair if not isinstance(run.offsets, range)]
    text = content.manifest_text
    head = {
        "shape": content.patch_shape,
        "shapes": content.image_shapes,
        "dtype": content.dtype,
        "runs": records,
        "has_manifest": text is not None,
    }
    _send(json.dumps(head).encode() + b"\n", *blobs, (text or "").encode("utf-8", "surrogateescape"))


def limit_process(size_bytes: int) -> None:
    """Limit this process to the time and memory that a file of `size_bytes` bytes can need."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, BASE_SECONDS + size_bytes * SECONDS_PER_BYTE)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + BASE_BYTES + int(size_bytes * MEMORY_PER_BYTE)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _record(offsets: Any) -> list[int]:
    return [offsets.start, offsets.stop, offsets.step] if isinstance(offsets, range) else [len(offsets)]


def _send(*parts: Any) -> None:
    for part in parts:
        sys.stdout.buffer.write(part)
    sys.stdout.buffer.flush()
