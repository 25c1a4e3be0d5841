"""Checkpoint folders: founding ``.bin`` files, ``model.safetensors``, ``checkpoint.json``. Nothing in them is executed.

The founding layout is one float32 little-endian file for each tensor, C order ``(out, in, ky, kx)``. The founding program
once saved weights in another axis order than they were trained in, and nobody noticed for days. So a checkpoint is read back
and compared before it gets its name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cryoplug.core.normalization import KINDS
from cryoplug.core.results import Finding, to_json
from cryoplug.disk.atomic import atomic_folder, storage_errors, write_text
from cryoplug.disk.checked_input import parse_json, read_limited, shown
from cryoplug.errors import FormatError, InputError, StorageError, UsageError
from cryoplug.models import shipped
from cryoplug.models.epoch_folders import (
    BIN_NAME,
    JSON_NAME,
    LOSS_NAME,
    SAFETENSORS_NAME,
    find_epoch_folder,
    read_loss,
)
from cryoplug.models.registry import FOUNDING_MODELS, ModelSpec, model_spec
from cryoplug.models.weight_files import read_bins, read_safetensors

FORMAT_VERSION = 1
MOST_FLOAT16 = float(np.finfo(np.float16).max)
MAX_JSON_BYTES = 1 << 20
_OWN_FIELDS = {"format_version", "model", "config", "normalize", "pixel_size_angstrom", "weights_sha256"}
_MAX_NAME = 100
MAX_ANGSTROM = 1e6
"""Largest length, in angstrom, that can be a pixel size."""


@dataclass(frozen=True)
class Checkpoint:
    """Trained weights and what is needed to apply them."""

    model_id: str
    """Id of the network in `cryoplug.models.registry`."""
    weights: dict[str, np.ndarray]
    """float32 array for each state key, such as ``conv1.weight`` ``(out, in, ky, kx)``."""
    config: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the network's factory."""
    normalize: str = "percentile"
    """Normalization of the training images: one of `cryoplug.core.normalization.KINDS`."""
    pixel_size_angstrom: float | None = None
    """Pixel size of the training data; None if unknown."""
    details: dict[str, Any] = field(default_factory=dict)
    """Other records: ``epoch``, ``train_loss``, ``val_loss``, ``data_fingerprint``, ``software`` and so on."""
    path: Path | None = None
    """The epoch folder it was loaded from."""
    founding: bool = False
    """Whether it comes from the founding program: a folder of ``.bin`` files without ``checkpoint.json``."""

    @cached_property
    def sha256(self) -> str:
        """Hex digest of names, shapes and values of all weights; it does not depend on how they are stored."""
        digest = hashlib.sha256()
        for name in sorted(self.weights):
            array = np.ascontiguousarray(self.weights[name], "<f4")
            digest.update(f"{name} {array.shape}\n".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(array.size for array in self.weights.values())

    @property
    def is_general(self) -> bool:
        """Whether it is the general model, which comes with the package."""
        return self.path == shipped.FOLDER

    @property
    def namesake_note(self) -> str:
        """Give a warning if the general model was loaded and a folder here is called ``general``, too; else empty."""
        return shipped.namesake_note() if self.is_general else ""

    @property
    def angpix(self) -> float | None:
        """Pixel size in angstrom to which the training data were Fourier-cropped; None if they were not cropped."""
        return self.details.get("angpix")

    @property
    def angpix_range(self) -> tuple[float, float] | None:
        """Smallest and largest pixel size of the training data in angstrom; None if `angpix` is the only one.

        A micrograph in this range is not resampled for the network; see `cryoplug.inference.regrid`.
        """
        found = self.details.get("angpix_range")
        return None if found is None else (float(found[0]), float(found[1]))

    @property
    def spec(self) -> ModelSpec:
        """Entry of the network in the registry, completed by the config."""
        return model_spec(self.model_id).configured(self.config)


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint; pickles are never opened.

    Parameters
    ----------
    path
        An ``epoch_NNNN`` folder, a run folder (its epoch with the lowest loss), the folder above a single run, or a founding
        folder, which holds only ``.bin`` files (3 layers: cryo_cnn, 12: residual_cnn; percentile). ``general`` is the model
        that comes with the package.

    Raises
    ------
    UsageError
        This build comes without the general model.
    MissingInputError
        There is no such folder, or no checkpoint in it.
    FormatError
        Something is wrong; every problem is listed.
    """
    folder = find_epoch_folder(shipped.path_of(path))
    checkpoint, findings = _examine(folder)
    problems = [f"{item.field}: {item.message}" for item in findings if item.severity == "error"]
    if problems or checkpoint is None:
        raise FormatError(f"{folder}: not a usable checkpoint: " + "; ".join(problems))
    return checkpoint


def validate_checkpoint(path: Path | str) -> list[Finding]:
    """List everything that is wrong or unusual about a checkpoint; empty if it is sound."""
    try:
        folder = find_epoch_folder(shipped.path_of(path))
    except (InputError, UsageError) as error:
        return [Finding("error", str(path), str(error))]
    return _examine(folder)[1]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, loss: float, *, dtype: str = "float32") -> None:
    """Write a checkpoint folder, read it back, compare bit for bit, and only then give it its name.

    Parameters
    ----------
    folder
        Final path, usually ``.../epoch_NNNN``; must not exist.
    checkpoint
        The checkpoint to write.
    loss
        Validation loss, for ``loss.txt`` as F12.8.
    dtype
        ``float32``; or ``float16`` for half the bytes, only for weights that float16 holds exactly (see `rounded`).

    Raises
    ------
    StorageError
        The system refused, or the file reads back differently.
    """
    from safetensors.numpy import save

    weights = {name: np.ascontiguousarray(array, "<f4") for name, array in checkpoint.weights.items()}
    stored = {name: array.astype(dtype) for name, array in weights.items()}
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
        (partial / SAFETENSORS_NAME).write_bytes(save(stored))
        (partial / JSON_NAME).write_text(json.dumps(json.loads(to_json(record)), indent=1) + "\n")
        (partial / LOSS_NAME).write_text(f"{loss:12.8f}\n")
        written, findings = _examine(partial)
        errors = [item for item in findings if item.severity == "error"]
        if written is None or written.sha256 != checkpoint.sha256 or errors:
            found = "; ".join(f"{item.field}: {item.message}" for item in findings) or "other weights"
            raise StorageError(f"{folder}: what was written reads back differently ({found}); check the disk")


def rounded(checkpoint: Checkpoint) -> Checkpoint:
    """Round all weights to float16, so that `save_checkpoint` can store them in half the bytes.

    Raises
    ------
    UsageError
        A weight is larger than 65504, the largest float16.
    """
    weights = {name: np.asarray(array, np.float32) for name, array in checkpoint.weights.items()}
    largest = max((float(np.abs(array).max(initial=0)) for array in weights.values()), default=0.0)
    if largest > MOST_FLOAT16:
        raise UsageError(f"a weight is {largest:g} (allowed in float16: up to {MOST_FLOAT16:g}); keep them in float32")
    return replace(
        checkpoint, weights={name: array.astype(np.float16).astype(np.float32) for name, array in weights.items()}
    )


def add_details(folder: Path, **details: Any) -> None:
    """Add fields to the ``checkpoint.json`` of a sound checkpoint; weights and losses stay unchanged.

    Raises
    ------
    FormatError
        The folder holds no usable checkpoint.
    UsageError
        A field is reserved.
    """
    reserved = sorted(_OWN_FIELDS & details.keys())
    if reserved:
        raise UsageError(f"{', '.join(reserved)}: fields of every {JSON_NAME} (allowed: other names)")
    load_checkpoint(folder)
    path = folder / JSON_NAME
    record = parse_json(read_limited(path, MAX_JSON_BYTES))
    record.update(json.loads(to_json(details)))
    write_text(path, json.dumps(record, indent=1) + "\n")


def _examine(folder: Path) -> tuple[Checkpoint | None, list[Finding]]:
    findings: list[Finding] = []
    record = _read_record(folder, findings)
    spec = _spec_of(folder, record, findings)
    if spec is None:
        return None, findings
    from_bins = read_bins(folder, spec, findings)
    from_tensors = read_safetensors(folder, spec, findings)
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
    # What comes with the package has no epochs to be ranked among.
    if read_loss(folder) is None and folder not in (shipped.FOLDER, shipped.start_folder()):
        findings.append(Finding("warning", LOSS_NAME, "missing or no number; the epoch cannot be ranked"))
    checkpoint = Checkpoint(
        spec.id,
        weights,
        config=dict(record.get("config") or {}),
        normalize=record.get("normalize", "percentile"),
        pixel_size_angstrom=record.get("pixel_size_angstrom"),
        details={key: value for key, value in record.items() if key not in _OWN_FIELDS},
        path=folder,
        founding=not record,
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
            bad(f"missing beside {SAFETENSORS_NAME}, so the normalization is unknown; copy the whole folder again")
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
    if not isinstance(record.get("normalize"), str) or record["normalize"] not in KINDS:
        bad(f"normalize {shown(record.get('normalize'))} (allowed: {', '.join(KINDS)}); restore the folder")
    for name in ("pixel_size_angstrom", "angpix"):
        size = record.get(name)
        number = isinstance(size, (int, float)) and not isinstance(size, bool)
        if size is not None and not (number and 0 < size < MAX_ANGSTROM):
            bad(f"{name} {shown(size)} (allowed: a positive number or null); restore the folder")
            record[name] = None
    _check_range(record, bad)
    return record


def _check_range(record: dict[str, Any], bad: Callable[[str], None]) -> None:
    sizes = record.get("angpix_range")
    if sizes is None:
        return
    numbers = isinstance(sizes, list) and all(type(size) in (int, float) for size in sizes) and len(sizes) == 2
    angpix = record.get("angpix")
    if not (numbers and angpix is not None and 0 < sizes[0] <= angpix <= sizes[1] < MAX_ANGSTROM):
        bad(
            f"angpix_range {shown(sizes)} with angpix {shown(angpix)} (allowed: two pixel sizes, the smaller one first, with "
            "angpix between them); restore the folder"
        )
        record["angpix_range"] = None


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
    found = {match.group(1) for item in folder.iterdir() if (match := BIN_NAME.fullmatch(item.name))}
    for spec in FOUNDING_MODELS:
        if found and found <= {name for name, _, _ in spec.layers}:
            return spec
    message = (
        f"layers {', '.join(sorted(found)) or 'none'} and no {JSON_NAME} "
        "(allowed: conv1..conv3 for cryo_cnn, conv01..conv12 for residual_cnn); copy the missing files here"
    )
    findings.append(Finding("error", "layers", message))
    return None
