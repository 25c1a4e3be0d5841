"""A second run: what is finished is skipped, what changed is redone, what is foreign stays; the journal."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from pathlib import Path

import mrcfile
import pytest

from cryoplug.cli.main import run as command_line
from cryoplug.disk.atomic import partial_path_of
from cryoplug.errors import UsageError
from cryoplug.formats.mrc import write_mrc
from cryoplug.formats.mrc_claims import DENOISED_ALREADY
from cryoplug.outputs import planning
from workflows.denoise.denoising import go, micrographs, partials, pixels, statuses


def test_finished_files_are_skipped_and_overwrite_redoes_them(here, checkpoints):
    paths = micrographs(here)
    go(checkpoints[0], *paths)
    before = {path.name: path.stat().st_mtime_ns for path in Path("out").glob("*.mrc")}
    assert statuses(go(checkpoints[0], *paths)) == ["skipped"] * 3
    assert {path.name: path.stat().st_mtime_ns for path in Path("out").glob("*.mrc")} == before
    assert statuses(go(checkpoints[0], *paths, overwrite=True)) == ["done"] * 3


def test_a_second_run_with_nothing_to_do_does_not_touch_the_device(here, checkpoints):
    paths = micrographs(here)
    go(checkpoints[0], *paths)
    assert statuses(go(checkpoints[0], *paths, device="cuda:99")) == ["skipped"] * 3


def test_an_input_that_changed_is_redone(here, checkpoints):
    paths = micrographs(here)
    go(checkpoints[0], *paths)
    write_mrc(paths[1], pixels(9))
    assert statuses(go(checkpoints[0], *paths)) == ["skipped", "done", "skipped"]


@pytest.mark.parametrize("change", [{"checkpoint": 1}, {"normalize": "percentile"}])
def test_results_of_another_checkpoint_or_setting_are_not_replaced_unasked(here, checkpoints, change):
    paths = micrographs(here, "a")
    go(checkpoints[0], *paths)
    kept = [Path("out/a.mrc"), Path("out/report.html")]
    before = [path.read_bytes() for path in kept]
    named = {key: value for key, value in change.items() if key != "checkpoint"}
    batch = go(checkpoints[change.get("checkpoint", 0)], *paths, **named)
    assert statuses(batch) == ["failed"] and batch.exit_code == 2
    assert "--overwrite" in batch.files[0].message
    assert [path.read_bytes() for path in kept] == before, "the page, too, shows the results that are there"


def test_a_foreign_file_is_not_replaced_unasked_and_the_others_are_done(here, checkpoints):
    paths = micrographs(here)
    Path("out").mkdir()
    Path("out/b.mrc").write_bytes(b"precious")
    batch = go(checkpoints[0], *paths)
    assert statuses(batch) == ["done", "failed", "done"] and batch.exit_code == 3
    assert Path("out/b.mrc").read_bytes() == b"precious"


def test_an_output_that_was_changed_afterwards_is_not_replaced_unasked(here, checkpoints):
    micrographs(here, "a")
    go(checkpoints[0], "a.mrc")
    Path("out/a.mrc").write_bytes(b"edited")
    assert "was changed" in go(checkpoints[0], "a.mrc").files[0].message


def test_stating_the_pixel_size_that_was_used_redoes_nothing_and_helps_those_that_had_none(here, checkpoints):
    """Some headers have no pixel size: the advice is --pixel-size, and the whole command is given once more with it."""
    paths = [*micrographs(here, "a"), *micrographs(here, "b", pixel_size_angstrom=None)]
    options = {"angpix": 2.5, "highpass": 100.0}
    assert statuses(go(checkpoints[0], *paths, **options)) == ["done", "failed"]
    assert statuses(go(checkpoints[0], *paths, **options, pixel_size=1.25)) == ["skipped", "done"]
    assert statuses(go(checkpoints[0], *paths, **options, pixel_size=1.3)) == ["failed", "failed"]


def test_a_list_that_states_what_the_user_stated_before_redoes_nothing(here, checkpoints):
    micrographs(here, "a", pixel_size_angstrom=None)
    star = "data_\n\nloop_\n_rlnMicrographName\n_rlnMicrographPixelSize\na.mrc {}\n"
    Path("bare.star").write_text("data_\n\nloop_\n_rlnMicrographName\na.mrc\n")
    assert statuses(go(checkpoints[0], "bare.star", pixel_size=1.25)) == ["done"]
    Path("right.star").write_text(star.format("1.250000"))
    assert statuses(go(checkpoints[0], "right.star")) == ["skipped"]
    Path("other.star").write_text(star.format("1.2"))
    assert "was made with pixel_size 1.25" in go(checkpoints[0], "other.star").files[0].message


def test_a_denoised_micrograph_as_input_is_told_on_every_road(here, checkpoints):
    paths = micrographs(here, "a", pixel_size_angstrom=1.25)
    assert "already" not in go(checkpoints[0], *paths).files[0].message
    assert DENOISED_ALREADY in go(checkpoints[0], "out/a.mrc", output="twice").files[0].message
    assert DENOISED_ALREADY in go(checkpoints[0], "out/a.mrc", output="tiles", tile=32).files[0].message
    packed = Path("a.mrc.gz")
    packed.write_bytes(gzip.compress(Path("out/a.mrc").read_bytes()))
    assert DENOISED_ALREADY in go(checkpoints[0], packed, output="packed").files[0].message
    assert command_line(["inspect", "out/a.mrc", "a.mrc.gz"]) == 0, "nothing is wrong with it"


def test_an_output_that_was_deleted_is_made_again(here, checkpoints):
    micrographs(here, "a")
    go(checkpoints[0], "a.mrc")
    Path("out/a.mrc").unlink()
    assert statuses(go(checkpoints[0], "a.mrc")) == ["done"]


def test_a_file_whose_run_was_killed_before_it_was_acknowledged_is_redone(here, checkpoints):
    micrographs(here, "a")
    go(checkpoints[0], "a.mrc")
    record = next(Path("out", planning.RECORD_FOLDER).glob("*.json"))
    values = json.loads(record.read_text())
    record.write_text(json.dumps({**values, "finished": False, "output_size_bytes": 0}))
    assert statuses(go(checkpoints[0], "a.mrc")) == ["done"]


def test_what_a_killed_run_left_of_a_file_goes_when_the_file_is_done_again(here, checkpoints):
    micrographs(here, "a")
    go(checkpoints[0], "a.mrc")
    record = next(Path("out", planning.RECORD_FOLDER).glob("*.json"))
    dead = subprocess.Popen(["true"])
    dead.wait()
    values = {**json.loads(record.read_text()), "finished": False, "pid": dead.pid}
    record.write_text(json.dumps(values))
    target = Path("out/a.mrc")
    target.rename(partial_path_of(target, values["host"], dead.pid))
    partial_path_of(Path("out/previews/a.jpg"), values["host"], dead.pid).write_bytes(b"half a picture")
    living = here / partial_path_of(target, values["host"], os.getppid())
    living.write_bytes(b"another run")
    assert statuses(go(checkpoints[0], "a.mrc")) == ["done"]
    assert partials(here) == [living]


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"finished": true}', "\x00", "[" * 5000])
def test_a_damaged_record_counts_as_none(here, checkpoints, text):
    micrographs(here, "a")
    go(checkpoints[0], "a.mrc")
    next(Path("out", planning.RECORD_FOLDER).glob("*.json")).write_text(text)
    assert "no record" in go(checkpoints[0], "a.mrc").files[0].message


def test_the_journal_has_a_line_for_every_micrograph_that_was_worked_on(here, checkpoints):
    micrographs(here, "ab")
    (here / "c.mrc").write_text("no micrograph")
    batch = go(checkpoints[0], "a.mrc", "b.mrc", "c.mrc")
    go(checkpoints[0], "a.mrc", "b.mrc")
    lines = [json.loads(line) for line in Path("out/denoise.jsonl").read_text().splitlines()]
    assert [(line["input"], line["status"], line["exit_code"]) for line in lines] == [
        ("a.mrc", "done", 0),
        ("b.mrc", "done", 0),
        ("c.mrc", "failed", 4),
    ]
    first = lines[0]
    assert (first["output"], first["shape"], first["pixel_size_angstrom"]) == ("out/a.mrc", [70, 90], 1.25)
    assert first["sigma_in"] == pytest.approx(pixels(0).std(), rel=1e-4)
    assert first["sigma_out"] == pytest.approx(mrcfile.read("out/a.mrc").std(), rel=1e-4)
    assert first["checkpoint_sha256"] == batch.details["checkpoint_sha256"] and first["pid"] == os.getpid()
    assert first["seconds"] > 0 and "no micrograph" not in lines[2]["message"] and "c.mrc" in lines[2]["message"]


def test_a_journal_line_that_a_full_disk_cut_does_not_spoil_the_next(here, checkpoints):
    micrographs(here, "a")
    Path("out").mkdir()
    Path("out/denoise.jsonl").write_text('{"input": "cut')
    go(checkpoints[0], "a.mrc")
    cut, whole = Path("out/denoise.jsonl").read_text().splitlines()
    assert cut == '{"input": "cut' and json.loads(whole)["input"] == "a.mrc"


def test_the_journal_cannot_be_the_star_file(here, checkpoints):
    micrographs(here, "a")
    with pytest.raises(UsageError, match="name of the journal"):
        go(checkpoints[0], "a.mrc", star=Path("out/denoise.jsonl"))
