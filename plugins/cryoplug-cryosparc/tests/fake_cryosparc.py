"""A stand-in for cryoSPARC: projects, jobs and their rules, without the wire; two ways of speaking it lie beside this file.

The rules are those that cryosparc-tools documents: outputs are added while a job is building, running or waiting, saved
while it is running or waiting, and a slot must have a known type. Its columns are those of cryosparc-tools' own test data;
of a thumbnail only ``path`` and ``micrograph_path`` are known from public programs, and the rest is assumed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryosparc.dataset import Dataset

BLOB = [
    ("path", "O"),
    ("idx", "u4"),
    ("shape", "2u4"),
    ("psize_A", "f4"),
    ("format", "O"),
    ("is_background_subtracted", "u4"),
    ("vmin", "f4"),
    ("vmax", "f4"),
    ("import_sig", "u8"),
]
COLUMNS = {
    "micrograph_blob": BLOB,
    "thumbnail_blob": [
        ("path", "O"),
        ("idx", "u4"),
        ("shape", "2u4"),
        ("format", "O"),
        ("binfactor", "u4"),
        ("micrograph_path", "O"),
        ("vmin", "f4"),
        ("vmax", "f4"),
    ],
    "ctf": [("df1_A", "f4"), ("df2_A", "f4")],
    "movie_blob": [("path", "O"), ("shape", "3u4"), ("psize_A", "f4")],
}
"""Types of slots, each with its columns."""
WAIT_S = 300.0


class QuietServer(ThreadingHTTPServer):
    """A server that leaves no thread behind, and says nothing of a client that went away."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """See the class."""


class Refusal(Exception):
    """The server's answer is an error."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass
class FakeOutput:
    """An output of a job."""

    type: str
    slots: dict[str, str]
    passthrough: str | None = None
    dataset: Any = None


@dataclass
class FakeJob:
    """A job."""

    uid: str
    type: str
    status: str = "building"
    workspace: str = "W1"
    title: str = ""
    description: str = ""
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Each with ``type``, ``slots`` and ``source``, which is a job and an output."""
    outputs: dict[str, FakeOutput] = field(default_factory=dict)
    log: list[tuple[str, str]] = field(default_factory=list)
    """Level and text of each line."""
    images: list[tuple[str, bytes]] = field(default_factory=list)
    """Text and content of each picture in the log."""
    tile: bytes = b""
    output_images: dict[str, bytes] = field(default_factory=dict)
    deleted: bool = False
    history: list[str] = field(default_factory=list)
    """Every status that it had."""

    def become(self, status: str) -> None:
        self.status = status
        self.history.append(status)

    def text(self) -> str:
        """Give the whole log."""
        return "\n".join(f"{level}: {line}" for level, line in self.log)


class Hold:
    """A place where the server waits with its answer."""

    def __init__(self) -> None:
        self.reached, self.released = threading.Event(), threading.Event()

    def wait_until_reached(self) -> None:
        assert self.reached.wait(WAIT_S), "the client never asked for it"


class FakeCryosparc:
    """One project, ``P1``, with workspace ``W1``.

    Parameters
    ----------
    folder
        Of the project.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs: dict[str, FakeJob] = {}
        self.assets: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.login_is_valid = True
        self.version = ""
        self._before: dict[str, Callable[[], None]] = {}
        self._held: list[Hold] = []
        self._lock = threading.RLock()

    def before(self, call: str, action: Callable[[], None]) -> None:
        """Do something each time before a call is answered; the names are those of the methods below."""
        self._before[call] = action

    def refuse(self, call: str, code: int, detail: str = "no") -> None:
        """Answer a call by an error from now on."""

        def answer() -> None:
            raise Refusal(code, detail)

        self.before(call, answer)

    def hold(self, call: str) -> Hold:
        """Wait with the answer to a call until the test lets go."""
        held = Hold()

        def wait() -> None:
            held.reached.set()
            held.released.wait(WAIT_S)

        self.before(call, wait)
        self._held.append(held)
        return held

    def release_all(self) -> None:
        """Answer everything from now on."""
        self._before.clear()
        for held in self._held:
            held.released.set()

    def call(self, name: str, *arguments: Any, **named: Any) -> Any:
        """Answer a call."""
        self.calls.append(name)
        action = self._before.get(name)
        if action is not None:
            action()
        with self._lock:
            return getattr(self, name)(*arguments, **named)

    def add_source(self, uid: str, outputs: dict[str, FakeOutput]) -> FakeJob:
        """Add a completed job whose outputs may be denoised."""
        job = FakeJob(uid, "patch_motion_correction_multi", status="completed", outputs=outputs)
        self.jobs[uid] = job
        return job

    @property
    def external(self) -> list[FakeJob]:
        """The External jobs, in the order in which they were made."""
        return [job for job in self.jobs.values() if job.type == "snowflake"]

    def login(self) -> str:
        return "6372a35e821ed2b71d9fe4e3"

    def project(self, uid: str) -> Path:
        if uid != "P1":
            raise Refusal(404, f"Project {uid} does not exist")
        return self.folder

    def job(self, uid: str) -> FakeJob:
        if uid not in self.jobs:
            raise Refusal(404, f"Job P1-{uid} does not exist")
        return self.jobs[uid]

    def create(self, workspace: str, title: str, description: str) -> FakeJob:
        if workspace != "W1":
            raise Refusal(404, f"Workspace P1-{workspace} does not exist")
        uid = f"J{max((int(known[1:]) for known in self.jobs), default=0) + 1}"
        job = FakeJob(uid, "snowflake", workspace=workspace, title=title, description=description)
        self.jobs[uid] = job
        (self.folder / uid).mkdir(exist_ok=True)
        return job

    def add_input(self, uid: str, name: str, type: str, slots: list[dict[str, Any]]) -> FakeJob:
        job = self._open(uid)
        _check(slots)
        job.inputs[name] = {"type": type, "slots": slots, "source": None}
        return job

    def connect(self, uid: str, name: str, source_job: str, source_output: str) -> FakeJob:
        job = self._open(uid)
        output = self.job(source_job).outputs[source_output]
        needed = {slot["name"] for slot in job.inputs[name]["slots"]}
        assert needed <= set(output.slots), "a required slot is missing"
        job.inputs[name]["source"] = (source_job, source_output)
        return job

    def add_output(
        self, uid: str, name: str, type: str, slots: list[dict[str, Any]], passthrough: str | None
    ) -> FakeJob:
        job = self._open(uid)
        _check(slots)
        if passthrough is not None and passthrough not in job.inputs:
            raise Refusal(422, f"no input {passthrough}")
        job.outputs[name] = FakeOutput(type, {slot["name"]: slot["dtype"] for slot in slots}, passthrough)
        return job

    def columns(self, uid: str, name: str) -> list[tuple[str, str]]:
        slots = self.job(uid).outputs[name].slots
        return [(f"{slot}/{column}", kind) for slot, dtype in slots.items() for column, kind in COLUMNS[dtype]]

    def start(self, uid: str, status: str) -> FakeJob:
        job = self.job(uid)
        assert job.status == "building", f"a job that is {job.status} was started"
        job.become(status)
        return job

    def status(self, uid: str, status: str, error: str = "") -> FakeJob:
        job = self.job(uid)
        if error:
            job.log.append(("error", error))
        job.become(status)
        return job

    def write_log(self, uid: str, level: str, text: str, event: str | None = None) -> str:
        job = self.job(uid)
        if event is None:
            job.log.append((level, text))
            return f"{len(job.log) - 1:024d}"
        job.log[int(event)] = (level, text)
        return event

    def upload(self, content: bytes) -> str:
        assert content.startswith(b"\x89PNG"), "this is no PNG"
        identity = f"{len(self.assets) + 1:024d}"
        self.assets[identity] = content
        return identity

    def show(self, uid: str, text: str, assets: list[str]) -> str:
        job = self.job(uid)
        job.images += [(text, self.assets[item]) for item in assets]
        return f"{len(job.images):024d}"

    def set_tile(self, uid: str, asset: str) -> FakeJob:
        job = self.job(uid)
        job.tile = self.assets[asset]
        return job

    def set_output_image(self, uid: str, name: str, asset: str) -> FakeJob:
        job = self.job(uid)
        job.output_images[name] = self.assets[asset]
        return job

    def load(self, uid: str, name: str, slots: list[str]) -> Any:
        output = self.job(uid).outputs[name]
        if output.dataset is None:
            raise Refusal(400, f"Output {uid}.{name} has no results yet")
        kept = [column for column in output.dataset.fields() if column == "uid" or column.split("/")[0] in slots]
        return Dataset({column: output.dataset[column] for column in kept})

    def save(self, uid: str, name: str, dataset: Any) -> FakeJob:
        job = self.job(uid)
        if job.status not in ("running", "waiting"):
            raise Refusal(400, f"Job P1-{uid} is {job.status}; it must be running or waiting")
        output = job.outputs[name]
        missing = {column for column, _ in self.columns(uid, name)} - set(dataset.fields())
        if missing:
            raise Refusal(422, f"missing columns: {', '.join(sorted(missing))}")
        source_job, source_output = job.inputs[output.passthrough]["source"]
        known = set(self.jobs[source_job].outputs[source_output].dataset["uid"].tolist())
        assert set(dataset["uid"].tolist()) <= known, "rows that the input does not have"
        output.dataset = dataset
        return job

    def _open(self, uid: str) -> FakeJob:
        job = self.job(uid)
        if job.status not in ("building", "running", "waiting"):
            raise Refusal(400, f"Job P1-{uid} is {job.status}; clear it first")
        return job


def _check(slots: list[dict[str, Any]]) -> None:
    wrong = [slot for slot in slots if slot["dtype"] not in COLUMNS]
    if wrong:
        raise Refusal(422, f"unknown slot types: {', '.join(slot['dtype'] for slot in wrong)}")
