"""STAR: agreement with other programs on real files, in both directions."""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import starfile

from cryoplug.errors import FormatError
from cryoplug.formats.star import (
    MICROGRAPH_COLUMN,
    StarBlock,
    StarFile,
    format_star,
    image_table,
    parse_star,
    read_star,
    write_star,
)
from cryoplug.outputs.star_rows import RAW_COLUMN, DenoisedMicrograph, star_from_files, star_from_star

REFUSED = {"sample.star": r"line 20: 5 values in block data_planetary; allowed: 4"}
"""Real files that are no STAR: starfile reads the ragged one, and moves a comment into a column of numbers."""


def real_files(shared_data: Path) -> list[Path]:
    return sorted((shared_data / "star").rglob("*.star"))


def same(theirs: object, ours: str) -> bool:
    # starfile turns numbers into numbers and an empty text into NaN: that much it may differ.
    if isinstance(theirs, float) and math.isnan(theirs):
        return ours.strip() == ""
    if str(theirs) == ours:
        return True
    try:
        return math.isclose(float(str(theirs)), float(ours), rel_tol=1e-12)
    except ValueError:
        return False


def assert_same_block(block: StarBlock, theirs: Any) -> None:
    if isinstance(theirs, Mapping):
        assert list(theirs) == block.columns
        assert all(same(theirs[name], block.rows[0][i]) for i, name in enumerate(block.columns))
        return
    assert list(theirs.columns) == block.columns
    assert len(theirs) == len(block.rows)
    for name in block.columns:
        wrong = [(a, b) for a, b in zip(theirs[name], block.column(name), strict=True) if not same(a, b)]
        assert not wrong, f"{block.name}.{name}: {wrong[:3]}"


def test_every_real_file_is_read_as_starfile_reads_it_or_refused_by_name(shared_data: Path) -> None:
    paths = real_files(shared_data)
    assert len(paths) >= 12
    for path in paths:
        if path.name in REFUSED:
            with pytest.raises(FormatError, match=REFUSED[path.name]):
                read_star(path)
            continue
        star = read_star(path)
        theirs = starfile.read(path, always_dict=True)
        assert list(theirs) == [block.name for block in star.blocks]
        for block in star.blocks:
            assert_same_block(block, theirs[block.name])


def test_every_real_file_that_was_written_again_is_the_same_to_starfile(shared_data: Path, tmp_path: Path) -> None:
    for path in real_files(shared_data):
        if path.name in REFUSED:
            continue
        star = read_star(path)
        write_star(tmp_path / "again.star", star)
        theirs = starfile.read(tmp_path / "again.star", always_dict=True)
        for block in star.blocks:
            assert_same_block(block, theirs[block.name])


def test_every_real_file_keeps_its_values_and_comments_to_the_letter(shared_data: Path) -> None:
    for path in real_files(shared_data):
        if path.name in REFUSED:
            continue
        star = read_star(path)
        text = format_star(star)
        assert parse_star(text, path) == star
        for line in path.read_text().splitlines():
            if line.startswith("#"):
                assert line.strip() in text
        for block in star.blocks:
            assert all(value in text for row in block.rows for value in row)


def test_the_optics_comment_of_a_real_file_stays_behind_its_column(shared_data: Path) -> None:
    path = shared_data / "star" / "aspire" / "sample_particles_relion31.star"
    assert "_rlnMtfFileName #3 [Modulation Transfer Function] \n" in format_star(read_star(path))


needs_relion = pytest.mark.skipif(
    shutil.which("relion_star_handler") is None, reason="Debian's relion is not installed"
)


def relion_copy(path: Path, folder: Path) -> StarFile:
    """Have RELION read a STAR file and write it again."""
    out = folder / "relion_out.star"
    done = subprocess.run(
        ["relion_star_handler", "--i", str(path), "--o", str(out)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert out.stat().st_size, "RELION read nothing"
    return read_star(out)


@needs_relion
@pytest.mark.parametrize(
    "name",
    [
        "relion5_spa/corrected_micrographs.star",
        "relion31_spa/micrographs_ctf.star",
        "relion31_spa/particles_1k.star",
    ],
)
def test_relion_reads_the_names_of_denoised_micrographs(name: str, shared_data: Path, tmp_path: Path) -> None:
    star = read_star(shared_data / "star" / name)
    table = image_table(star).block
    names = table.column(MICROGRAPH_COLUMN)
    first_rows = {item: index for index, item in reversed(list(enumerate(names)))}
    ours = star_from_star(star, {row: tmp_path / "Denoised" / Path(item).name for item, row in first_rows.items()})
    write_star(tmp_path / "ours.star", ours)

    theirs = relion_copy(tmp_path / "ours.star", tmp_path)

    written = image_table(ours).block
    read = image_table(theirs).block
    assert read.column(MICROGRAPH_COLUMN) == written.column(MICROGRAPH_COLUMN)
    assert read.column(RAW_COLUMN) == names
    assert len(theirs.block("optics").rows) == len(star.block("optics").rows)  # type: ignore[union-attr]


@needs_relion
def test_relion_reads_names_with_spaces_in_a_table_of_our_own(tmp_path: Path) -> None:
    names = ["day 1/mic é.mrc", "it's/b.mrc"]
    denoised = [DenoisedMicrograph(Path("/raw", name), Path("/out", name), 1.25, 300.0, 2.7) for name in names]
    write_star(tmp_path / "ours.star", star_from_files(tmp_path / "ours.star", denoised))
    theirs = relion_copy(tmp_path / "ours.star", tmp_path)
    table = image_table(theirs)
    assert table.names == [f"/out/{name}" for name in names]
    assert table.block.column(RAW_COLUMN) == [f"/raw/{name}" for name in names]
    assert table.pixel_sizes == [1.25, 1.25]


@needs_relion
def test_relion_reads_denoised_particles(shared_data: Path, tmp_path: Path) -> None:
    star = read_star(shared_data / "star" / "aspire" / "rln_proj_64.star")
    ours = star_from_star(star, {row: Path("/out", f"stack_{row + 1:06d}.mrc") for row in range(3)})
    columns = ["rlnOpticsGroup", "rlnImagePixelSize", "rlnVoltage", "rlnSphericalAberration"]
    optics = StarBlock("optics", True, columns, [["1", "1.25", "300", "2.7"]])
    ours = StarFile([optics, *ours.blocks], ours.path)
    write_star(tmp_path / "ours.star", ours)
    table = image_table(relion_copy(tmp_path / "ours.star", tmp_path))
    assert table.names == [f"000001@/out/stack_{row:06d}.mrc" for row in (1, 2, 3)]
    assert table.block.column("cryoplugImageNameRaw") == [f"{row:06d}@rln_proj_64.mrcs" for row in (1, 2, 3)]
