"""The record of a store: what its patches are, where each came from, and how it was normalised.

It is written last, as `dataset.json` beside the bins or as the attribute `manifest` of an HDF5 file. So a store that has
its manifest is complete.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from cryoplug.disk.atomic import storage_errors
from cryoplug.disk.checked_input import allocated_bytes, parse_json, read_limited, shown
from cryoplug.errors import FormatError

VERSION, WHOLE_VERSION = 1, 2
"""Version of a manifest of patches, and of whole micrographs; older programs must not take the second for patches."""
SPLITS = ("train", "test")
DTYPES = ("float32", "float16")
PAIR_REGIMES = ("noise", "clean", "halves", "single")
MAX_BYTES = 256 * 1024 * 1024
"""Longest manifest that is read, in bytes; half a million patches need about 10 MB."""
SMALL_BYTES, SMALL_VALUES = 8 * 1024 * 1024, 500_000
"""Up to this size a manifest is read without comparing it with the pixels: 120,000 patches, up to 100 MB when parsed."""
PIXEL_BYTES_PER_BYTE, PIXEL_BYTES_PER_VALUE = 16, 64
"""Least bytes of pixels for each byte and value of a longer manifest. (A 16 x 16 float16 pair: 1024 for 15 bytes, 4 values.)"""
MAX_SIDE_PX = 1 << 17
"""Longest side of a micrograph or patch, as in `cryoplug.formats.mrc_header`."""
MAX_PIXEL_SIZE = 1e7
"""Largest pixel size: a millimetre, in angstrom."""
MAX_INTEGER = (1 << 63) - 1

Window = tuple[int, int, int]
"""(index into `Manifest.micrographs`, y, x) of the patch's first pixel."""


@dataclass(frozen=True)
class MicrographEntry:
    """One micrograph whose patches are in the store."""

    name: str
    """Path as the convert listed it, below its input folder."""
    split: str
    """``train`` or ``test``: all patches of a micrograph are on one side, because neighbours overlap."""
    shape: tuple[int, int]
    """(y, x) in pixels."""
    pixel_size_angstrom: float | None
    """Pixel size; None if neither the header nor the STAR file states it."""
    normalization: dict[str, Any]
    """Normalization of the noisy pixels, as `Normalization.to_dict` writes it."""
    clean_name: str | None = None
    """The file of the clean side; None if it is the same file."""
    clean_normalization: dict[str, Any] | None = None
    """Normalization of the clean pixels; None if it is the same."""
    index: int = 0
    """Position in the input list of the convert; it seeds the noise."""
    crc32: int | None = None
    """CRC-32 of all its stored patches in order (noisy, clean, noisy, ...); for a whole micrograph, of its rows in that order."""
    noise: dict[str, Any] | None = None
    """Noise of a single exposure, as `cryoplug.metrics.micrograph_noise.MicrographNoise` writes it; None for others."""

    def __post_init__(self) -> None:
        """Turn lists from JSON into tuples."""
        object.__setattr__(self, "shape", tuple(self.shape))


@dataclass(frozen=True)
class FailedInput:
    """One input that the convert could not use."""

    index: int
    """Position in the input list of the convert."""
    name: str
    """Path as the convert listed it."""
    message: str
    """Why it could not be used."""
    exit_code: int
    """Exit code of the error class."""


@dataclass(frozen=True)
class Manifest:
    """Everything about a store except its pixels. Built without micrographs it is the head of a new store."""

    patch_shape: tuple[int, int]
    """(y, x) of a patch in pixels; for whole micrographs, of the crops for training."""
    dtype: str
    """``float32`` or ``float16``, little-endian."""
    pairs: str
    """Where the two sides come from: ``noise``, ``clean`` or ``halves``. ``single``: one side, which is given as both."""
    normalize: str
    """Kind of normalization; each micrograph has its own numbers."""
    seed: int
    """Seed of the split and of the noise."""
    stride: int
    """Pixels between neighbouring patches, in y and in x."""
    counts: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    """Number of stored pairs in each split: pairs of patches, or of whole micrographs."""
    micrographs: tuple[MicrographEntry, ...] = ()
    """The micrographs, in the order in which they were written."""
    windows: Mapping[str, tuple[Window, ...]] = field(default_factory=lambda: dict.fromkeys(SPLITS, ()))
    """For each stored pair of each split: (micrograph index, y, x); y and x are 0 for whole micrographs."""
    software: str = ""
    """Versions of the software that wrote the store."""
    request: Mapping[str, Any] = field(default_factory=dict)
    """Options and a digest of the inputs; they show whether a second convert asks for the same store."""
    failures: tuple[FailedInput, ...] = ()
    """Inputs that are missing from the store, and why."""
    version: int = VERSION
    """Version of this record."""
    whole: bool = False
    """Whether the stored images are whole micrographs instead of patches."""
    inputs: tuple[str, ...] = ()
    """Names with which `denoise` finds these micrographs: files, folders, patterns and lists as the user gave them, relative
    to the working folder. Empty if halves, movies or too many files were named."""

    def __post_init__(self) -> None:
        """Turn lists into tuples."""
        object.__setattr__(self, "patch_shape", tuple(self.patch_shape))
        object.__setattr__(self, "micrographs", tuple(self.micrographs))
        object.__setattr__(self, "failures", tuple(self.failures))
        object.__setattr__(self, "inputs", tuple(self.inputs))
        windows = {split: tuple(map(tuple, self.windows.get(split, ()))) for split in SPLITS}
        object.__setattr__(self, "windows", windows)
        object.__setattr__(self, "version", WHOLE_VERSION if self.whole else VERSION)

    @property
    def pixel_size_angstrom(self) -> float | None:
        """The pixel size of all micrographs, equal to 1 %; None if unknown or mixed."""
        sizes = [entry.pixel_size_angstrom for entry in self.micrographs]
        known = [size for size in sizes if size is not None]
        if not known or len(known) < len(sizes) or max(known) > 1.01 * min(known):
            return None
        return known[0]

    @property
    def angpix(self) -> float | None:
        """The pixel size to which convert cropped; None if it did not crop."""
        found = self.request.get("angpix")
        if isinstance(found, (int, float)) and not isinstance(found, bool) and 0 < found < MAX_PIXEL_SIZE:
            return float(found)
        return None

    @property
    def exposures(self) -> np.ndarray:
        """For each micrograph, the number of its exposure or stack; all differ unless convert noted otherwise."""
        known = self.request.get("exposures")
        count = len(self.micrographs)
        if not isinstance(known, list) or not all(type(number) is int and 0 <= number < len(known) for number in known):
            return np.arange(count)
        if any(entry.index >= len(known) for entry in self.micrographs):
            return np.arange(count)
        return np.array([known[entry.index] for entry in self.micrographs], np.int64)

    @property
    def halves_alike(self) -> bool:
        """Whether the halves are equally noisy: their grey-value deviations agree to 15 % on all micrographs."""
        for entry in self.micrographs:
            even, odd = ((record or {}).get("scale") for record in (entry.normalization, entry.clean_normalization))
            if not (isinstance(even, float) and isinstance(odd, float) and 1 / 1.15 < even / (odd or 1e-30) < 1.15):
                return False
        return True

    @property
    def sides(self) -> int:
        """How many images of each place are stored: 2; for single exposures 1."""
        return 1 if self.pairs == "single" else 2

    def fingerprint(self) -> str:
        """Return the sha256 of everything that defines the training data; pixels count through their CRC-32.

        Software, request, names from the user and failed inputs do not count, so the same pairs have the same fingerprint.
        """
        record = self._record()
        for name in ("software", "request", "failures", "inputs"):
            record.pop(name, None)
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """Write the manifest as JSON: one line for each field and each micrograph, windows packed."""
        lines = []
        for name, value in self._record().items():
            if name in ("micrographs", "failures") and value:
                rows = ",\n  ".join(_dump(item) for item in value)
                lines.append(f'"{name}": [\n  {rows}\n ]')
            else:
                lines.append(f'"{name}": {_dump(value)}')
        return "{\n " + ",\n ".join(lines) + "\n}\n"

    def image_shapes(self, split: str) -> list[tuple[int, int]]:
        """Return (y, x) of each stored micrograph of a split, in order; empty if patches are stored."""
        return [self.micrographs[micrograph].shape for micrograph, _, _ in self.windows[split] if self.whole]

    def _record(self) -> dict[str, Any]:
        record = dataclasses.asdict(self)
        if not self.whole:  # as in the files of the first version
            del record["whole"]
        if not self.inputs:
            del record["inputs"]
        for entry in record["micrographs"]:
            if entry["noise"] is None:
                del entry["noise"]
        return record

    @staticmethod
    def from_json(text: str | bytes, *, path: Path = Path("dataset.json"), pixel_bytes: int | None = None) -> Manifest:
        """Read and check what `to_json` wrote.

        Parameters
        ----------
        text
            The JSON.
        path
            File to name in errors.
        pixel_bytes
            Bytes of pixels on the disk, which limit the length of the manifest; None if this program just wrote it.

        Raises
        ------
        FormatError
            The text is not JSON, a field is missing or of the wrong type, or counts contradict the windows.
        """
        _refuse_bomb(text, pixel_bytes, path)
        try:
            record = parse_json(text)
        except ValueError as error:
            raise FormatError(f"{path}: not valid JSON ({error}); run the convert again") from error
        return _Reader(path).manifest(record)


def read_manifest(path: Path) -> Manifest:
    """Read a `dataset.json`; one that is too long for the bins beside it is refused before it is read."""
    pixel_bytes = 0
    with storage_errors(path):
        if path.stat().st_size > SMALL_BYTES:
            pixel_bytes = sum(allocated_bytes(item) for item in path.parent.glob("*.bin") if item.is_file())
    limit = _limit(SMALL_BYTES, pixel_bytes // PIXEL_BYTES_PER_BYTE)
    return Manifest.from_json(read_limited(path, limit), path=path, pixel_bytes=pixel_bytes)


def _limit(small: int, suited: int) -> int:
    return min(MAX_BYTES, max(small, suited))


def _refuse_bomb(text: str | bytes, pixel_bytes: int | None, path: Path) -> None:
    # Three bytes of JSON may take 72 of memory, so the values are counted before anything is parsed.
    marks = (b"[", b"{", b",") if isinstance(text, bytes) else ("[", "{", ",")
    values = sum(text.count(mark) for mark in marks)  # type: ignore[arg-type, misc]
    pixels = MAX_BYTES * PIXEL_BYTES_PER_BYTE if pixel_bytes is None else pixel_bytes
    checks = (
        (len(text), "bytes", SMALL_BYTES, PIXEL_BYTES_PER_BYTE),
        (values, "values", SMALL_VALUES, PIXEL_BYTES_PER_VALUE),
    )
    for found, unit, small, ratio in checks:
        limit = _limit(small, pixels // ratio)
        if found > limit:
            _refuse(path, f"manifest of {found} {unit}; allowed with {pixels} bytes of pixels: up to {limit}")


def _dump(value: object) -> str:
    # ASCII escapes keep a file name that is not UTF-8 (lone surrogates) readable again.
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _refuse(path: Path, found: str) -> NoReturn:
    raise FormatError(f"{path}: {found}; run the convert again")


class _Reader:
    """Turns untrusted JSON into records, naming the field that is wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def manifest(self, record: object) -> Manifest:
        record = self.mapping(record, "manifest")
        version, whole = record.get("version"), record.get("whole", False)
        if version not in (VERSION, WHOLE_VERSION):
            _refuse(self.path, f"manifest version {shown(version)}; allowed: {VERSION}, {WHOLE_VERSION}")
        if whole is not (version == WHOLE_VERSION):
            _refuse(self.path, f"whole is {shown(whole)} in version {version}; allowed: true in {WHOLE_VERSION} alone")
        items = self.sequence(record.get("micrographs"), "micrographs")
        entries = tuple(self.entry(item, f"micrographs[{i}]") for i, item in enumerate(items))
        counts, windows = self.mapping(record.get("counts"), "counts"), self.mapping(record.get("windows"), "windows")
        patch_shape = self.shape(record.get("patch_shape"), "patch_shape")
        for split in SPLITS:
            count = self.integer(counts.get(split), f"counts.{split}")
            rows = self.sequence(windows.get(split), f"windows.{split}")
            if count != len(rows):
                _refuse(self.path, f"counts.{split} is {count} but there are {len(rows)} windows")
            for i, row in enumerate(rows):
                problem = _window_problem(row, entries, split, patch_shape, whole=whole)
                if problem:
                    _refuse(self.path, f"windows.{split}[{i}] {problem}")
        failures = self.sequence(record.get("failures", []), "failures")
        inputs = self.sequence(record.get("inputs", []), "inputs")
        return Manifest(
            patch_shape=patch_shape,
            dtype=self.choice(record.get("dtype"), "dtype", DTYPES),
            pairs=self.choice(record.get("pairs"), "pairs", PAIR_REGIMES),
            normalize=self.text(record.get("normalize"), "normalize"),
            seed=self.integer(record.get("seed"), "seed"),
            stride=self.integer(record.get("stride"), "stride", minimum=1),
            counts={split: counts[split] for split in SPLITS},
            micrographs=entries,
            windows={split: windows[split] for split in SPLITS},
            software=self.text(record.get("software", ""), "software"),
            request=self.mapping(record.get("request", {}), "request"),
            failures=tuple(self.failure(item, f"failures[{i}]") for i, item in enumerate(failures)),
            whole=whole,
            inputs=tuple(self.text(item, f"inputs[{i}]") for i, item in enumerate(inputs)),
        )

    def entry(self, record: object, where: str) -> MicrographEntry:
        record = self.mapping(record, where)
        clean = record.get("clean_normalization")
        return MicrographEntry(
            name=self.name(record.get("name"), f"{where}.name"),
            split=self.choice(record.get("split"), f"{where}.split", SPLITS),
            shape=self.shape(record.get("shape"), f"{where}.shape"),
            pixel_size_angstrom=self.optional(record.get("pixel_size_angstrom"), f"{where}.pixel_size", self.size),
            normalization=self.mapping(record.get("normalization"), f"{where}.normalization"),
            clean_name=self.optional(record.get("clean_name"), f"{where}.clean_name", self.name),
            clean_normalization=None if clean is None else self.mapping(clean, f"{where}.clean_normalization"),
            index=self.integer(record.get("index", 0), f"{where}.index"),
            crc32=self.optional(record.get("crc32"), f"{where}.crc32", self.integer),
            noise=self.optional(record.get("noise"), f"{where}.noise", self.mapping),
        )

    def failure(self, record: object, where: str) -> FailedInput:
        record = self.mapping(record, where)
        return FailedInput(
            index=self.integer(record.get("index"), f"{where}.index"),
            name=self.text(record.get("name"), f"{where}.name"),
            message=self.text(record.get("message"), f"{where}.message"),
            exit_code=self.integer(record.get("exit_code"), f"{where}.exit_code"),
        )

    def optional(self, value: object, where: str, check: Callable[[object, str], Any]) -> Any:
        return None if value is None else check(value, where)

    def mapping(self, value: object, where: str) -> dict[str, Any]:
        return self.typed(value, where, dict, "an object")

    def sequence(self, value: object, where: str) -> list[Any]:
        return self.typed(value, where, list, "a list")

    def text(self, value: object, where: str) -> str:
        return self.typed(value, where, str, "text")

    def name(self, value: object, where: str) -> str:
        text = self.text(value, where)
        # No reader opens these names; one that does some day must not be led out of its folder.
        if not text or "\0" in text or text.startswith("/") or ".." in text.split("/"):
            _refuse(self.path, f"{where} is {shown(text)}; allowed: a path below the input folder, without '..'")
        return text

    def choice(self, value: object, where: str, allowed: tuple[str, ...]) -> str:
        if not isinstance(value, str) or value not in allowed:
            _refuse(self.path, f"{where} is {shown(value)}; allowed: {', '.join(allowed)}")
        return value

    def integer(self, value: object, where: str, *, minimum: int = 0) -> int:
        if type(value) is not int or not minimum <= value <= MAX_INTEGER:
            _refuse(self.path, f"{where} is {shown(value)}; allowed: a whole number from {minimum} to {MAX_INTEGER}")
        return value

    def size(self, value: object, where: str) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < MAX_PIXEL_SIZE:
            _refuse(self.path, f"{where} is {shown(value)}; allowed: a positive number below {MAX_PIXEL_SIZE:g}")
        return float(value)

    def shape(self, value: object, where: str) -> tuple[int, int]:
        sides = value if isinstance(value, list) else []
        if len(sides) != 2 or not all(type(side) is int and 0 < side <= MAX_SIDE_PX for side in sides):
            _refuse(
                self.path, f"{where} is {shown(value)}; allowed: [y, x], both whole numbers from 1 to {MAX_SIDE_PX}"
            )
        return sides[0], sides[1]

    def typed(self, value: object, where: str, kind: type, words: str) -> Any:
        if not isinstance(value, kind):
            _refuse(self.path, f"{where} is {shown(value)}; allowed: {words}")
        return value


def _window_problem(
    row: object, entries: tuple[MicrographEntry, ...], split: str, patch_shape: tuple[int, int], *, whole: bool
) -> str | None:
    if not (isinstance(row, list) and len(row) == 3 and all(type(value) is int and value >= 0 for value in row)):
        return f"is {shown(row)}; allowed: three whole numbers (micrograph, y, x)"
    if row[0] >= len(entries) or entries[row[0]].split != split:
        return f"names micrograph {shown(row[0])}, which is not in {split}"
    shape = entries[row[0]].shape
    if row[1] + patch_shape[0] > shape[0] or row[2] + patch_shape[1] > shape[1]:
        return f"is {shown(row)}; a patch of {patch_shape} from there leaves its micrograph of {shape}"
    if whole and (row[1] or row[2]):
        return f"is {shown(row)}; a micrograph that is kept whole begins at y 0, x 0"
    return None
