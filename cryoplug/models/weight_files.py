"""The two kinds of weight files: founding ``.bin`` files, one for each tensor, and ``model.safetensors``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from cryoplug.core.results import Finding
from cryoplug.disk.atomic import storage_errors
from cryoplug.disk.checked_input import read_limited, shown
from cryoplug.errors import InputError
from cryoplug.models.epoch_folders import BIN_NAME, SAFETENSORS_NAME
from cryoplug.models.registry import ModelSpec
from cryoplug.models.safetensors_header import TensorEntry, read_tensor_header

MAX_WEIGHTS_BYTES = 4 << 30
_SHOWN_PROBLEMS = 20
_DTYPE_NAMES = {"F64": "float64", "BF16": "bfloat16"}
_TAKEN = ("F32", "F16")
"""Types that are read. float16 becomes float32, so the hash (of float32 values) does not depend on the file."""


def read_bins(folder: Path, spec: ModelSpec, findings: list[Finding]) -> dict[str, np.ndarray]:
    """Read the founding files of a folder into ``{state key: array}``; problems go into `findings`."""
    present = {item.name for item in folder.iterdir() if BIN_NAME.fullmatch(item.name)}
    shapes = spec.weight_shapes() if spec.layers else {}
    files = {_bin_name(key): key for key in shapes}
    severity = "error" if not (folder / SAFETENSORS_NAME).exists() else "warning"
    if severity == "error" or present:
        for name in sorted(set(files) - present):
            message = f"missing; {spec.id} has {len(spec.layers)} layers"
            findings.append(Finding("error" if severity == "error" else "warning", name, message))
    for name in sorted(present - set(files)):
        findings.append(Finding("warning", name, f"not a layer of {spec.id}; ignored"))
    weights: dict[str, np.ndarray] = {}
    for name in sorted(present & set(files)):
        shape = shapes[files[name]]
        expected = 4 * int(np.prod(shape))
        with storage_errors(folder / name):
            size = (folder / name).stat().st_size
            if size != expected:
                message = (
                    f"{size} bytes, but {_shape_text(shape)} float32 of {spec.id} are {expected} bytes; restore it"
                )
                findings.append(Finding("error", name, message))
                continue
            payload = (folder / name).read_bytes()
        weights[files[name]] = np.frombuffer(payload, "<f4").astype(np.float32).reshape(shape)
    return weights


def _bin_name(key: str) -> str:
    layer, _, kind = key.rpartition(".")
    return f"{layer}_{'weights' if kind == 'weight' else 'bias'}.bin"


def _shape_text(shape: Iterable[int]) -> str:
    return "x".join(str(side) for side in shape)


def read_safetensors(folder: Path, spec: ModelSpec, findings: list[Finding]) -> dict[str, np.ndarray]:
    """Read ``model.safetensors`` of a folder, if it is there; problems go into `findings`."""
    path = folder / SAFETENSORS_NAME
    if not path.exists():
        return {}
    from safetensors import SafetensorError
    from safetensors.numpy import load

    def bad(message: str) -> None:
        findings.append(Finding("error", SAFETENSORS_NAME, message))

    try:
        with storage_errors(path):
            size, entries = read_tensor_header(path, MAX_WEIGHTS_BYTES)
    except InputError as error:
        bad(str(error).removeprefix(f"{path}: "))
        return {}
    except ValueError as error:
        bad(f"not readable: {error}; restore it")
        return {}
    wrong = _entry_problems(entries, spec)
    for message in wrong:
        bad(message)
    # Not one weight is read before their shapes are known to be right: a sparse file may claim gigabytes of them.
    if wrong:
        return {}
    try:
        loaded = load(read_limited(path, size))
    except InputError as error:
        bad(str(error).removeprefix(f"{path}: "))
        return {}
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        bad(f"not readable: {error}; restore it")
        return {}
    return {name: np.array(array, np.float32) for name, array in loaded.items()}


def _entry_problems(entries: dict[str, TensorEntry], spec: ModelSpec) -> list[str]:
    shapes = spec.weight_shapes()
    problems = [
        f"{shown(name)[1:-1]} is {_DTYPE_NAMES.get(entry.dtype, entry.dtype)} (allowed: float32, float16); restore it"
        for name, entry in sorted(entries.items())
        if entry.dtype not in _TAKEN
    ]
    problems += [f"{name} is missing; {spec.id} needs it" for name in sorted(set(shapes) - set(entries))]
    if shapes:
        others = sorted(set(entries) - set(shapes))
        problems += [f"{shown(name)[1:-1]} is not a weight of {spec.id}; restore it" for name in others]
    for name in sorted(set(shapes) & set(entries)):
        if entries[name].shape != shapes[name]:
            found, needed = _shape_text(entries[name].shape), _shape_text(shapes[name])
            problems.append(f"{name} is {found}, {spec.id} needs {needed}; restore it")
    return (
        problems if len(problems) <= _SHOWN_PROBLEMS else [*problems[:_SHOWN_PROBLEMS], f"and {len(problems)} in all"]
    )
