"""One voice: what two commands or two roads have in common they say in the same words, and decide in one place."""

from __future__ import annotations

import ast
import dataclasses
import functools
import re
from pathlib import Path

import click
import numpy as np
import pytest

import cryoplug
from cryoplug.cli.main import cli, run
from cryoplug.cli.options import apply_options
from cryoplug.cli.progress import describe
from cryoplug.core.remarks import joined, separate
from cryoplug.core.results import FileResult
from cryoplug.formats.mrc import write_mrc
from cryoplug.inference.pipeline import run_pipeline
from cryoplug.inference.settings import ApplySettings
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec
from cryoplug.simulation.settings import SimulationSettings
from cryoplug.training.config import TrainConfig
from cryoplug.workflows.convert import ConvertRequest
from cryoplug.workflows.denoise import DenoiseRequest, denoise
from cryoplug.workflows.denoise import run as denoise_run
from cryoplug.workflows.evaluate import EvaluateRequest
from cryoplug.workflows.inspect import InspectRequest
from cryoplug.workflows.simulate import SimulateRequest
from cryoplug.workflows.train import TrainRequest


def blur_that_moves_the_mean(folder: Path, normalize: str) -> Path:
    """Save a checkpoint whose network is a blur, and adds three standard deviations."""
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    weights = {name: np.zeros(t.shape, np.float32) for name, t in model_spec("cryo_cnn").build().state_dict().items()}
    weights["conv1.weight"][0, 0] = weights["conv2.weight"][0, 0] = weights["conv3.weight"][0, 0] = kernel
    weights["conv1.bias"][0], weights["conv3.bias"][0] = 30, -27
    checkpoint = Checkpoint(
        "cryo_cnn", weights, normalize=normalize, pixel_size_angstrom=2.0, details={"pairs": "halves"}
    )
    save_checkpoint(folder / "epoch_0001", checkpoint, 0.5)
    return folder


def exposure(folder: Path, *, level: float, hot: bool) -> Path:
    """Write an exposure with its halves beside it: one scene, noise of its own in each half."""
    random = np.random.default_rng(3)
    scene = np.kron(random.normal(0, 2, (24, 24)), np.ones((8, 8)))
    even, odd = ((level + scene + random.normal(0, 1, scene.shape)).astype(np.float32) for _ in range(2))
    if hot:
        even[40, 50] += 100
    for ending, pixels in (("", even + odd), ("_EVN", even), ("_ODD", odd)):
        write_mrc(folder / f"mic{ending}.mrc", pixels, pixel_size_angstrom=6)
    return folder / "mic.mrc"


def without_numbers(message: str) -> list[str]:
    return [re.sub(r"\d[\d.e+-]*", "N", remark) for remark in separate(message)]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("hot", [False, True])
@pytest.mark.parametrize(("normalize", "level"), [("zscore", 50.0), ("percentile", 0.0), ("zscore", 5000.0)])
def test_the_three_roads_of_denoise_remark_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, normalize: str, level: float, hot: bool, dtype: str
) -> None:
    checkpoint = blur_that_moves_the_mean(tmp_path / "model", normalize)
    micrograph = exposure(tmp_path, level=level, hot=hot)

    def remarks(output: str, *, halves: bool = False) -> list[str]:
        request = DenoiseRequest(
            inputs=(str(micrograph),),
            checkpoint=checkpoint,
            output=tmp_path / output,
            halves=halves,
            float16=dtype == "float16",
            device="cpu",
            threads=1,
        )
        (result,) = denoise(request).files
        assert result.status == "done", result.message
        return without_numbers(result.message)

    in_bands, by_halves = remarks("bands"), remarks("halves", halves=True)
    monkeypatch.setattr(denoise_run, "run_pipeline", functools.partial(run_pipeline, whole=True))
    assert remarks("whole") == in_bands == by_halves
    assert any("trained at" in remark for remark in in_bands), "the pixel size is told"
    assert any("moved the mean" in remark for remark in in_bands), "and the mean"
    assert any("hot pixel" in remark for remark in in_bands) == hot


# One flag misused: the same sentence and the same exit code in every command that has it.

COMMANDS = {
    "merge": ["out"],
    "convert": ["a.mrc", "-o", "out"],
    "train": ["data"],
    "denoise": ["a.mrc", "-o", "out"],
    "evaluate": ["a_EVN.mrc", "-o", "out"],
    "inspect": ["a.mrc"],
    "simulate": ["-o", "out", "--count", "1", "--size", "64"],
}
MISUSED = {
    "--device": ("foo", "cuda:x", "gpu", "cpu:0", "cuda:", ""),
    "--threads": ("-1", "many", "100000"),
    "--seed": ("-1", "x"),
    "--patch-size": ("0", "-3", "x"),
    "--pixel-size": ("x",),
    "--angpix": ("x",),
    "--require-better-than": ("nothing",),
    "--report": ("page.txt",),
    "--voltage": ("x",),
    "--cs": ("x",),
}
OTHER_RANGES = {
    "--pixel-size": "simulate makes images of 0.5 to 20 A",
    "--angpix": "0 means the micrograph's own where a network is applied, and nothing where a store is made",
    "--normalize": "a store has no `none`",
    "--precision": "training has no float16",
    "--voltage": "simulate knows what a microscope can do",
    "--cs": "the same",
}
"""Flags whose allowed values differ for a reason: what is no value at all is still refused alike."""
HOMONYMS = {"--model": "a network where one is trained, a structure where micrographs are simulated"}


def options_of(command: str) -> dict[str, click.Option]:
    options = [item for item in cli.get_command(click.Context(cli), command).params if isinstance(item, click.Option)]
    return {max(item.opts, key=len): item for item in options}


def said_by(command: str, *arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run a command; give its exit code and what its error says after its name."""
    code = run([command, *COMMANDS[command], *arguments])
    return code, capsys.readouterr().err.strip().splitlines()[-1].replace(f"cryoplug {command}", "cryoplug")


@pytest.mark.parametrize(("flag", "value"), [(flag, value) for flag, values in MISUSED.items() for value in values])
def test_a_flag_misused_is_refused_alike_by_every_command(
    here: Path, capsys: pytest.CaptureFixture[str], flag: str, value: str
) -> None:
    commands = [name for name in COMMANDS if flag in options_of(name)]
    found = {name: said_by(name, flag, value, capsys=capsys) for name in commands}
    assert len(commands) > 1 and len(set(found.values())) == 1, found
    code, sentence = next(iter(found.values()))
    assert code == 2 and flag in sentence and not list(here.iterdir())


def test_an_output_folder_that_is_a_file_is_refused_alike(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exposure(here, level=50.0, hot=False)
    before = Path("mic.mrc").read_bytes()
    commands = [name for name, words in COMMANDS.items() if "-o" in words]
    found = {name: said_by(name, "-o", "mic.mrc", capsys=capsys) for name in commands}
    assert len(commands) == 4 and set(found.values()) == {
        (2, "cryoplug: error: mic.mrc: this is a file; -o names the folder to write into")
    }
    assert Path("mic.mrc").read_bytes() == before


def test_no_shared_flag_is_forgotten() -> None:
    flags = [flag for name in COMMANDS for flag in options_of(name)]
    valued = {
        flag
        for flag in {flag for flag in flags if flags.count(flag) > 1}
        for option in [options_of(next(name for name in COMMANDS if flag in options_of(name)))[flag]]
        if not option.is_flag and not option.multiple
    }
    same_record = {item.opts[0] for item in _applied()}
    files = {"--output", "--checkpoint", "--star"}
    assert valued <= {*MISUSED, *OTHER_RANGES, *HOMONYMS, *same_record, *files}


def _applied() -> list[click.Option]:
    applied = click.command("applied")(apply_options(lambda **fields: None))
    return [item for item in applied.params if isinstance(item, click.Option)]


@pytest.mark.parametrize("command", ["train", "denoise", "evaluate", "simulate"])
def test_a_gpu_that_is_not_there_is_told_alike(here: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    blur_that_moves_the_mean(here / "model", "zscore")
    exposure(here, level=50.0, hot=False)
    (here / "a.mrc").write_bytes((here / "mic.mrc").read_bytes())
    for side in ("EVN", "ODD"):
        (here / f"a_{side}.mrc").write_bytes((here / f"mic_{side}.mrc").read_bytes())
    (here / "data").mkdir()
    for name in ("noisy", "clean"):
        np.zeros((4, 32, 32), np.float32).tofile(here / "data" / f"{name}_train.bin")
    more = {
        "train": ["--patch-size", "32"],
        "denoise": ["--checkpoint", "model"],
        "evaluate": ["--checkpoint", "model"],
    }
    code, sentence = said_by(command, "--device", "cuda:99", *more.get(command, []), capsys=capsys)
    wanted = r"cryoplug: error: --device cuda:99: .* there.*; give --device auto or cpu, or check nvidia-smi"
    assert code == 7 and re.fullmatch(wanted, sentence), sentence


def test_every_shared_option_is_declared_once() -> None:
    declared: dict[str, list[str]] = {}
    for path in sorted((Path(cryoplug.__file__).parent / "cli").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "click.option":
                names = [item.value for item in node.args if isinstance(item, ast.Constant)]
                flag = max((name for name in names if str(name).startswith("--")), key=len, default=None)
                if flag is not None:
                    declared.setdefault(str(flag), []).append(f"{path.name}:{node.lineno}")
    twice = {flag: places for flag, places in declared.items() if len(places) > 1 and flag not in HOMONYMS}
    assert len(declared) > 50 and not twice, twice


# What Python does without being told, the command line does, too.


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


IN_PYTHON = {
    "convert": lambda: ConvertRequest(("a.mrc",), Path("out")),
    "denoise": lambda: DenoiseRequest(("a.mrc",), Path("general"), Path("out")),
    "evaluate": lambda: EvaluateRequest(inputs=("a_EVN.mrc",), output=Path("out")),
    "inspect": lambda: InspectRequest((Path("a.mrc"),)),
    "simulate": lambda: SimulateRequest(Path("out"), 1, SimulationSettings(size_px=64)),
    "train": lambda: TrainRequest(Path("data"), TrainConfig()),
}
ASKED_BY_THE_COMMAND_ALONE = {
    "train": {"recipe"},  # Python states a configuration in full; a recipe fills in what a command line leaves open
    "inspect": {"keep"},  # the command prints each record as it comes
}


@pytest.mark.parametrize("command", sorted(IN_PYTHON))
def test_python_has_the_defaults_of_the_command_line(here: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    asked: list[object] = []

    class Caught(Exception):
        pass

    def catch(request: object, *others: object, **named: object) -> None:
        asked.append(request)
        raise Caught

    monkeypatch.setattr(f"cryoplug.workflows.{command}.{command}", catch)
    with pytest.raises(Caught):
        cli.main([command, *COMMANDS[command]], standalone_mode=False)
    (found,), wanted = asked, IN_PYTHON[command]()
    alone = ASKED_BY_THE_COMMAND_ALONE.get(command, set())
    differing = {
        item.name: (getattr(found, item.name), getattr(wanted, item.name))
        for item in dataclasses.fields(wanted)
        if getattr(found, item.name) != getattr(wanted, item.name) and item.name not in alone
    }
    assert type(found) is type(wanted) and not differing


def test_an_option_of_applying_a_checkpoint_is_a_field_and_a_line() -> None:
    fields = [item.name for item in dataclasses.fields(ApplySettings)]
    assert [item.name for item in _applied()] == fields
    for command in ("denoise", "evaluate"):
        assert {item.name for item in options_of(command).values()} >= set(fields)


# Words that are read once.

MOST_WORDS = 40


def sentences(text: str) -> list[str]:
    """Take prose apart: code blocks, tables, links and examples are none; a list item is a paragraph."""
    prose = re.sub(r"(?ms)^```.*?^```|^\|.*?$|^\s*(?:Example|Exit codes): .*?(?:\n\n|\Z)", "\n\n", text)
    paragraphs = re.split(r"\n\s*\n|\n(?=- )", re.sub(r"\]\([^)]*\)", "]", prose))
    return [one for part in paragraphs for one in re.split(r"(?<=[.:?])\s+", " ".join(part.split())) if one]


def help_texts() -> dict[str, str]:
    context = click.Context(cli)
    texts = {"cryoplug": cli.help or ""}
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        texts[name] = command.help or ""
        options = [item for item in command.params if isinstance(item, click.Option)]
        texts |= {f"{name} {max(item.opts, key=len)}": item.help or "" for item in options}
    return texts


def test_a_sentence_of_the_readme_or_a_help_text_is_read_once() -> None:
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
    found = [(place, one) for place, text in {"README": readme, **help_texts()}.items() for one in sentences(text)]
    assert len(found) > 300
    assert not [item for item in found if len(item[1].split()) > MOST_WORDS]
    assert not [item for item in found if re.match(r"Of\b", item[1])], "no sentence opens with Of"
    assert not [item for item in found if re.search(r"\b(?:is|are) (?:told|said)\b", item[1])], (
        "cryoplug warns, or says"
    )


@pytest.mark.parametrize(
    "page",
    [
        "docs/alternatives.md",
        "docs/cryosparc.md",
        "docs/no-gpu.md",
        "docs/no-halves.md",
        "docs/noise2noise.md",
        "docs/picking.md",
        "docs/python.md",
        "docs/reproducibility.md",
        "docs/small-gpu.md",
        "docs/training.md",
        "docs/troubleshooting.md",
        "docs/tutorial.md",
        "docs/benchmarks.md",
        "docs/distributed.md",
        "docs/facility.md",
        "docs/files.md",
        "docs/install.md",
        "docs/plugins.md",
        "docs/python.md",
        "docs/relion.md",
        "docs/security.md",
        "plugins/cryoplug-relion/README.md",
        "plugins/cryoplug-slurm/README.md",
        "plugins/scipion-em-cryoplug/README.md",
    ],
)
def test_a_page_says_who_does_what(page: str) -> None:
    found = sentences((Path(__file__).resolve().parents[1] / page).read_text(encoding="utf-8"))
    assert len(found) > 20
    assert not [one for one in found if re.match(r"Of\b", one)], "no sentence opens with Of"
    assert not [one for one in found if re.search(r"\b(?:is|are) (?:told|said)\b", one)], "cryoplug warns, or says"


def test_a_line_of_output_has_two_remarks_at_most() -> None:
    remarks = ["pixel size 6 A; use another", "2 hot pixels", "the mean moved", "float16 is coarse"]

    def line(count: int) -> str:
        return describe(FileResult(Path("a.mrc"), "done", message=joined(remarks[:count]), seconds=1))

    assert line(0) == "a.mrc: done in 1.00 s"
    assert line(2) == "a.mrc: done in 1.00 s: pixel size 6 A; use another | 2 hot pixels"
    assert line(3) == f"{line(2)} (and 1 more: see --json)"
    assert line(4) == f"{line(2)} (and 2 more: see --json)"
    assert separate(joined(remarks)) == remarks and separate(joined(["", ""])) == []
