"""Read the manifest of a store from JSON that somebody else may have written: nothing is believed that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from cryoplug.disk.atomic import storage_errors
from cryoplug.disk.checked_input import allocated_bytes, parse_json, read_limited, shown
from cryoplug.errors import FormatError
from cryoplug.store.manifest import (
    DTYPES,
    MAX_PIXEL_SIZE,
    MAX_SIDE_PX,
    PAIR_REGIMES,
    SPLITS,
    VERSION,
    WHOLE_VERSION,
    FailedInput,
    Manifest,
    MicrographEntry,
)

MAX_BYTES = 256 * 1024 * 1024
"""Longest manifest that is read, in bytes; half a million patches need about 10 MB."""
SMALL_BYTES, SMALL_VALUES = 8 * 1024 * 1024, 500_000
"""Up to this size a manifest is read without comparing it with the pixels: 120,000 patches, up to 100 MB when parsed."""
PIXEL_BYTES_PER_BYTE, PIXEL_BYTES_PER_VALUE = 16, 64
"""Least bytes of pixels for each byte and value of a longer manifest. (A 16 x 16 float16 pair: 1024 for 15 bytes, 4 values.)"""
MAX_INTEGER = (1 << 63) - 1


def read_manifest(path: Path) -> Manifest:
    """Read a `dataset.json`; one that is too long for the bins beside it is refused before it is read."""
    pixel_bytes = 0
    with storage_errors(path):
        if path.stat().st_size > SMALL_BYTES:
            pixel_bytes = sum(allocated_bytes(item) for item in path.parent.glob("*.bin") if item.is_file())
    limit = _limit(SMALL_BYTES, pixel_bytes // PIXEL_BYTES_PER_BYTE)
    return manifest_from_json(read_limited(path, limit), path=path, pixel_bytes=pixel_bytes)


def manifest_from_json(
    text: str | bytes, *, path: Path = Path("dataset.json"), pixel_bytes: int | None = None
) -> Manifest:
    """Read and check what `Manifest.to_json` wrote.

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
