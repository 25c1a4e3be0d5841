"""Inspect says what a path is and lists everything that is wrong with it; one bad path stops no other."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from cryoplug.cli.main import run
from cryoplug.formats.mrc import read_header, write_mrc
from cryoplug.formats.mrc_header import examine
from cryoplug.workflows.inspect import Inspection, InspectRequest, inspect, inspect_path


def image(*, seed: int = 1, shape: tuple[int, int] = (64, 48)) -> np.ndarray:
    return np.random.default_rng(seed).normal(10.0, 2.0, shape).astype(np.float32)


def micrograph(path: Path, pixels: np.ndarray | None = None, *, pixel_size: float | None = 1.5) -> Path:
    write_mrc(path, image() if pixels is None else pixels, pixel_size_angstrom=pixel_size)
    return path


def messages(inspection: Inspection, *severities: str) -> str:
    wanted = severities or ("error", "warning")
    return "\n".join(f"{item.field}: {item.message}" for item in inspection.findings if item.severity in wanted)


# Micrographs


def test_sound_micrograph_has_its_numbers_and_nothing_wrong(tmp_path: Path) -> None:
    pixels = image()
    found = inspect_path(micrograph(tmp_path / "a.mrc", pixels))
    assert (found.kind, found.wrong) == ("micrograph", False), messages(found)
    summary = found.summary
    assert summary["shape"] == [64, 48]
    assert (summary["mode"], summary["byte_order"], summary["dtype"]) == (2, "little-endian", "float32")
    assert summary["pixel_size_angstrom"] == pytest.approx(1.5)
    assert summary["minimum"] == pytest.approx(float(pixels.min()))
    assert summary["mean"] == pytest.approx(float(pixels.mean(dtype=np.float64)))
    assert summary["std"] == pytest.approx(float(pixels.std(dtype=np.float64)))
    assert summary["nonfinite_pixels"] == 0
    assert any("cryoplug" in label for label in summary["labels"])


def test_a_micrograph_is_read_once_and_its_header_examined_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = image(shape=(1500, 1000))
    path = micrograph(tmp_path / "a.mrc", pixels)
    read = []

    def counted(descriptor: int, places: list[memoryview], offset: int) -> int:
        read.append(sum(place.nbytes for place in places))
        return preadv(descriptor, places, offset)

    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", counted)
    examine.cache_clear()
    assert not inspect_path(path).wrong
    # Sampled rows and those at the top and at the bottom are read first.
    assert pixels.nbytes <= sum(read) < 1.2 * pixels.nbytes
    assert examine.cache_info().misses == 1


def test_what_a_header_says_cannot_be_changed(tmp_path: Path) -> None:
    record = read_header(micrograph(tmp_path / "a.mrc")).record
    with pytest.raises(ValueError, match="read-only"):
        record["nx"] = 1


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize(("pixel_size", "unknown"), [(None, True), (1.0, True), (1.5, False)])
def test_a_pixel_size_that_denoise_will_ask_for_is_told(
    tmp_path: Path, pixel_size: float | None, unknown: bool, quick: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    path = micrograph(tmp_path / "in" / "a.mrc", pixel_size=pixel_size)
    found = inspect_path(path, quick=quick)
    assert ("--pixel-size A" in messages(found, "note")) is unknown and not found.wrong
    assert run(["inspect", str(path.parent), *["--quick"][:quick]]) == 0
    shown = capsys.readouterr()
    assert ("1 does not state its pixel size: the general model" in shown.err) is unknown
    assert ("1 A (unknown)" in shown.out) is (pixel_size == 1.0)


def test_a_tiff_without_pixel_size_is_told_of(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", image())
    for quick in (False, True):
        assert "--pixel-size A" in messages(inspect_path(tmp_path / "a.tif", quick=quick), "note")


def damage_nan(path: Path) -> None:
    pixels = image()
    pixels[3, 5] = np.nan
    pixels[9, 1] = np.inf
    micrograph(path, pixels)


def damage_constant(path: Path) -> None:
    micrograph(path, np.full((64, 48), 7.0, np.float32))


def damage_truncated(path: Path) -> None:
    micrograph(path)
    os.truncate(path, path.stat().st_size - 1000)


def damage_mode(path: Path) -> None:
    micrograph(path)
    with open(path, "r+b") as stream:
        stream.seek(12)
        stream.write(struct.pack("<i", 3))


def damage_text(path: Path) -> None:
    path.write_text("this is a note, not a micrograph\n" * 100)


def damage_empty(path: Path) -> None:
    path.touch()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_nan, ["2", "(3, 5)"]),
        (damage_constant, ["7"]),
        (damage_truncated, ["bytes"]),
        (damage_mode, ["mode 3"]),
        (damage_text, []),
        (damage_empty, []),
    ],
)
def test_damaged_micrograph_is_an_error_that_says_what_is_wrong(tmp_path: Path, damage, words: list[str]) -> None:
    path = tmp_path / "bad.mrc"
    damage(path)
    found = inspect_path(path)
    text = messages(found, "error")
    assert found.wrong
    assert text
    assert all(word in text for word in words), text


def test_not_finite_pixels_are_counted(tmp_path: Path) -> None:
    damage_nan(tmp_path / "bad.mrc")
    assert inspect_path(tmp_path / "bad.mrc").summary["nonfinite_pixels"] == 2


# STAR files


def write_star(path: Path, rows: list[tuple[str, int]], *, optics: str = "1 one 1.5\n") -> Path:
    body = "".join(f"{name} {group}\n" for name, group in rows)
    path.write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnOpticsGroupName #2\n_rlnMicrographPixelSize #3\n"
        f"{optics}\ndata_micrographs\n\nloop_\n_rlnMicrographName #1\n_rlnOpticsGroup #2\n{body}\n"
    )
    return path


def test_sound_star_has_tables_columns_and_optics(tmp_path: Path) -> None:
    micrograph(tmp_path / "a.mrc")
    found = inspect_path(write_star(tmp_path / "m.star", [("a.mrc", 1)]))
    assert (found.kind, found.wrong) == ("star", False), messages(found)
    assert found.summary["tables"]["micrographs"] == {
        "rows": 1,
        "columns": 2,
        "names": ["rlnMicrographName", "rlnOpticsGroup"],
    }
    assert found.summary["optics_groups"] == ["one"]
    assert found.summary["pixel_size_angstrom"] == [1.5]
    assert (found.summary["micrographs"], found.summary["micrographs_missing"]) == (1, 0)


def test_missing_micrographs_of_a_star_are_counted_and_five_are_named(tmp_path: Path) -> None:
    micrograph(tmp_path / "a.mrc")
    rows = [("a.mrc", 1), *((f"gone{number}.mrc", 1) for number in range(8))]
    found = inspect_path(write_star(tmp_path / "m.star", rows))
    text = messages(found, "warning")
    assert "8 of 9" in text
    assert "gone4.mrc and 3 more" in text
    assert "gone5.mrc" not in text
    assert found.wrong


def test_mixed_pixel_sizes_of_a_star_are_wrong(tmp_path: Path) -> None:
    micrograph(tmp_path / "a.mrc")
    micrograph(tmp_path / "b.mrc")
    star = write_star(tmp_path / "m.star", [("a.mrc", 1), ("b.mrc", 2)], optics="1 one 1.5\n2 two 0.8\n")
    found = inspect_path(star)
    assert "1.5 (1 rows)" in messages(found)
    assert "0.8 (1 rows)" in messages(found)


def test_ragged_row_of_a_star_is_an_error_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "m.star"
    path.write_text("data_\nloop_\n_rlnMicrographName #1\n_rlnDefocusU #2\na.mrc 1\nb.mrc\n")
    found = inspect_path(path)
    assert found.kind == "star"
    assert "6" in messages(found, "error")


def test_star_without_micrographs_is_only_noted(tmp_path: Path) -> None:
    path = tmp_path / "job.star"
    path.write_text("data_job\n\n_rlnJobTypeLabel  relion.external\n")
    found = inspect_path(path)
    assert not found.wrong
    assert "rlnMicrographName" in messages(found, "note")


# Many paths, and the command line


def test_missing_path_is_an_error_and_the_others_go_on(tmp_path: Path) -> None:
    good = micrograph(tmp_path / "a.mrc")
    seen: list[Inspection] = []
    result = inspect(InspectRequest((tmp_path / "gone.mrc", good)), seen.append)
    assert [item.kind for item in result.inspections] == ["missing", "micrograph"]
    assert "no such file" in messages(result.inspections[0], "error")
    assert seen == list(result.inspections)
    assert result.exit_code == 1


def test_dangling_link_names_its_target(tmp_path: Path) -> None:
    (tmp_path / "a.mrc").symlink_to("elsewhere.mrc")
    assert "elsewhere.mrc" in messages(inspect_path(tmp_path / "a.mrc"), "error")


@pytest.mark.parametrize("name", ["other.bin", "pipe.mrc", "empty"])
def test_paths_that_are_nothing_known_are_errors(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "pipe.mrc":
        os.mkfifo(path)
    elif name == "empty":
        path.mkdir()
    else:
        path.write_bytes(b"1234")
    found = inspect_path(path)
    assert (found.kind, found.wrong) == ("unusable", True)


def test_folder_of_micrographs_gives_one_record_each(tmp_path: Path) -> None:
    for name in ("b.mrc", "a.mrc", ".hidden.mrc"):
        micrograph(tmp_path / name)
    result = inspect(InspectRequest((tmp_path,)))
    assert [item.path.name for item in result.inspections] == ["a.mrc", "b.mrc"]


def test_command_exits_0_when_sound_and_1_when_anything_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = str(micrograph(tmp_path / "a.mrc"))
    assert run(["inspect", good]) == 0
    assert "a.mrc: micrograph" in capsys.readouterr().out
    assert run(["inspect", good, str(tmp_path / "gone.mrc")]) == 1
    assert "ERROR path: no such file" in capsys.readouterr().out
    assert run(["inspect", "--patch_size", "16", good]) == 0
    assert run(["inspect"]) == 2


def test_what_this_machine_offers_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", "--system"]) == 0
    said = capsys.readouterr().out
    assert "kernels" in said and "cpu  plain" in said and f"torch   {torch.__version__}" in said


def test_json_is_one_strict_record_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage_nan(tmp_path / "bad.mrc")
    good = micrograph(tmp_path / "a.mrc")
    assert run(["inspect", "--json", str(good), str(tmp_path / "bad.mrc"), str(tmp_path / "gone")]) == 1

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    records = [json.loads(line, parse_constant=refuse) for line in capsys.readouterr().out.splitlines()]
    assert [record["kind"] for record in records] == ["micrograph", "micrograph", "missing"]
    assert all(set(record) == {"type", "time", "path", "kind", "summary", "findings"} for record in records)


def test_file_name_cannot_forge_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = micrograph(tmp_path / "a\nERROR forged.mrc")
    assert run(["inspect", str(path)]) == 0
    assert not any(line.startswith("ERROR") for line in capsys.readouterr().out.splitlines())
