"""The record that a shard of a denoise run leaves for `merge`: its request, whether it finished, and its failures."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryoplug.core.results import BatchResult, FileResult
from cryoplug.core.shard import Shard
from cryoplug.disk.atomic import storage_errors, write_bytes, write_text
from cryoplug.errors import FormatError, InputError, UsageError
from cryoplug.outputs.journal import JOURNAL_NAME
from cryoplug.outputs.planning import RECORD_FOLDER
from cryoplug.workflows.denoise.request import DenoiseRequest

FOLDER = f"{RECORD_FOLDER}/shards"
"""Folder of the records, relative to the output folder."""
_VERSION = 1


def journal_name(shard: Shard | None) -> str:
    """Return the name of the journal of a process. Each shard has its own: network disks lose lines of a shared file."""
    return JOURNAL_NAME if shard is None else f"denoise.shard-{shard.index}-of-{shard.count}.jsonl"


@dataclass(frozen=True)
class ShardResult(BatchResult):
    """The result of a shard; a shard without micrographs is no failure."""

    @property
    def exit_code(self) -> int:
        """The exit code of its micrographs; 0 when it has none."""
        return super().exit_code if self.files else 0


@dataclass(frozen=True)
class ShardRecord:
    """The record of one shard."""

    shard: Shard
    """The shard: its number, and how many there are."""
    request: DenoiseRequest
    """The request of the shard, without its `shard` field."""
    folder: str
    """The working folder of the run; names of micrographs may be relative to it."""
    checkpoint_sha256: str
    """SHA-256 of the weights."""
    finished: bool
    """Whether the shard finished."""
    failed: tuple[FileResult, ...] = ()
    """Results of the micrographs that failed."""

    def write(self) -> None:
        """Write the record into the output folder.

        Raises
        ------
        StorageError
            The file cannot be written.
        """
        path = _path(self.request.output, self.shard)
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        record = {
            "version": _VERSION,
            "request": _packed(dataclasses.replace(self.request, shard=None)),
            "folder": self.folder,
            "checkpoint_sha256": self.checkpoint_sha256,
            "finished": self.finished,
            "failed": [
                {field.name: _plain(getattr(item, field.name)) for field in dataclasses.fields(FileResult)}
                for item in self.failed
            ],
        }
        write_text(path, json.dumps(record, indent=1) + "\n")


def read_shards(output: Path) -> list[ShardRecord]:
    """Read the records of all shards of the newest run, and check that they are complete.

    Raises
    ------
    InputError
        There are no records, a shard is missing or unfinished, or the requests differ; the message names the shard.
    """
    paths = sorted((output / FOLDER).glob("*-of-*.json"), key=lambda path: path.stat().st_mtime)
    if not paths:
        raise InputError(f"{output}: no shard wrote here; run cryoplug denoise ... -o {output} --shard I/N first")
    count = _shard_of(paths[-1]).count
    shards = [Shard(index, count) for index in range(count)]
    missing = [shard for shard in shards if not _path(output, shard).is_file()]
    if missing:
        raise InputError(
            f"{output}: {_named(missing)} of {count} did not run yet; run the same command with --shard {missing[0]}, then merge"
        )
    records = [_read(output, shard) for shard in shards]
    unfinished = [record.shard for record in records if not record.finished]
    if unfinished:
        raise InputError(
            f"{output}: {_named(unfinished)} of {count} did not come to the end; wait for it, or run the same command with "
            f"--shard {unfinished[0]} again, then merge"
        )
    first = records[0]
    for record in records[1:]:
        differing = _differing(first, record)
        if differing:
            raise InputError(
                f"{output}: shards {first.shard} and {record.shard} had different options ({', '.join(differing)}); "
                "run all shards with the same command"
            )
    return records


def merge_journals(output: Path, shards: Sequence[Shard]) -> Path:
    """Join the journals of the shards into the journal of the folder, oldest line first, and remove them.

    A line that is already there is not added again, so a merge that was killed can be repeated.
    """
    target = output / JOURNAL_NAME
    own = [output / journal_name(shard) for shard in shards]
    with storage_errors(target):
        there = target.read_bytes().splitlines() if target.is_file() else []
        added = [line for path in own if path.is_file() for line in path.read_bytes().splitlines()]
        known = set(there)
        new = sorted({line for line in added if line.strip() and line not in known}, key=_time)
        if new:
            write_bytes(target, b"".join(line + b"\n" for line in [*there, *new]))
        for path in own:
            path.unlink(missing_ok=True)
    return target


def _differing(one: ShardRecord, other: ShardRecord) -> list[str]:
    fields = [field.name for field in dataclasses.fields(DenoiseRequest) if field.name not in _OF_A_MACHINE]
    names = [name for name in fields if getattr(one.request, name) != getattr(other.request, name)]
    names += [name for name in ("folder", "checkpoint_sha256") if getattr(one, name) != getattr(other, name)]
    return names


_OF_A_MACHINE = ("device", "gpu", "processes", "threads", "max_memory_bytes", "tile", "overwrite", "shard")
"""Fields of a request that may differ between shards, because they do not change the pixels."""


def _path(output: Path, shard: Shard) -> Path:
    return output / FOLDER / f"{shard.index}-of-{shard.count}.json"


def _shard_of(path: Path) -> Shard:
    return Shard.parse(path.stem.replace("-of-", "/"))


def _named(shards: Sequence[Shard]) -> str:
    shown = ", ".join(str(shard.index) for shard in shards[:8]) + (", ..." if len(shards) > 8 else "")
    return f"shard {shown}" if len(shards) == 1 else f"shards {shown}"


def _read(output: Path, shard: Shard) -> ShardRecord:
    path = _path(output, shard)
    try:
        with storage_errors(path):
            record = json.loads(path.read_bytes())
        if record["version"] != _VERSION:
            raise ValueError(f"version {record['version']}")
        return ShardRecord(
            shard,
            DenoiseRequest(**_unpacked(record["request"])),
            str(record["folder"]),
            str(record["checkpoint_sha256"]),
            bool(record["finished"]),
            tuple(FileResult(**_unpacked(item)) for item in record["failed"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError, UsageError) as error:
        raise FormatError(f"{path}: damaged ({error}); run the same command with --shard {shard} again") from error


def _packed(record: Any) -> dict[str, Any]:
    return {field.name: _plain(getattr(record, field.name)) for field in dataclasses.fields(record)}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return {"path": str(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _unpacked(record: dict[str, Any]) -> dict[str, Any]:
    return {name: _restored(value) for name, value in record.items()}


def _restored(value: Any) -> Any:
    if isinstance(value, dict):
        return Path(value["path"])
    if isinstance(value, list):
        return tuple(_restored(item) for item in value)
    return value


def _time(line: bytes) -> str:
    try:
        return str(json.loads(line)["time"])
    except (ValueError, KeyError, TypeError):
        return ""
