"""Common parts of the jobs: fields from cryoplug's declarations, validation by its records, and the command line."""

from __future__ import annotations

import shutil
import sysconfig
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

import click
import cryoplug
from cryoplug.cli.description import OptionDescription, describe
from cryoplug.errors import CryoplugError
from pipeliner.external_program_utils import ExternalProgram
from pipeliner.job_options import (
    FileDescription,
    InputNodeJobOption,
    JobOption,
    JobOptionCondition,
    JobOptionValidationResult,
)
from pipeliner.nodes import NODE_MICROGRAPHGROUPMETADATA, NODE_MLMODEL
from pipeliner.pipeliner_job import PipelinerCommand, PipelinerJob, Ref
from pipeliner.results_display_objects import ResultsDisplayObject

from cryoplug_pipeliner import displays
from cryoplug_pipeliner.form import arguments, chosen, field, field_name

LOGFILE = "logfile.pdf"
"""File in the folder of a denoise or train job."""
_REFERENCE = Ref(
    authors="The cryoplug authors",
    title="cryoplug: denoise cryo-EM micrographs",
    journal=f"Software, version {cryoplug.__version__}",
    year="2026",
)
_DOCUMENTATION = "README.md of cryoplug-pipeliner, and docs/ of cryoplug"
Metadata = dict[str, int | float | str | bool | dict[str, Any] | list[Any] | None]


class CryoplugJob(PipelinerJob):
    """A job that runs one command of cryoplug."""

    CATEGORY_LABEL = "Denoise"
    command: ClassVar[click.Command]
    """The command whose options the job has."""
    called: ClassVar[str]
    """The words after ``cryoplug``."""
    groups: ClassVar[Mapping[str, Sequence[str]]]
    """Options that have a field, by the title above them."""
    left_open: ClassVar[frozenset[str]] = frozenset()
    """Options whose default depends on others: their fields are empty, and the command decides."""
    changed_in_continue: ClassVar[frozenset[str]] = frozenset({"device", "gpu", "tile", "max-memory"})
    """Options that may change when the job is continued, because they do not change the pixels."""
    threads_flag: ClassVar[str] = "--j"

    def __init__(self) -> None:
        super().__init__()
        self.can_continue = True
        self.always_continue_in_schedule = True
        description = describe(self.command, *self.called.split())
        self.jobinfo.short_desc = description.purpose
        self.jobinfo.long_desc = _in_paragraphs(description.help)
        self.jobinfo.documentation = _DOCUMENTATION
        self.jobinfo.version = "0.1"
        self.jobinfo.job_author = "The cryoplug authors"
        self.jobinfo.programs = [_program()]
        self.jobinfo.references = [_REFERENCE]
        self.add_inputs()
        self._shown: list[OptionDescription] = []
        for group, names in self.groups.items():
            for option in chosen(description.options, names):
                self._shown.append(option)
                self.joboptions[field_name(option)] = field(
                    option,
                    group=group,
                    left_open=option.name in self.left_open,
                    in_continue=option.name in self.changed_in_continue,
                )
        self.get_runtab_options(mpi=False, threads=True, addtl_args=True)
        self.joboptions["other_args"].help_text = f"Any option of cryoplug {self.called} --help that has no field here."

    @abstractmethod
    def add_inputs(self) -> None:
        """Add the fields of input files; they come first."""

    @abstractmethod
    def input_words(self) -> list[str]:
        """Give the words for the input files and for the folder of the job."""

    @abstractmethod
    def check(self, parsed: dict[str, Any]) -> None:
        """Make the records that the command makes from its options; they raise CryoplugError if something is wrong."""

    @abstractmethod
    def displays(self) -> Sequence[ResultsDisplayObject]:
        """Show the results of a finished job.

        Raises
        ------
        OSError
            There are no results yet.
        """

    def get_commands(self) -> list[PipelinerCommand]:
        """Print the version, then run the command."""
        engine = ["python3", "-P", "-m", "cryoplug_pipeliner.engine", self.output_dir]
        return [
            *self.get_program_version_commands(),
            PipelinerCommand([*engine, "cryoplug", *self.called.split(), *self.words()]),
        ]

    def words(self) -> list[str]:
        """Give the words after the name of the command."""
        threads = [self.threads_flag, str(int(self.joboptions["nr_threads"].get_number()))]
        return [*self.input_words(), *arguments(self._shown, self.joboptions), *threads, *self.parse_additional_args()]

    def additional_joboption_validation(self) -> list[JobOptionValidationResult]:
        """Let cryoplug parse the command line and check the values; the messages are those of the command."""
        try:
            context = self.command.make_context(str(self.command.name), self.words())
            self.check(dict(context.params))
        except click.NoSuchOption as error:
            return [self._wrong(error.format_message(), in_fields=False)]
        except click.ClickException as error:
            return [self._wrong(error.format_message())]
        except CryoplugError as error:
            return [self._wrong(str(error))]
        except ValueError as error:  # of shlex: a quotation that does not end
            return [self._wrong(str(error), in_fields=False)]
        return []

    def create_results_display(self) -> Sequence[ResultsDisplayObject]:
        """Show the results, or a note that there are none yet."""
        try:
            return self.displays()
        except OSError as error:
            return [displays.nothing_yet(f"{error}; run.out and run.err say what the job has done so far")]

    def file(self, name: str) -> Path:
        """Give the path of a file in the folder of the job."""
        return Path(self.output_dir) / name

    def file_name(self, name: str) -> str:
        """Give the same as text."""
        return str(self.file(name))

    def _wrong(self, message: str, *, in_fields: bool = True) -> JobOptionValidationResult:
        """Find the fields that a message is about; if there are none, the additional arguments."""
        named = [self.joboptions[field_name(item)] for item in self._shown if in_fields and _names(message, item)]
        return JobOptionValidationResult("error", named or [self.joboptions["other_args"]], message)


def micrographs_field(*, help_text: str, required: bool = True, unless: str = "") -> JobOption:
    """Make the field of the STAR file of micrographs.

    Parameters
    ----------
    help_text
        Help text of the field.
    required
        Whether it must be filled in.
    unless
        Another field that may be filled in instead.
    """
    return InputNodeJobOption(
        label="Input micrographs STAR file:",
        node_type=NODE_MICROGRAPHGROUPMETADATA,
        node_kwds=["relion"],
        pattern=FileDescription("Micrographs STAR file", [".star"]),
        help_text=help_text,
        is_required=required,
        required_if=JobOptionCondition([(unless, "=", "")]) if unless else None,
        deactivate_if=JobOptionCondition([(unless, "!=", "")]) if unless else None,
    )


def trained_model_field() -> JobOption:
    """Make the field of a network that a train job of this project made."""
    return InputNodeJobOption(
        label="Network of a train job:",
        node_type=NODE_MLMODEL,
        node_kwds=["cryoplug"],
        pattern=FileDescription("Network of cryoplug", ["model.json"]),
        help_text="model.json of a train job. Leave it empty for the general model, or for the checkpoint below.",
    )


def checkpoint_words(job_options: Mapping[str, JobOption]) -> list[str]:
    """Give ``--checkpoint`` for the network of a train job, found by its ``model.json``; without one, nothing."""
    model = job_options["trained_model"].value
    return ["--checkpoint", f"{Path(model).parent}/"] if model else []


def two_checkpoints(job_options: Mapping[str, JobOption]) -> list[JobOptionValidationResult]:
    """Report a network that is chosen in two fields."""
    both = [job_options["trained_model"], job_options["checkpoint"]]
    if not both[0].value or both[1].value == both[1].default_value:
        return []
    message = f"two networks: {both[0].value} and {both[1].value}; leave one of the fields as it was"
    return [JobOptionValidationResult("error", both, message)]


def fields_of(record: type, parsed: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the options that are fields of a record of cryoplug."""
    known = {item.name for item in fields(record)}
    return {name: value for name, value in parsed.items() if name in known}


def _in_paragraphs(text: str) -> str:
    """Join the lines of each paragraph of a help text, and drop examples, which show a command line."""
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    return "\n\n".join(part for part in paragraphs if not part.startswith("Example:"))


def _names(message: str, option: OptionDescription) -> bool:
    return f"--{option.name} " in f"{message} ".replace("'", " ").replace(":", " ").replace(",", " ")


def _program() -> ExternalProgram:
    """Find cryoplug in the Pipeliner's environment, also if it is not activated; the fields show the options of this cryoplug."""
    beside = Path(sysconfig.get_path("scripts")) / "cryoplug"
    found = shutil.which("cryoplug")
    use = "cryoplug" if not beside.exists() or (found and Path(found).samefile(beside)) else str(beside)
    return ExternalProgram(use, name="cryoplug", vers_com=[use, "--version"])
