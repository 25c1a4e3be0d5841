"""The manifest of a store of bins, beside bins that suit the undamaged one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from cryoplug.store.manifest import FailedInput, Manifest, MicrographEntry
from cryoplug.store.pairs import open_store
from fuzz.targets import Target

_WORDS = (
    b"NaN", b"1e999", b"-1", b"9" * 400, b"9223372036854775808", b"null", b"true", b"{}", b"[]", b'"../../etc/passwd"',
    b'"/etc/passwd"', b'"train"', b'"float16"', b"[[", b'{"a":', b'"\\u0000"', b'"patch_shape"', b"0.5", b"1000000000",
)  # fmt: skip
PATCH_PX = 8


def record(*, request: dict[str, object] | None = None) -> Manifest:
    """Give a manifest of two micrographs and three pairs of 8 x 8 pixels."""
    entries = (
        MicrographEntry("a.mrc", "train", (24, 24), 1.25, {"kind": "none"}, index=0, crc32=7),
        MicrographEntry("sub/b.mrc", "test", (24, 24), None, {"kind": "none"}, clean_name="c/b.mrc", index=2),
    )
    return Manifest(
        patch_shape=(PATCH_PX, PATCH_PX),
        dtype="float32",
        pairs="noise",
        normalize="none",
        seed=3,
        stride=8,
        counts={"train": 2, "test": 1},
        micrographs=entries,
        windows={"train": ((0, 0, 0), (0, 0, 8)), "test": ((1, 16, 0),)},
        request=request or {"stride": 8},
        failures=(FailedInput(1, "bad.mrc", "cut off", 4),),
    )


def whole_record() -> Manifest:
    """Give a manifest of the same micrographs kept whole."""
    head = dataclasses.replace(record(), whole=True, counts={"train": 1, "test": 1})
    return dataclasses.replace(head, windows={"train": ((0, 0, 0),), "test": ((1, 0, 0),)})


def _run(folder: Path, payload: bytes) -> None:
    whole = b'"version": 2' in payload
    for split, count in (("train", 2), ("test", 1)):
        for side in ("noisy", "clean"):
            size = 24 * 24 if whole else PATCH_PX**2 * count
            (folder / f"{side}_{split}.bin").write_bytes(bytes(4 * size))
    (folder / "dataset.json").write_bytes(payload)
    with open_store(folder) as store:
        store.describe(0)
        store.crop_of(store.count() - 1)
        if store.manifest is not None:
            store.manifest.fingerprint()
            store.manifest.to_json()
            store.verify()


TARGET = Target(seeds=lambda: (record().to_json().encode(), whole_record().to_json().encode()), run=_run, words=_WORDS)
