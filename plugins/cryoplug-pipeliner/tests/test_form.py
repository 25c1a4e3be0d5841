"""The fields of the jobs are cryoplug's own options: one voice, and nothing forgotten."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from cryoplug.cli.description import describe
from cryoplug.training.config import TrainConfig
from cryoplug.training.presets import with_recipe
from pipeliner.job_factory import new_job_of_type, read_job
from pipeliner.job_options import BooleanJobOption, MultipleChoiceJobOption
from pipeliner_project import DENOISE, EVALUATE, TRAIN

from cryoplug_pipeliner.denoise import Denoise
from cryoplug_pipeliner.evaluate import Evaluate
from cryoplug_pipeliner.form import NOT_CHOSEN, field_name
from cryoplug_pipeliner.job import CryoplugJob
from cryoplug_pipeliner.train import Train

JOBS: dict[str, type[CryoplugJob]] = {DENOISE: Denoise, TRAIN: Train, EVALUATE: Evaluate}
BY_THE_JOB = {"output", "in_mics", "in_movies", "j", "threads", "json", "quiet", "dry-run"}
"""What the job says itself, and how it talks."""
WITHOUT_FIELD = {
    # Halves that lie elsewhere, and files that another program has denoised, are in no STAR file.
    DENOISE: {"even", "odd", "shard", "report", "voltage", "cs", "processes"},
    TRAIN: {"data"},
    # An evaluation that is continued is always made anew.
    EVALUATE: {"even", "odd", "clean", "denoised", "denoised-odd", "output-angpix", "overwrite"},
}


@pytest.fixture(params=JOBS)
def job(request: pytest.FixtureRequest) -> CryoplugJob:
    made = new_job_of_type(request.param)
    made.output_dir = "Job/job001/"
    made.joboptions["in_mics"].value = "list.star"
    return made


def options_of(job: CryoplugJob) -> dict[str, object]:
    return {option.name: option for option in describe(job.command, *job.called.split()).options}


def test_every_option_has_a_field_or_is_left_to_the_additional_arguments(job: CryoplugJob) -> None:
    in_groups = {name for names in job.groups.values() for name in names}
    left = set(options_of(job)) - in_groups
    assert left - BY_THE_JOB == WITHOUT_FIELD[job.PROCESS_NAME]


def test_help_default_choices_and_range_are_those_of_the_command(job: CryoplugJob) -> None:
    for name, option in options_of(job).items():
        if field_name(option) not in job.joboptions or name in BY_THE_JOB:
            continue
        item = job.joboptions[field_name(option)]
        assert item.help_text.startswith(option.help) and item.help_text.endswith(f"--{name}")
        if isinstance(item, BooleanJobOption):
            assert item.default_value is bool(option.default)
        elif isinstance(item, MultipleChoiceJobOption):
            assert [choice for choice in item.choices if choice != NOT_CHOSEN] == list(option.choices)
        elif name not in job.left_open:
            assert item.default_value == (
                "" if option.default is None and option.kind in ("text", "size", "path") else option.default
            )
        if option.kind in ("integer", "number"):
            assert (item.hard_min, item.hard_max) == (option.minimum, option.maximum)


def test_labels_differ_since_run_job_files_know_fields_by_them(job: CryoplugJob) -> None:
    labels = [item.label for item in job.joboptions.values()]
    assert len(set(labels)) == len(labels)


def test_what_is_left_as_it_was_is_not_said(job: CryoplugJob) -> None:
    assert {item.type for item in job.validate_joboptions()} <= {"warning"}, "the list need not be there yet"
    flags = [word for word in job.words() if word.startswith("--")]
    assert flags == [*(["--o", "--in_mics"] if "relion" in job.called else ["--output"]), job.threads_flag]


def test_what_a_recipe_chooses_is_left_open_to_it() -> None:
    config = TrainConfig(model="unet")
    common = {"patch_shape": (256, 256), "whole": (256, 256), "on_gpu": True, "given": (), "pairs": "halves"}
    chosen = [with_recipe(config, "auto", **common), with_recipe(config, "auto", **common, goes_on=True)]
    by_recipe = {
        item.name
        for item in fields(TrainConfig)
        if any(getattr(other, item.name) != getattr(config, item.name) for other in chosen)
    }
    spelled = {name.removesuffix("s") if name == "model_options" else name for name in by_recipe}
    assert {name.replace("_", "-") for name in spelled} <= Train.left_open
    made = new_job_of_type(TRAIN)
    fields_left_open = [made.joboptions[name.replace("-", "_")] for name in Train.left_open]
    assert all(item.is_blank or item.value == NOT_CHOSEN for item in fields_left_open)


def test_changed_fields_become_words() -> None:
    made = new_job_of_type(DENOISE)
    made.output_dir = "Job/job001/"
    for name, value in {
        "in_mics": "a list.star",
        "trained_model": "CryoplugTrain/job002/model.json",
        "strength": "0.5",
        "target": "particles",
        "float16": "Yes",
        "previews": "No",
        "tile": 512,
        "nr_threads": 3,
        "other_args": "--report 'my page.html'",
    }.items():
        made.joboptions[name].value = value
    assert made.words() == [
        *("--o", "Job/job001/", "--in_mics", "a list.star", "--checkpoint", "CryoplugTrain/job002/"),
        *("--target", "particles", "--strength", "0.5", "--float16", "--no-previews", "--tile", "512"),
        *("--j", "3", "--report", "my page.html"),
    ]


@pytest.mark.parametrize(
    ("kind", "values", "label", "words"),
    [
        (DENOISE, {"highpass": 10, "lowpass": 20}, "Highpass (A):", "nothing is left"),
        (DENOISE, {"gpu": "two"}, "GPU:", "'two'"),
        (
            DENOISE,
            {"checkpoint": "a", "trained_model": "T/job001/model.json"},
            "Network of a train job:",
            "two networks",
        ),
        (DENOISE, {"other_args": "--no-such-flag"}, "Additional arguments:", "--no-such-flag"),
        (DENOISE, {"other_args": "'unfinished"}, "Additional arguments:", "quotation"),
        (DENOISE, {"in_mics": ""}, "Input micrographs STAR file:", "required"),
        (TRAIN, {"in_mics": ""}, "Input micrographs STAR file:", "required"),
        (TRAIN, {"stride": 0}, "Stride:", "1"),
        (TRAIN, {"model_option": "depth"}, "Model option:", "depth"),
        (TRAIN, {"ema": 2}, "Moving average of the weights:", "2"),
        (EVALUATE, {"device": "cuda:x"}, "Device:", "cuda:x"),
    ],
)
def test_wrong_values_are_told_at_their_field(kind: str, values: dict[str, object], label: str, words: str) -> None:
    made = new_job_of_type(kind)
    made.output_dir = "Job/job001/"
    made.joboptions["in_mics"].value = "list.star"
    for name, value in values.items():
        made.joboptions[name].value = value
    errors = [item for item in made.validate_joboptions() if item.type == "error"]
    assert errors and words in " ".join(item.message for item in errors)
    assert label in [option.label for item in errors for option in item.raised_by]


def test_job_files_hold_every_field(job: CryoplugJob, tmp_path: Path) -> None:
    job.joboptions["strength" if "strength" in job.joboptions else "val_split"].value = 0.25
    job.joboptions["in_mics"].value = "a list with spaces.star"
    job.write_jobstar(f"{tmp_path}/")
    job.write_runjob(f"{tmp_path}/")
    for name in ("job.star", "run.job"):
        again = read_job(str(tmp_path / name))
        again.output_dir = job.output_dir
        assert again.words() == job.words()


def test_the_jobs_load_without_torch() -> None:
    code = (
        "import sys\nfrom pipeliner.job_factory import new_job_of_type\n"
        f"for name in {list(JOBS)!r}: new_job_of_type(name)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
