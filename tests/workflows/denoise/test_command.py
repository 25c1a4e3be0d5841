"""The command ``denoise``: what it prints, and its exit codes."""

from __future__ import annotations

import json

from cryoplug.cli.main import run as command_line
from cryoplug.formats.mrc import read_header
from workflows.denoise.denoising import micrographs


def test_the_command_writes_json_lines_and_the_exit_code(here, checkpoints, capsys):
    micrographs(here, "a")
    code = command_line(
        [
            "denoise",
            "a.mrc",
            "missing.mrc",
            "--checkpoint",
            str(checkpoints[0]),
            "-o",
            "out",
            "--json",
            "--device",
            "cpu",
        ]
    )
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == 3
    assert [(line["input"], line["status"]) for line in lines] == [("a.mrc", "done"), ("missing.mrc", "failed")]


def test_the_command_speaks_of_results_on_stdout_and_of_progress_on_stderr(here, checkpoints, capsys):
    micrographs(here, "a")
    arguments = ["denoise", "a.mrc", "--checkpoint", str(checkpoints[0]), "-o", "out", "--star", "out.star"]
    assert command_line(arguments) == 0
    told = capsys.readouterr()
    assert told.out == "1 done -> out\nSTAR -> out.star\n"
    assert "a.mrc: done in" in told.err


def test_the_command_takes_gpu_memory_and_float16(here, checkpoints, capsys):
    micrographs(here, "a")
    arguments = ["denoise", "a.mrc", "--checkpoint", str(checkpoints[0]), "-o", "out", "--device", "cpu"]
    assert command_line([*arguments, "--gpu", "0"]) == 2
    assert "--gpu 0 and --device cpu name two devices" in capsys.readouterr().err
    assert command_line([*arguments, "--max-memory", "much"]) == 2
    assert "as in 2GB" in capsys.readouterr().err
    assert command_line([*arguments, "--max-memory", "10MB"]) == 2
    assert "too little; the least for this network" in capsys.readouterr().err
    assert command_line([*arguments, "--max-memory", "64GB", "--float16"]) == 0
    assert read_header("out/a.mrc").mode == 12
