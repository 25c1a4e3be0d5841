"""Checkpoint folders: founding ``.bin`` files, ``model.safetensors``, ``checkpoint.json``. Nothing in them is executed.

The founding layout is one float32 little-endian file per tensor, C order ``(out, in, ky, kx)``. Weights were once saved
in another axis order than they were trained in, and nobody noticed for days: a checkpoint is read back before it gets
its name.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cryoplug.core.atomic import atomic_folder, storage_errors, write_text
from cryoplug.core.results import Finding, to_json
from cryoplug.core.untrusted import parse_json, read_limited, shown
from cryoplug.errors import FormatError, InputError, MissingInputError, StorageError, UsageError
from cryoplug.models.registry import FOUNDING_MODELS, ModelSpec, model_spec
from cryoplug.models.safetensors_header import TensorEntry, read_tensor_header

FORMAT_VERSION = 1
NORMALIZATIONS = ("percentile", "zscore", "none")
JSON_NAME = "checkpoint.json"
SAFETENSORS_NAME = "model.safetensors"
LOSS_NAME = "loss.txt"
MAX_JSON_BYTES = 1 << 20
MAX_WEIGHTS_BYTES = 4 << 30
EPOCH_FOLDER = re.compile(r"epoch_(\d{4,})")
_BIN_NAME = re.compile(r"(conv\d+)_(weights|bias)\.bin")
_OWN_FIELDS = {"format_version", "model", "config", "normalize", "pixel_size_angstrom", "weights_sha256"}
_MAX_LOSS_BYTES = 4096
_MAX_NAME = 100
_SHOWN_PROBLEMS = 20
_PICKLES = (".pt", ".pth", ".pkl", ".ckpt", ".pickle", ".npz", ".npy", ".joblib", ".tar")
_DTYPE_NAMES = {"F64": "float64", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class Checkpoint:
    """Trained weights and what is needed to apply them."""

    model_id: str
    """Which network: an id of `cryoplug.models.registry`."""
    weights: dict[str, np.ndarray]
    """State key, such as ``conv1.weight`` ``(out, in, ky, kx)``, to float32 array."""
    config: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the network's factory."""
    normalize: str = "percentile"
    """How images were normalised for training: ``percentile``, ``zscore`` or ``none``."""
    pixel_size_angstrom: float | None = None
    """Sampling of the training data; None when it is not known."""
    details: dict[str, Any] = field(default_factory=dict)
    """``epoch``, ``train_loss``, ``val_loss``, ``data_fingerprint``, ``software`` and whatever else was recorded."""
    path: Path | None = None
    """The epoch folder it was loaded from."""

    @property
    def sha256(self) -> str:
        """Hex digest of all weights: names, shapes and values; equal for every way of storing the same weights."""
        digest = hashlib.sha256()
        for name in sorted(self.weights):
            array = np.ascontiguousarray(self.weights[name], "<f4")
            digest.update(f"{name} {array.shape}\n".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    @property
    def angpix(self) -> float | None:
        """Pixel size that the training data were Fourier-cropped to, in angstrom; None when they were not."""
        return self.details.get("angpix")

    @property
    def spec(self) -> ModelSpec:
        """The network's entry in the registry, completed by the config."""
        return model_spec(self.model_id).configured(self.config)


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint; pickles are never opened.

    Parameters
    ----------
    path
        An ``epoch_NNNN`` folder, a run folder (its epoch with the lowest loss is taken), the folder above the only run,
        or a founding folder that holds nothing but ``.bin`` files (3 layers: cryo_cnn, 12: residual_cnn; percentile).

    Raises
    ------
    MissingInputError
        Nothing is there.
    FormatError
        Something is wrong; every problem is listed.
    """
    folder = find_epoch_folder(Path(path))
    checkpoint, findings = _examine(folder)
    problems = [f"{item.field}: {item.message}" for item in findings if item.severity == "error"]
    if problems or checkpoint is None:
        raise FormatError(f"{folder}: not a usable checkpoint: " + "; ".join(problems))
    return checkpoint


def validate_checkpoint(path: Path | str) -> list[Finding]:
    """List everything that is wrong or unusual about a checkpoint; empty when it is sound."""
    try:
        folder = find_epoch_folder(Path(path))
    except InputError as error:
        return [Finding("error", str(path), str(error))]
    return _examine(folder)[1]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, loss: float) -> None:
    """Write a checkpoint folder, read it back, compare bit for bit, and only then give it its name.

    Parameters
    ----------
    folder
        Final path, usually ``.../epoch_NNNN``; must not exist.
    checkpoint
        What to write.
    loss
        Goes into ``loss.txt`` as F12.8: the validation loss.

    Raises
    ------
    StorageError
        The system refused, or what was read back differs.
    """
    from safetensors.numpy import save

    weights = {name: np.ascontiguousarray(array, "<f4") for name, array in checkpoint.weights.items()}
    record = {
        "format_version": FORMAT_VERSION,
        "model": checkpoint.model_id,
        "config": checkpoint.config,
        "normalize": checkpoint.normalize,
        "pixel_size_angstrom": checkpoint.pixel_size_angstrom,
        **checkpoint.details,
        "weights_sha256": checkpoint.sha256,
    }
    with atomic_folder(folder) as partial, storage_errors(folder):
        for name, _, _ in checkpoint.spec.layers:
            (partial / f"{name}_weights.bin").write_bytes(weights[f"{name}.weight"].tobytes())
            (partial / f"{name}_bias.bin").write_bytes(weights[f"{name}.bias"].tobytes())
        (partial / SAFETENSORS_NAME).write_bytes(save(weights))
        (partial / JSON_NAME).write_text(json.dumps(json.loads(to_json(record)), indent=1) + "\n")
        (partial / LOSS_NAME).write_text(f"{loss:12.8f}\n")
        written, findings = _examine(partial)
        errors = [item for item in findings if item.severity == "error"]
        if written is None or written.sha256 != checkpoint.sha256 or errors:
            found = "; ".join(f"{item.field}: {item.message}" for item in findings) or "other weights"
            raise StorageError(f"{folder}: what was written reads back differently ({found}); check the disk")


def add_details(folder: Path, **details: Any) -> None:
    """Put further fields into the ``checkpoint.json`` of a sound checkpoint; weights and losses stay as they are.

    Raises
    ------
    FormatError
        The folder holds no usable checkpoint.
    UsageError
        A field has a meaning of its own already.
    """
    reserved = sorted(_OWN_FIELDS & details.keys())
    if reserved:
        raise UsageError(f"{', '.join(reserved)}: fields of every {JSON_NAME} (allowed: other names)")
    load_checkpoint(folder)
    path = folder / JSON_NAME
    record = parse_json(read_limited(path, MAX_JSON_BYTES))
    record.update(json.loads(to_json(details)))
    write_text(path, json.dumps(record, indent=1) + "\n")


def find_epoch_folder(path: Path) -> Path:
    """Return the folder that holds the weights: `path` itself, or the best epoch below it."""
    if path.is_file():
        if path.name in (SAFETENSORS_NAME, JSON_NAME, LOSS_NAME) or _BIN_NAME.fullmatch(path.name):
            return path.parent
        reason = "pickles can run code and are not loaded" if path.suffix in _PICKLES else "not a checkpoint folder"
        raise FormatError(f"{path}: {reason}; give a run folder, an epoch_NNNN folder or a folder of conv*_weights.bin")
    if not path.is_dir():
        raise MissingInputError(f"{path}: no such folder; give a run folder or an epoch_NNNN folder")
    if _holds_weights(path):
        return path
    best = best_epoch(path)
    if best is not None:
        return best
    runs = [(item, epoch) for item in _folders(path) if (epoch := best_epoch(item)) is not None]
    if len(runs) == 1:
        return runs[0][1]
    if runs:
        names = ", ".join(item.name for item, _ in runs)
        raise FormatError(f"{path}: holds {len(runs)} runs ({names}); name one of them")
    raise FormatError(
        f"{path}: no checkpoint in it; give a folder with {SAFETENSORS_NAME}, conv*_weights.bin or epoch_NNNN folders"
    )


def best_epoch(run_folder: Path) -> Path | None:
    """Return the ``epoch_NNNN`` folder with the lowest loss (the later one on a tie), or None when there is none."""
    epochs = [item for item in _folders(run_folder) if EPOCH_FOLDER.fullmatch(item.name) and _holds_weights(item)]
    if not epochs:
        return None
    return min(epochs, key=lambda item: (_loss_of(item), -epoch_number(item)))


def epoch_number(folder: Path) -> int:
    """Return N of ``epoch_N``."""
    match = EPOCH_FOLDER.fullmatch(folder.name)
    return int(match.group(1)) if match else 0


def read_loss(folder: Path) -> float | None:
    """Return the loss in ``loss.txt``, or None when the file is missing or holds no number."""
    try:
        return float(read_limited(folder / LOSS_NAME, _MAX_LOSS_BYTES).split()[0])
    except (InputError, StorageError, ValueError, IndexError):
        return None


def _loss_of(folder: Path) -> float:
    loss = read_loss(folder)
    return float("inf") if loss is None or loss != loss else loss


def _folders(path: Path) -> list[Path]:
    with storage_errors(path):
        return sorted(item for item in path.iterdir() if item.is_dir() and not item.name.startswith("."))


def _holds_weights(folder: Path) -> bool:
    with storage_errors(folder):
        names = {item.name for item in folder.iterdir()}
    return bool(names & {SAFETENSORS_NAME, JSON_NAME}) or any(_BIN_NAME.fullmatch(name) for name in names)


def _examine(folder: Path) -> tuple[Checkpoint | None, list[Finding]]:
    findings: list[Finding] = []
    record = _read_record(folder, findings)
    spec = _spec_of(folder, record, findings)
    if spec is None:
        return None, findings
    from_bins = _read_bins(folder, spec, findings)
    from_tensors = _read_safetensors(folder, spec, findings)
    if from_bins and from_tensors:
        for name in sorted(set(from_bins) & set(from_tensors)):
            if not np.array_equal(from_bins[name], from_tensors[name], equal_nan=True):
                message = f"the .bin file and {SAFETENSORS_NAME} differ; restore one of them"
                findings.append(Finding("error", name, message))
    weights = from_tensors or from_bins
    if not weights:
        if not any(item.severity == "error" for item in findings):
            findings.append(Finding("error", "weights", f"neither {SAFETENSORS_NAME} nor .bin files; copy them here"))
        return None, findings
    for name, array in weights.items():
        bad = int(array.size - np.isfinite(array).sum())
        if bad:
            findings.append(Finding("error", name, f"{bad} of {array.size} weights are NaN or infinite; train again"))
    if read_loss(folder) is None:
        findings.append(Finding("warning", LOSS_NAME, "missing or no number; the epoch cannot be ranked"))
    checkpoint = Checkpoint(
        spec.id,
        weights,
        config=dict(record.get("config") or {}),
        normalize=record.get("normalize", "percentile"),
        pixel_size_angstrom=record.get("pixel_size_angstrom"),
        details={key: value for key, value in record.items() if key not in _OWN_FIELDS},
        path=folder,
    )
    recorded = record.get("weights_sha256")
    if recorded is not None and recorded != checkpoint.sha256:
        message = (
            f"weights_sha256 {shown(recorded):.13}... recorded, {checkpoint.sha256:.12}... found; damaged: restore it"
        )
        findings.append(Finding("error", JSON_NAME, message))
    return checkpoint, findings


def _read_record(folder: Path, findings: list[Finding]) -> dict[str, Any]:
    path = folder / JSON_NAME

    def bad(message: str) -> None:
        findings.append(Finding("error", JSON_NAME, message))

    if not path.exists():
        # Founding folders hold nothing but .bin files; beside model.safetensors it was lost, and the normalization with it.
        if (folder / SAFETENSORS_NAME).exists():
            bad(f"missing beside {SAFETENSORS_NAME}, so that the normalization is unknown; copy the whole folder again")
        return {}
    try:
        record = parse_json(read_limited(path, MAX_JSON_BYTES))
    except InputError as error:
        bad(str(error).removeprefix(f"{path}: "))
        return {}
    except ValueError as error:
        bad(f"not JSON ({error}); restore the folder")
        return {}
    if not isinstance(record, dict):
        bad(f"holds a {type(record).__name__} (allowed: an object); restore the folder")
        return {}
    if record.get("format_version") != FORMAT_VERSION:
        version = record.get("format_version")
        bad(f"format_version {shown(version)} (allowed: {FORMAT_VERSION}); use the cryoplug that wrote it")
    model = record.get("model")
    if not isinstance(model, str) or not 0 < len(model) <= _MAX_NAME:
        bad(f"model {shown(model)} (allowed: a name of up to {_MAX_NAME} letters); restore the folder")
        record["model"] = None
    if not isinstance(record.get("config", {}), dict):
        bad(f"config {shown(record.get('config'))} (allowed: an object); restore the folder")
        record["config"] = {}
    if not isinstance(record.get("normalize"), str) or record["normalize"] not in NORMALIZATIONS:
        bad(f"normalize {shown(record.get('normalize'))} (allowed: {', '.join(NORMALIZATIONS)}); restore the folder")
    for name in ("pixel_size_angstrom", "angpix"):
        size = record.get(name)
        number = isinstance(size, (int, float)) and not isinstance(size, bool)
        if size is not None and not (number and 0 < size < 1e6):
            bad(f"{name} {shown(size)} (allowed: a positive number or null); restore the folder")
            record[name] = None
    return record


def _spec_of(folder: Path, record: dict[str, Any], findings: list[Finding]) -> ModelSpec | None:
    model_id = record.get("model")
    if isinstance(model_id, str):
        try:
            return model_spec(model_id).configured(record.get("config"))
        except ValueError as error:
            findings.append(Finding("error", JSON_NAME, str(error)))
            return None
    if record or any(item.severity == "error" for item in findings):
        return None
    found = {match.group(1) for item in folder.iterdir() if (match := _BIN_NAME.fullmatch(item.name))}
    for spec in FOUNDING_MODELS:
        if found and found <= {name for name, _, _ in spec.layers}:
            return spec
    message = (
        f"layers {', '.join(sorted(found)) or 'none'} and no {JSON_NAME} "
        "(allowed: conv1..conv3 for cryo_cnn, conv01..conv12 for residual_cnn); copy the missing files here"
    )
    findings.append(Finding("error", "layers", message))
    return None


def _read_bins(folder: Path, spec: ModelSpec, findings: list[Finding]) -> dict[str, np.ndarray]:
    present = {item.name for item in folder.iterdir() if _BIN_NAME.fullmatch(item.name)}
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
                message = f"{size} bytes, but {_times(shape)} float32 of {spec.id} are {expected} bytes; restore it"
                findings.append(Finding("error", name, message))
                continue
            payload = (folder / name).read_bytes()
        weights[files[name]] = np.frombuffer(payload, "<f4").astype(np.float32).reshape(shape)
    return weights


def _bin_name(key: str) -> str:
    layer, _, kind = key.rpartition(".")
    return f"{layer}_{'weights' if kind == 'weight' else 'bias'}.bin"


def _times(shape: Iterable[int]) -> str:
    return "x".join(str(side) for side in shape)


def _read_safetensors(folder: Path, spec: ModelSpec, findings: list[Finding]) -> dict[str, np.ndarray]:
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
        f"{shown(name)[1:-1]} is {_DTYPE_NAMES.get(entry.dtype, entry.dtype)} (allowed: float32); restore it"
        for name, entry in sorted(entries.items())
        if entry.dtype != "F32"
    ]
    problems += [f"{name} is missing; {spec.id} needs it" for name in sorted(set(shapes) - set(entries))]
    if shapes:
        others = sorted(set(entries) - set(shapes))
        problems += [f"{shown(name)[1:-1]} is no weight of {spec.id}; restore it" for name in others]
    for name in sorted(set(shapes) & set(entries)):
        if entries[name].shape != shapes[name]:
            found, needed = _times(entries[name].shape), _times(shapes[name])
            problems.append(f"{name} is {found}, {spec.id} needs {needed}; restore it")
    return (
        problems if len(problems) <= _SHOWN_PROBLEMS else [*problems[:_SHOWN_PROBLEMS], f"and {len(problems)} in all"]
    )
