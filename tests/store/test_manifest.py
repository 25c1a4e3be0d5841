from __future__ import annotations

import dataclasses
import json

import pytest

from cryoplug.errors import FormatError
from cryoplug.store.manifest import FailedInput, Manifest, MicrographEntry
from cryoplug.store.manifest_reader import manifest_from_json, read_manifest


def manifest(**changes) -> Manifest:
    entries = (
        MicrographEntry("a.mrc", "train", (64, 96), 1.25, {"kind": "percentile"}, index=0, crc32=7),
        MicrographEntry("b\udcff.mrc", "test", (64, 96), None, {"kind": "percentile"}, index=2),
    )
    fields = {
        "patch_shape": (32, 32),
        "dtype": "float32",
        "pairs": "noise",
        "normalize": "percentile",
        "seed": 3,
        "stride": 16,
        "counts": {"train": 2, "test": 1},
        "micrographs": entries,
        "windows": {"train": ((0, 0, 0), (0, 0, 16)), "test": ((1, 16, 0),)},
        "request": {"stride": 16},
        "failures": (FailedInput(1, "bad.mrc", "cut off", 4),),
    }
    return Manifest(**{**fields, **changes})


def test_json_round_trip_keeps_every_field():
    assert manifest_from_json(manifest().to_json()) == manifest()


def test_fingerprint_depends_on_the_pixels_and_not_on_software_or_failures():
    first = manifest()
    assert dataclasses.replace(first, software="x", failures=(), request={}).fingerprint() == first.fingerprint()
    changed = dataclasses.replace(first.micrographs[0], crc32=8)
    other = dataclasses.replace(first, micrographs=(changed, first.micrographs[1]))
    assert other.fingerprint() != first.fingerprint()
    assert len(first.fingerprint()) == 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 3}, "version 3; allowed: 1, 2"),
        ({"version": 2}, "whole is False in version 2; allowed: true in 2 alone"),
        ({"whole": True}, "whole is True in version 1"),
        ({"dtype": "float64"}, "dtype is 'float64'; allowed: float32, float16"),
        ({"patch_shape": [32]}, "patch_shape is"),
        ({"patch_shape": [32, -1]}, "patch_shape is"),
        ({"seed": True}, "seed is True"),
        ({"counts": {"train": 5, "test": 1}}, "counts.train is 5 but there are 2 windows"),
        ({"windows": {"train": [[0, 0, 0], [1, 0, 16]], "test": [[1, 16, 0]]}}, "names micrograph 1"),
        ({"windows": {"train": [[0, 0, 0], [9, 0, 16]], "test": [[1, 16, 0]]}}, "names micrograph 9"),
        ({"windows": {"train": [[0, 0, 0], "x"], "test": [[1, 16, 0]]}}, "three whole numbers"),
        ({"micrographs": {}}, "micrographs is"),
        ({"request": []}, "request is"),
    ],
)
def test_a_wrong_field_is_named(change, message, tmp_path):
    record = {**json.loads(manifest().to_json()), **change}
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(record))
    with pytest.raises(FormatError, match=r"dataset\.json") as caught:
        read_manifest(path)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1]", "null", "{", '{"version": NaN}', "[" * 100_000])
def test_what_is_no_manifest_is_a_format_error(text):
    with pytest.raises(FormatError):
        manifest_from_json(text)


def test_one_pixel_size_is_reported_only_when_all_agree():
    assert manifest().pixel_size_angstrom is None
    entries = [dataclasses.replace(entry, pixel_size_angstrom=1.25) for entry in manifest().micrographs]
    assert manifest(micrographs=entries).pixel_size_angstrom == 1.25
    entries[1] = dataclasses.replace(entries[1], pixel_size_angstrom=2.0)
    assert manifest(micrographs=entries).pixel_size_angstrom is None
