"""What inspect says of movies whose damage lies behind their first image, and of folders of many files."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import time
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile
import zstandard

from cryoplug.cli.main import run
from cryoplug.formats.mrc import write_mrc
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec
from cryoplug.testing.movie_files import eer_file
from cryoplug.workflows.inspect import InspectRequest, inspect, inspect_path

PACK = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def frames(count: int = 6, side: int = 96) -> np.ndarray:
    return np.random.default_rng(3).poisson(3, (count, side, side)).astype(np.float32)


def stack(path: Path, pixels: np.ndarray) -> Path:
    with mrcfile.new(path, overwrite=True) as file:
        file.header.map = mrcfile.constants.MAP_ID
        file.set_data(np.zeros_like(pixels))
        file.set_image_stack()
        file.data[...] = pixels
    return path


def with_nan(path: Path) -> Path:
    pixels = frames()
    pixels[3, 5, 7] = np.nan
    return stack(path.with_suffix(".mrcs"), pixels)


def with_a_broken_strip(path: Path) -> Path:
    path = path.with_suffix(".tif")
    with tifffile.TiffWriter(path) as stream:
        for page in frames().astype(np.uint8):
            stream.write(page, compression="lzw", contiguous=False, rowsperstrip=32)
    with tifffile.TiffFile(path) as file:
        start, size = file.pages[3].dataoffsets[1], file.pages[3].databytecounts[1]
    whole = bytearray(path.read_bytes())
    whole[start + size // 2 : start + size // 2 + 150] = b"\xff" * 150
    path.write_bytes(whole)
    return path


def packed(kind: str, harm: Callable[[bytearray], bytes]) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        plain = stack(path.with_suffix(".mrc"), frames())
        target = path.with_name(f"packed.mrc.{kind}")
        target.write_bytes(harm(bytearray(PACK[kind](plain.read_bytes()))))
        plain.unlink()
        return target

    return write


def cut(data: bytearray) -> bytes:
    return bytes(data[: len(data) * 2 // 3])


def cut_by_one(data: bytearray) -> bytes:
    return bytes(data[:-1])


def flipped(data: bytearray) -> bytes:
    data[-6] ^= 0xFF  # in the checksum, or what stands for it
    return bytes(data)


HARM = {
    "NaN in a section": with_nan,
    "a strip of a TIFF": with_a_broken_strip,
    **{f"{kind} {harm.__name__}": packed(kind, harm) for kind in PACK for harm in (cut, cut_by_one, flipped)},
}


@pytest.mark.parametrize("write", HARM.values(), ids=HARM)
def test_damage_behind_the_first_image_is_found_and_quick_looks_at_the_header_alone(
    tmp_path: Path, write: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "m.mrc")
    assert run(["inspect", str(path)]) == 1
    text = capsys.readouterr().out
    assert "1 error" in text
    if path.suffix in (".tif", ".mrcs"):
        assert "image 4 of 6" in text
    if path.suffix == ".bz2":
        return  # nothing comes out of bzip2, not even a header, before a whole block of 900 kB went in
    assert run(["inspect", "--quick", str(path)]) == 0
    assert "not read" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["mrcs", "tif", "eer", *(f"mrc.{kind}" for kind in PACK)])
def test_a_sound_movie_has_nothing_wrong(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"m.{kind}"
    if kind == "tif":
        tifffile.imwrite(path, frames().astype(np.uint8), photometric="minisblack", compression="lzw")
    elif kind == "eer":
        eer_file(path, [[(1, 2), (40, 3)], [(5, 6)]])
    else:
        plain = stack(tmp_path / "plain.mrcs", frames())
        path.write_bytes(PACK.get(kind[4:], bytes)(plain.read_bytes()))
    for quick in (False, True):
        found = inspect_path(path, quick=quick)
        assert [item for item in found.findings if item.severity != "note"] == []
        assert found.summary["images"] == (2 if kind == "eer" else 6)
        assert found.kind == "stack or movie"


def test_images_without_contrast_and_several_damaged_ones_are_counted(tmp_path: Path) -> None:
    pixels = frames(9)
    pixels[4] = pixels[6] = 7
    pixels[7, 1, 1] = np.inf
    pixels[8, 2, 2] = np.nan
    found = inspect_path(stack(tmp_path / "m.mrcs", pixels)).findings
    assert [item.severity for item in found if item.severity != "note"] == ["error", "warning"]
    texts = " ".join(item.message for item in found)
    assert "NaN or infinite in images 8, 9 of 9 (1 of 9216 pixels of image 8, the first at (y, x) = (1, 1))" in texts
    assert "images 5, 7 of 9 without contrast, all pixels 7" in texts


def test_bytes_behind_the_image_in_a_stream_are_told(tmp_path: Path) -> None:
    plain = stack(tmp_path / "plain.mrcs", frames())
    path = tmp_path / "m.mrc.gz"
    path.write_bytes(gzip.compress(plain.read_bytes() + bytes(100)))
    found = inspect_path(path)
    assert [item.message for item in found.findings if item.severity == "warning"] == [
        "100 bytes follow the last pixel inside; they are ignored"
    ]


def test_packed_counts_are_noted(tmp_path: Path) -> None:
    packed_counts = np.full((3838, 7420), 0x21, np.uint8)
    packed_counts[::2] = 0x43
    tifffile.imwrite(tmp_path / "m.tif", packed_counts, rowsperstrip=64)
    for quick in (True, False):
        found = inspect_path(tmp_path / "m.tif", quick=quick)
        assert found.summary["shape"] == [3838, 14840]
        assert any("two 4-bit counts in each byte" in item.message for item in found.findings)
        assert not found.wrong


# Folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder of twelve micrographs, of which three are bad, and other things."""
    place = tmp_path / "mics"
    place.mkdir()
    for number in range(12):
        pixels = np.random.default_rng(number).normal(100, 5, (32, 48)).astype(np.float32)
        write_mrc(place / f"m{number:02d}.mrc", pixels, pixel_size_angstrom=1.06)
    for number in (3, 7):
        whole = (place / f"m{number:02d}.mrc").read_bytes()
        (place / f"m{number:02d}.mrc").write_bytes(whole[: 2000 + number])
    (place / "m99.mrc").symlink_to(place / "gone.mrc")
    (place / "log.txt").write_text("x")
    (place / "more.txt").write_text("x")
    (place / "noending").write_text("x")
    (place / ".hidden.mrc").write_text("x")
    (place / "below").mkdir()
    return place


def test_a_folder_gives_a_line_a_file_and_a_table_of_its_problems(folder: Path, capsys) -> None:
    assert run(["inspect", str(folder)]) == 1
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert len(lines) == 13 + 4
    assert lines[0] == f"{folder}/m00.mrc: 32 x 48 float32, 1.06 A: nothing wrong"
    assert lines[3].startswith(f"{folder}/m03.mrc: micrograph: ERROR nx, ny, nz: header says 48 x 32")
    assert (
        f"{folder}: 13 files looked at, 3 wrong; passed over, of other kinds: 2 .txt, 1 hidden, 1 without ending"
        in shown.err
    )
    table = lines[14:]
    assert table[0] == "problems, with the number of files:"
    assert table[1].startswith("  2  such as ERROR nx, ny, nz:") and table[1].endswith("[m03.mrc, m07.mrc]")
    assert table[2].startswith("  1  ERROR path: a symbolic link to") and table[2].endswith("[m99.mrc]")
    assert shown.err.splitlines()[-1].endswith(" 13 inspected, 3 with errors or warnings")


def test_a_folder_is_looked_into_in_all_depths_and_nothing_is_passed_over_in_silence(folder: Path, capsys) -> None:
    deep = folder / "below" / "job003" / "Movies"
    deep.mkdir(parents=True)
    write_mrc(deep / "a.mrc", np.eye(32, 48, dtype=np.float32), pixel_size_angstrom=1.06)
    (deep / "b.mrc").write_bytes(b"nothing")
    (deep / "itself.mrc").symlink_to("itself.mrc")
    (deep / "up").symlink_to(folder)
    (deep / ".hidden").mkdir()
    (folder / "below" / "read.me").write_text("x")
    assert run(["inspect", str(folder)]) == 1
    shown = capsys.readouterr()
    assert f"{deep}/a.mrc: 32 x 48 float32, 1.06 A: nothing wrong" in shown.out
    assert f"{deep}/b.mrc: unusable: ERROR" in shown.out
    assert f"{folder}/below: 0 files looked at, 0 wrong; passed over, of other kinds: 1 .me\n" in shown.err
    assert (
        f"{deep}: 3 files looked at, 2 wrong; 2 folders not looked into, hidden or a link to one above (.hidden, up)\n"
        in shown.err
    )
    assert shown.err.splitlines()[-1].endswith(" 16 inspected, 5 with errors or warnings")


def test_stores_below_a_folder_stay_whole_and_micrographs_beside_runs_are_seen(folder: Path, capsys) -> None:
    write_mrc(folder / "x.mrc", np.random.default_rng(0).normal(9, 1, (64, 64)).astype(np.float32))
    assert run(["convert", str(folder / "x.mrc"), "-o", str(folder / "below" / "store"), "--patch-size", "32"]) == 0
    capsys.readouterr()
    run(["inspect", str(folder)])
    assert f"{folder}/below/store: store" in capsys.readouterr().out
    weights = {n: t.numpy() for n, t in model_spec("cryo_cnn").build(seed=0).state_dict().items()}
    save_checkpoint(folder / "run" / "epoch_0001", Checkpoint("cryo_cnn", weights), 0.5)
    run(["inspect", str(folder)])
    out = capsys.readouterr().out
    assert f"{folder}/x.mrc: 64 x 64" in out and f"{folder}/run: run" in out


def test_an_empty_tree_says_what_is_wanted(tmp_path: Path, capsys) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert run(["inspect", str(tmp_path)]) == 1
    assert "holds no micrograph" in capsys.readouterr().out


def test_problems_alone(folder: Path, capsys) -> None:
    assert run(["inspect", str(folder), "--problems", "--quick"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].rsplit("/")[-1] for line in lines] == ["m03.mrc", "m07.mrc", "m99.mrc"]
    assert run(["inspect", str(folder), "--problems", "--json"]) == 1
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(record["path"]).name for record in records] == ["m03.mrc", "m07.mrc", "m99.mrc"]


def test_records_of_thousands_are_not_kept(folder: Path) -> None:
    seen, folders = [], []
    result = inspect(InspectRequest((folder,), quick=True, keep=False), seen.append, folders.append)
    assert (result.inspections, result.inspected, result.wrong, result.exit_code) == ((), 13, 3, 1)
    assert len(seen) == 13
    assert (folders[0].files, folders[0].wrong, folders[0].not_entered) == (13, 3, ())


def test_ten_thousand_headers_take_less_than_ten_seconds(tmp_path: Path) -> None:
    """Counted as the processor's time for a fifth of them, so that a busy machine cannot fail it."""
    write_mrc(
        tmp_path / "m.mrc", np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32), pixel_size_angstrom=1.5
    )
    whole = (tmp_path / "m.mrc").read_bytes()
    for number in range(2000):
        (tmp_path / f"m{number:04d}.mrc").write_bytes(whole)
    inspect(InspectRequest((tmp_path / "m.mrc",), quick=True))
    began = time.process_time()
    result = inspect(InspectRequest((tmp_path,), quick=True, keep=False))
    assert result.inspected == 2001
    assert time.process_time() - began < 2
