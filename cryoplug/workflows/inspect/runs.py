"""Inspect checkpoints, run folders and the ``saved_models`` folder above them, without torch."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cryoplug.core.grey_scale import percentile_remark
from cryoplug.core.results import Finding
from cryoplug.disk.atomic import PARTIAL_SUFFIX
from cryoplug.errors import InputError
from cryoplug.metrics.appearance import Seen
from cryoplug.metrics.verdict import WORSE
from cryoplug.models.checkpoint import load_checkpoint, validate_checkpoint
from cryoplug.models.epoch_folders import best_epoch, epoch_number, read_loss
from cryoplug.reports.evaluation_record import recorded_pairs, recorded_verdict
from cryoplug.reports.words import verdict_words
from cryoplug.workflows.inspect.inspection import Inspection

_CHECKPOINT_FILE = re.compile(r"conv\d+_(weights|bias)\.bin|model\.safetensors|checkpoint\.json")
_EPOCH_FOLDER = re.compile(r"epoch_\d{4,}")
_RUN_FILES = ("run.json", "metrics.jsonl", "resume")
_MAX_METRICS_BYTES = 4 << 20
_MAX_RUN_JSON_BYTES = 1 << 20


def is_checkpoint(path: Path) -> bool:
    """Tell whether a folder holds weights, or a file belongs to a checkpoint."""
    items = path.iterdir() if path.is_dir() else [path]
    return any(_CHECKPOINT_FILE.fullmatch(item.name) for item in items)


def is_run(folder: Path) -> bool:
    """Tell whether a folder is the run folder of a training: ``epoch_NNNN`` folders, metrics, resume state."""
    return folder.is_dir() and (bool(_epochs(folder)) or any((folder / name).exists() for name in _RUN_FILES))


def inspect_checkpoint(path: Path) -> Inspection:
    """Inspect one checkpoint: its folder, or a file in it."""
    folder = path if path.is_dir() else path.parent
    findings = validate_checkpoint(folder)
    names = {item.name for item in folder.iterdir() if not item.name.startswith(".")}
    summary: dict[str, Any] = {"files": len(names)}
    try:
        checkpoint = load_checkpoint(folder)
    except InputError as error:
        if not any(item.severity == "error" for item in findings):
            findings.append(Finding("error", "checkpoint", str(error).removeprefix(f"{folder}: ")))
        return Inspection(path, "checkpoint", summary, tuple(findings))
    for name, array in checkpoint.weights.items():
        if array.size > 1 and np.ptp(array) == 0:
            message = f"all {array.size} values are {array.flat[0]:g}; the layer has not learnt anything"
            findings.append(Finding("warning", name, message))
    seen = Seen.from_record(checkpoint.details.get("seen"))
    if checkpoint.normalize == "percentile" and seen is not None and (remark := percentile_remark(0.0, seen.sigma[1])):
        findings.append(Finding("warning", "seen", remark))
    bins = any(name.endswith(".bin") for name in names)
    tensors = "model.safetensors" in names
    stored = " and ".join(name for name, there in (("model.safetensors", tensors), (".bin files", bins)) if there)
    words = _verdict(checkpoint.details, findings)
    summary |= {
        **({"verdict": words} if words else {}),
        "model": checkpoint.model_id,
        "config": checkpoint.config,
        "outputs": list(checkpoint.spec.outputs),
        "stored_in": f"{stored}, equal bit for bit" if bins and tensors else stored,
        "parameters": checkpoint.parameters,
        "layers": {
            name: list(array.shape) for name, array in sorted(checkpoint.weights.items()) if not name.endswith(".bias")
        },
        "loss": read_loss(folder),
        "largest_weight": max(float(np.abs(array).max()) for array in checkpoint.weights.values() if array.size),
        "normalize": checkpoint.normalize,
        "pixel_size_angstrom": checkpoint.pixel_size_angstrom,
        "sha256": checkpoint.sha256,
        **{key: value for key, value in checkpoint.details.items() if value is not None},
    }
    return Inspection(path, "checkpoint", summary, tuple(findings))


def _verdict(details: dict[str, Any], findings: list[Finding]) -> list[str]:
    """Give the verdict of the evaluation after training; a result worse than doing nothing is a warning."""
    verdict = recorded_verdict(details)
    if verdict is None:
        return []
    words = verdict_words(verdict, pairs=recorded_pairs(details))
    if verdict.worst == WORSE:
        below_raw = verdict.comparisons["identity"].answer == WORSE
        severity: Literal["warning", "note"] = "warning" if below_raw else "note"
        findings.append(Finding(severity, "evaluation", f"{words[0]} {words[-1]}"))
    return words


def inspect_run(folder: Path) -> Inspection:
    """Inspect a run folder: its epochs, its metrics, and the checkpoint that `denoise` would use."""
    findings: list[Finding] = []
    epochs = _epochs(folder)
    best = best_epoch(folder)
    resume = folder / "resume"
    metrics = _metrics(folder, findings)
    status, wanted = _status(folder, findings)
    unfinished = status not in (None, "finished")
    summary: dict[str, Any] = {
        "status": "interrupted or still running" if unfinished else status,
        "epochs_kept": [item.name for item in epochs],
        "best": best.name if best else None,
        "best_loss": read_loss(best) if best else None,
        "epochs_done": len(metrics) or None,
        "epochs_wanted": wanted,
        "can_be_resumed": status != "finished" and resume.is_dir() and any(resume.iterdir()),
    }
    if metrics:
        summary["first"], summary["last"] = _brief(metrics[0]), _brief(metrics[-1])
    _check_metrics(metrics, best, findings)
    if unfinished:
        message = f"{len(metrics)} of {wanted or '?'} epochs are done; the same train command goes on"
        findings.append(Finding("note", "resume", message))
    if len(epochs) > 1:
        names = ", ".join(item.name for item in epochs)
        message = f"{len(epochs)} epoch folders ({names}) where one is kept; {best.name if best else 'none'} is used"
        advice = "training tidies up when it goes on" if unfinished else "delete the others"
        findings.append(Finding("note" if unfinished else "warning", "epochs", f"{message}; {advice}"))
    for item in sorted(folder.glob(f".*{PARTIAL_SUFFIX}")):
        findings.append(Finding("note", item.name, "half-written, from a killed run; delete it when no cryoplug runs"))
    if best is None:
        message = "no epoch with weights yet; train with --save until the first epoch ends"
        findings.append(Finding("note" if unfinished else "warning", "epochs", message))
    else:
        checkpoint = inspect_checkpoint(best)
        words = checkpoint.summary.pop("verdict", None)
        summary = {**({"verdict": words} if words else {}), **summary, "checkpoint": checkpoint.summary}
        findings += [Finding(item.severity, f"{best.name}/{item.field}", item.message) for item in checkpoint.findings]
    return Inspection(folder, "run", summary, tuple(findings))


def inspect_runs(folder: Path, runs: list[Path]) -> Inspection:
    """Inspect several runs below one folder, such as ``saved_models``.

    Parameters
    ----------
    folder
        The folder above them.
    runs
        The run folders.
    """
    summary: dict[str, Any] = {"runs": {}}
    findings: list[Finding] = []
    for run in runs:
        inspected = inspect_run(run) if is_run(run) else inspect_checkpoint(run)
        name = str(run.relative_to(folder))
        summary["runs"][name] = inspected.summary
        findings += [Finding(item.severity, f"{name}/{item.field}", item.message) for item in inspected.findings]
    return Inspection(folder, "runs", summary, tuple(findings))


def _epochs(folder: Path) -> list[Path]:
    found = [item for item in folder.iterdir() if item.is_dir() and _EPOCH_FOLDER.fullmatch(item.name)]
    return sorted(found, key=epoch_number)


def run_metrics(folder: Path) -> list[dict[str, Any]]:
    """Give the records of a run's epochs that can be read."""
    return _metrics(folder, [])


def _metrics(folder: Path, findings: list[Finding]) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    if path.stat().st_size > _MAX_METRICS_BYTES:
        findings.append(Finding("warning", path.name, f"larger than {_MAX_METRICS_BYTES} bytes; it is not read"))
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    records: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            findings.append(Finding("warning", path.name, f"line {number} is not a JSON object; the others are read"))
        elif isinstance(record.get("epoch"), int) and {"train_loss", "val_loss"} & record.keys():
            records[record["epoch"]] = record  # a resumed run may write an epoch again: the last one holds
    return [records[epoch] for epoch in sorted(records)]


def _check_metrics(metrics: list[dict[str, Any]], best: Path | None, findings: list[Finding]) -> None:
    losses: dict[int, float] = {}
    for record in metrics:
        # Without validation patches there is no val_loss, and the training loss decides which epoch is best.
        judged = record.get("train_loss") if record.get("val_loss") is None else record["val_loss"]
        values = {name: record[name] for name in ("train_loss", "val_loss") if record.get(name) is not None}
        bad = [name for name, value in values.items() if not _is_finite(value)]
        if bad or judged is None:
            where = f"metrics.jsonl {', '.join(bad) or 'train_loss'}"
            findings.append(Finding("error", where, f"not finite in epoch {record['epoch']}; lower --lr, train again"))
        else:
            losses[record["epoch"]] = float(judged)
    number = epoch_number(best) if best else 0
    if best is None or number not in losses:
        return
    kept, lowest = losses[number], min(losses, key=lambda epoch: losses[epoch])
    written = read_loss(best)
    of_kept = next(record for record in metrics if record["epoch"] == number)
    # Of halves the latest epoch is kept that its held-out micrographs cannot tell from the lowest.
    chosen = of_kept.get("best") is True and isinstance(of_kept.get("compared"), dict)
    if losses[lowest] < kept and not chosen:
        message = f"loss {kept:.8f}, but epoch {lowest} had {losses[lowest]:.8f}; the best one is lost, train again"
        findings.append(Finding("warning", best.name, message))
    # loss.txt has eight decimals.
    if written is not None and abs(written - kept) > 5e-9 + 1e-9 * abs(kept):
        message = f"{written:.8f}, but metrics.jsonl says {kept:.8f}; they are of different runs"
        findings.append(Finding("warning", f"{best.name}/loss.txt", message))


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _status(folder: Path, findings: list[Finding]) -> tuple[str | None, int | None]:
    path = folder / "run.json"
    if not path.is_file():
        return None, None
    try:
        record = json.loads(path.read_bytes()[:_MAX_RUN_JSON_BYTES])
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
        message = "not JSON with a config; what the run was asked for is not known, and it cannot be resumed"
        findings.append(Finding("warning", path.name, message))
        return None, None
    # With --minutes, the number of epochs is not known before the end.
    epochs = None if record["config"].get("minutes") else record["config"].get("epochs")
    status = record.get("status")
    return (status if isinstance(status, str) else None), (epochs if isinstance(epochs, int) else None)


def _brief(record: dict[str, Any]) -> dict[str, Any]:
    return {key: record[key] for key in ("epoch", "train_loss", "val_loss") if key in record}
