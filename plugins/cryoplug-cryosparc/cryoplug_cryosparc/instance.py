"""A cryoSPARC instance, the exposures of a job in it, and an External job: each call ends, or raises one sentence."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryoplug.errors import CryoplugError, InputError, StorageError, UsageError

from cryoplug_cryosparc.errors import JobGoneError, NotThereError, as_error
from cryoplug_cryosparc.tools import JobOutput, Tools, installed

EXPOSURES = "exposures"
"""Name of the input of the External job."""
OUTPUT = "micrographs"
"""Name of the output of the External job."""
RAW_SLOT = "micrograph_blob"
"""Slot with the micrographs."""
ACTIVE = ("running", "waiting")
"""Status of an External job that is being worked on."""
OPEN = ("building", *ACTIVE)
"""Status of an External job that takes inputs and outputs."""


@dataclass(frozen=True)
class Source:
    """The job and output whose exposures are denoised."""

    job: str
    """Job, such as ``J12``."""
    output: str | None = None
    """Name of its output; None: the only one with exposures."""

    @classmethod
    def parse(cls, text: str) -> Source:
        """Read ``J12`` or ``J12.exposures_accepted``.

        Raises
        ------
        UsageError
            The text has another form.
        """
        match = re.fullmatch(r"(J\d+)(?:\.([A-Za-z]\w*))?", text)
        if match is None:
            raise UsageError(
                f"--exposures {text!r} (allowed: a job as in J12, or one of its outputs as in J12.micrographs)"
            )
        return cls(match[1], match[2])

    def __str__(self) -> str:
        return self.job if self.output is None else f"{self.job}.{self.output}"


class Instance:
    """cryoSPARC, logged in.

    Parameters
    ----------
    url
        Address of cryoSPARC; None: taken from the environment or the login.
    note
        Called with a remark if the versions do not fit.
    """

    def __init__(self, url: str | None, note: Callable[[str], None]) -> None:
        self.tools: Tools = installed()
        self.url = self.tools.url(url)
        with warnings.catch_warnings(record=True) as remarks:
            warnings.simplefilter("always")
            try:
                with self.asking("logging in"):
                    self._cs = self.tools.connect(self.url)
            except CryoplugError as error:
                raise error from None  # what caused it may hold the password
        for remark in remarks:
            if "may not be compatible" in str(remark.message):
                note(" ".join(str(remark.message).split(". ")[0].split()))

    @contextlib.contextmanager
    def asking(self, doing: str) -> Iterator[None]:
        """Turn errors of cryosparc-tools into one sentence about `doing`."""
        try:
            yield
        except CryoplugError:
            raise
        except Exception as error:
            raise as_error(
                self.tools.problem(error),
                doing=doing,
                url=self.url,
                log_in=self.tools.log_in(self.url),
                tools=f"cryosparc-tools {self.tools.version}",
            ) from error

    def folder(self, project: str) -> Path:
        """Give the folder of a project.

        Raises
        ------
        StorageError
            The folder is not on this machine.
        """
        with self.asking(f"project {project}"):
            folder = self.tools.folder(self._cs.find_project(project))
        if not folder.is_dir():
            raise StorageError(
                f"{folder}: the folder of project {project} is not on this machine; run where cryoSPARC's disk is mounted "
                "at the same place"
            )
        return folder

    def exposures(self, project: str, source: Source) -> tuple[Source, Any]:
        """Load the raw micrographs of a job.

        Returns
        -------
        tuple
            The source with the name of its output, and the dataset: ``uid`` and ``micrograph_blob``, one row per micrograph.

        Raises
        ------
        InputError
            The output has no micrographs, or does not have them yet.
        UsageError
            There is no such job or output, or the job has several outputs with exposures.
        """
        with self.asking(f"job {source.job}"):
            job = self._cs.find_job(project, source.job)
            status = self.tools.status(job)
            outputs = self.tools.outputs(job)
        name = _chosen(source, outputs, status)
        found = Source(source.job, name)
        with self.asking(f"loading {found}"):
            dataset = job.load_output(name, slots=[RAW_SLOT])
        if len(dataset) == 0:
            raise InputError(f"{found}: lists no exposures (the job is {status}); give a job that has some")
        return found, dataset

    def create_job(self, project: str, workspace: str, *, title: str, description: str) -> ExternalJob:
        """Make an External job; its status is ``building``."""
        with self.asking(f"making an External job in {project} {workspace}"):
            return ExternalJob(self, self._cs.find_project(project).create_external_job(workspace, title, description))

    def find_job(self, project: str, uid: str) -> ExternalJob | None:
        """Find an External job that was made before; None when it was deleted."""
        try:
            with self.asking(f"job {uid}"):
                job = ExternalJob(self, self._cs.find_external_job(project, uid))
            return None if job.status() == "deleted" else job
        except (NotThereError, JobGoneError):
            return None


class ExternalJob:
    """An External job of cryoSPARC."""

    def __init__(self, instance: Instance, handle: Any) -> None:
        self._instance = instance
        self._tools = instance.tools
        self._job = handle
        self.uid = str(handle.uid)

    def status(self) -> str:
        """Ask for the status now: ``building``, ``running``, ``completed`` ..., or ``deleted``."""
        with self._asking("asking for its status"):
            return self._tools.status(self._job)

    def prepare(self, source: Source, slots: dict[str, str]) -> None:
        """Connect the exposures and add the output, unless an earlier run has done so.

        Parameters
        ----------
        source
            Job and output to connect.
        slots
            Slots of the output, each with its type.
        """
        with self._asking(f"connecting {source}"):
            if not self._tools.is_connected(self._job, EXPOSURES):
                self._job.connect(EXPOSURES, source.job, source.output, slots=[RAW_SLOT], title="Exposures")
            self._job.refresh()
        with self._asking("adding its output"):
            if OUTPUT not in {item.name for item in self._tools.outputs(self._job)}:
                described = [self._tools.slot(name, dtype) for name, dtype in slots.items()]
                self._job.add_output(
                    "exposure", OUTPUT, slots=described, passthrough=EXPOSURES, title="Denoised micrographs"
                )

    def start(self) -> None:
        """Mark the job as running."""
        with self._asking("starting"):
            self._job.start("running")

    def log(self, text: str, level: str = "text") -> None:
        """Write a line into the job's log; `level` is ``text``, ``warning`` or ``error``."""
        with self._asking("writing into its log"):
            self._job.log(text, level=level)

    def progress(self, text: str) -> None:
        """Show progress in the job's log; in one line that changes, if the version allows it."""
        with self._asking("writing into its log"):
            self._tools.progress(self._job, text)

    def picture(self, png: bytes, text: str) -> None:
        """Show a picture in the job's log."""
        with self._asking("adding a picture"):
            self._job.log_plot(io.BytesIO(png), text, formats=["png"])

    def tile(self, png: bytes) -> bool:
        """Show a picture on the job's card and on its output; False where cryosparc-tools cannot."""
        if not self._tools.has_tiles:
            return False
        with self._asking("setting its picture"):
            self._tools.tile(self._job, OUTPUT, png)
        return True

    def empty_output(self, rows: Any) -> Any:
        """Give an empty dataset with the columns that cryoSPARC requires, and the ``uid`` of these rows."""
        with self._asking("asking for the columns of its output"):
            return self._job.alloc_output(OUTPUT, rows)

    def save(self, dataset: Any) -> None:
        """Save the output in cryoSPARC."""
        with self._asking("saving its output"):
            self._job.save_output(OUTPUT, dataset)

    def complete(self) -> None:
        """Mark the job as completed."""
        with self._asking("marking it as completed"):
            self._job.stop()

    def fail(self, reason: str) -> None:
        """Mark the job as failed."""
        with self._asking("marking it as failed"):
            self._tools.fail(self._job, reason)

    @contextlib.contextmanager
    def _asking(self, doing: str) -> Iterator[None]:
        try:
            with self._instance.asking(f"job {self.uid}: {doing}"):
                yield
        except NotThereError as error:
            raise JobGoneError(
                f"job {self.uid}: {doing}: it is not in cryoSPARC any more; run again to make a new job"
            ) from error


def _chosen(source: Source, outputs: list[JobOutput], status: str) -> str:
    exposures = [item for item in outputs if item.type == "exposure"]
    names = ", ".join(item.name for item in exposures)
    if source.output is not None:
        exposures = [item for item in exposures if item.name == source.output]
    if not exposures:
        has = f"its outputs of exposures: {names}" if names else f"it has no output of exposures; it is {status}"
        raise UsageError(f"--exposures {source}: not there ({has}); name a job that gives micrographs")
    with_micrographs = [item for item in exposures if RAW_SLOT in item.slots]
    if not with_micrographs:
        raise InputError(
            f"{source}: its exposures have no {RAW_SLOT} ({', '.join(sorted(exposures[0].slots))}); give a job that comes after "
            "motion correction, or that imports micrographs"
        )
    if len(with_micrographs) > 1:
        advice = f"--exposures {source.job}.{with_micrographs[0].name}"
        raise UsageError(
            f"--exposures {source}: it has several outputs of exposures ({names}); choose one, as in {advice}"
        )
    return with_micrographs[0].name
