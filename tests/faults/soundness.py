"""Is everything complete that stands under a final name? Looked at without `cryoplug` where that is possible."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np

PARTIAL = ".cryoplug-partial"
_HEADER_BYTES = 1024
_PIXEL_BYTES = {0: 1, 1: 2, 2: 4, 6: 2, 12: 2}


def unsound(folder: Path) -> list[str]:
    """Name every visible file below `folder` that is not complete: micrographs, stores, checkpoints, tables."""
    problems: list[str] = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in sorted(names):
            path = Path(root, name)
            if not name.startswith(".") and path.is_file():
                try:
                    found = _problem(path)
                except (OSError, ValueError, KeyError) as error:
                    found = str(error)
                if found:
                    problems.append(f"{path.relative_to(folder)}: {found}")
    return problems


def leftovers(folder: Path) -> list[str]:
    """Name what unfinished work left below `folder`."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if PARTIAL in path.name)


def digests(folder: Path, pattern: str = "*") -> dict[str, str]:
    """Give the SHA-256 of every file below `folder`; of a link that leads nowhere, what it says."""
    found = {}
    for path in sorted(folder.rglob(pattern)):
        if path.is_file():
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.is_symlink():
            found[str(path.relative_to(folder))] = f"link to {path.readlink()}"
    return found


def _problem(path: Path) -> str:
    if path.suffix == ".mrc":
        return _mrc_problem(path)
    if path.name == "dataset.json":
        return _store_problem(path)
    if path.name == "model.safetensors":
        return _safetensors_problem(path)
    if path.suffix == ".json":
        json.loads(path.read_bytes())
    if path.suffix in (".jsonl", ".star"):
        payload = path.read_bytes()
        # A journal without a line is whole: its first line is written after it was made.
        whole = payload.endswith(b"\n") or (path.suffix == ".jsonl" and not payload)
        return "" if whole else "its last line is cut"
    return ""


def _mrc_problem(path: Path) -> str:
    payload = path.read_bytes()
    if len(payload) < _HEADER_BYTES:
        return f"{len(payload)} bytes"
    words = np.frombuffer(payload, "<i4", 24)
    nx, ny, nz, mode, extended = (int(words[index]) for index in (0, 1, 2, 3, 23))
    expected = _HEADER_BYTES + extended + nx * ny * nz * _PIXEL_BYTES[mode]
    return "" if len(payload) == expected else f"{len(payload)} bytes, its header says {expected}"


def _store_problem(path: Path) -> str:
    manifest = json.loads(path.read_bytes())
    y, x = manifest["patch_shape"]
    for split, count in manifest["counts"].items():
        for side in ("noisy", "clean"):
            payload = path.with_name(f"{side}_{split}.bin")
            expected = count * y * x * np.dtype(manifest["dtype"]).itemsize
            found = payload.stat().st_size if payload.exists() else 0
            if found != expected:
                return f"{payload.name} has {found} bytes, not {expected}"
    return ""


def _safetensors_problem(path: Path) -> str:
    payload = path.read_bytes()
    length = int.from_bytes(payload[:8], "little")
    header = json.loads(payload[8 : 8 + length])
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    if len(payload) != 8 + length + max(ends):
        return f"{len(payload)} bytes, its header says {8 + length + max(ends)}"
    layers = sorted(file for file in path.parent.glob("conv*.bin") if file.stat().st_size)
    return "" if len(layers) == len(ends) else f"{len(layers)} layers in bins, {len(ends)} here"
