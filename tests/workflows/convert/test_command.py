"""The command ``convert``: what it prints, its exit codes, and its words about wrong options."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cryoplug.cli.convert import convert as command
from cryoplug.errors import UsageError
from cryoplug.workflows.convert import ConvertRequest
from workflows.convert.made_inputs import (
    GRID,
    bad_inputs,
    folder_of,
)


def run(*arguments: object):
    return CliRunner().invoke(command, [str(item) for item in arguments])


def test_the_command_writes_one_json_line_a_file_and_a_summary(tmp_path):
    folder = bad_inputs(tmp_path / "in")
    ended = run(folder, "-o", tmp_path / "s", "--patch_size", 64, "--stride=32", "--json")
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert ended.exit_code == 3
    assert [line["status"] for line in lines[:-1]].count("failed") == 5
    assert lines[-1]["store"] == str(tmp_path / "s")
    assert lines[-1]["train"] + lines[-1]["test"] == 2 * len(GRID)
    assert "mic_nan.mrc: failed" in ended.stderr


def test_the_command_says_where_the_store_is_and_that_it_is_complete(tmp_path):
    folder = folder_of(tmp_path / "in", 2)
    options = (folder, "-o", tmp_path / "s", "--patch-size", 64, "--stride", 32)
    first, second = run(*options), run(*options)
    assert f"{tmp_path}/s: 15 training and 15 test pairs" in first.stdout
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert "already complete" in second.stdout
    refused = run(*options, "--seed", 3)
    assert isinstance(refused.exception, UsageError)


def test_whoever_did_not_choose_the_pairs_is_told_of_better_ones(tmp_path):
    folder = folder_of(tmp_path / "in", 2)
    options = (folder, "-o", tmp_path / "s", "--patch-size", 64, "--dry-run")
    assert "give --pairs halves, or --pairs single if there are no halves" in run(*options).stderr
    assert "--pairs single" not in run(*options, "--pairs", "noise").stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": ()}, "--pairs noise needs INPUT"),
        ({"clean": ("x",)}, "--clean goes with --pairs clean, not with --pairs noise"),
        (
            {"inputs": (), "even": ("x",), "odd": ("y",)},
            "--even and --odd go with --pairs halves, not with --pairs noise",
        ),
        ({"pairs": "clean"}, "--pairs clean needs --clean"),
        ({"pairs": "halves", "inputs": (), "even": ("x",)}, "--pairs halves needs --odd"),
        ({"pairs": "halves", "even": ("x",), "odd": ("y",)}, "--pairs halves takes INPUT (movies, or"),
        ({"pairs": "halves", "inputs": ()}, "--pairs halves needs INPUT"),
        ({"pairs": "noise", "gain": Path("g.mrc")}, "--pairs noise does not use --gain"),
        (
            {"pairs": "halves", "inputs": (), "even": ("x",), "odd": ("y",), "defects": Path("d.txt")},
            "--pairs halves with --even and --odd does not use --defects",
        ),
        ({"pairs": "magic"}, "--pairs 'magic' (allowed: noise, clean, halves"),
        ({"dtype": "float64"}, "--dtype 'float64' (allowed: float32, float16)"),
        ({"patch_size": 0, "stride": 0}, "--patch-size 0 (allowed: 1 or more); --stride 0"),
        ({"test_split": float("nan")}, "--test-split nan (allowed: 0 to 1)"),
        ({"seed": -1}, "--seed -1 (allowed: 0 or more)"),
        ({"output": Path("x.h5")}, "give a folder, or --format hdf5"),
    ],
)
def test_a_wrong_request_says_everything_at_once(tmp_path, changes, message):
    with pytest.raises(UsageError) as caught:
        ConvertRequest(**{"inputs": ("a.mrc",), "output": tmp_path, **changes})
    assert message in str(caught.value)
