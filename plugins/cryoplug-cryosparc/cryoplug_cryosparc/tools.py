"""The functions that cryoplug needs from cryosparc-tools, for each supported version.

The differences between versions are in `cryoplug_cryosparc.tools4` and `cryoplug_cryosparc.tools5`. No other file imports
cryosparc-tools.
"""

from __future__ import annotations

import io
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryoplug_cryosparc.errors import Kind, Problem

TIMEOUT_S = 120
"""Most seconds for one request; cryosparc-tools tries three times."""
URL_VARIABLE = "CRYOSPARC_BASE_URL"
"""Variable with the address of cryoSPARC, as in a browser."""
HOST_VARIABLE, PORT_VARIABLE = "CRYOSPARC_MASTER_HOSTNAME", "CRYOSPARC_BASE_PORT"
"""Variables with the same address in two parts."""
DEFAULT_PORT = 39000
_MOST_LETTERS = 300


@dataclass(frozen=True)
class JobOutput:
    """An output of a job."""

    name: str
    """Name, such as ``micrographs``."""
    type: str
    """Type, such as ``exposure``."""
    slots: frozenset[str]
    """Names of its slots, such as ``micrograph_blob`` and ``ctf``."""


class Tools(ABC):
    """The functions that cryoplug needs from cryosparc-tools; `project` and `job` are objects of cryosparc-tools.

    Parameters
    ----------
    version
        Version, such as ``5.0.3``.
    """

    has_tiles: bool
    """Whether a job can get a tile image."""

    def __init__(self, version: str) -> None:
        self.version = version

    @abstractmethod
    def url(self, given: str | None) -> str:
        """Give the address of the instance: the given one, else that of the environment or the login."""

    @abstractmethod
    def log_in(self, url: str) -> str:
        """Give the command or the variables for the login."""

    @abstractmethod
    def connect(self, url: str) -> Any:
        """Log in; gives the `CryoSPARC`."""

    @abstractmethod
    def slot(self, name: str, dtype: str) -> dict[str, Any]:
        """Describe a slot of an output."""

    @abstractmethod
    def folder(self, project: Any) -> Path:
        """Give the project's folder."""

    @abstractmethod
    def status(self, job: Any) -> str:
        """Ask for the status of a job now: ``building``, ``running`` ..., or ``deleted``."""

    @abstractmethod
    def outputs(self, job: Any) -> list[JobOutput]:
        """Give the outputs of a job as they were when its status was asked for, or later."""

    @abstractmethod
    def is_connected(self, job: Any, name: str) -> bool:
        """Tell whether an input is there and connected."""

    @abstractmethod
    def progress(self, job: Any, text: str) -> None:
        """Show progress in the job's log."""

    @abstractmethod
    def tile(self, job: Any, output: str, png: bytes) -> None:
        """Show a picture on the job's card and on its output."""

    @abstractmethod
    def fail(self, job: Any, reason: str) -> None:
        """Mark a job as failed and write the reason into its log."""

    @abstractmethod
    def problem(self, error: Exception) -> Problem:
        """Translate an error of cryosparc-tools into a `Problem`."""


def installed() -> Tools:
    """Give the functions for the installed version."""
    # Its own remarks on each attempt; what becomes of the last one is said in a sentence.
    warnings.filterwarnings("ignore", message=r"\*\*\* ")
    warnings.filterwarnings("ignore", message=r"\[API\]")
    from cryosparc import __version__ as version

    if version.startswith("4."):
        from cryoplug_cryosparc.tools4 import Tools4

        return Tools4(version)
    from cryoplug_cryosparc.tools5 import Tools5

    return Tools5(version)


def load_dataset(path: Path) -> Any:
    """Read a dataset file into cryosparc-tools' own object."""
    from cryosparc.dataset import Dataset

    return Dataset.load(path)


def dataset_bytes(dataset: Any) -> bytes:
    """Give a dataset as the bytes of a file in the NPY format."""
    buffer = io.BytesIO()
    dataset.save(buffer)
    return buffer.getvalue()


def url_of_variables() -> str:
    """Give the address from the variables for host and port; empty if neither is set."""
    host, port = os.environ.get(HOST_VARIABLE, ""), os.environ.get(PORT_VARIABLE, "")
    return f"http://{host or 'localhost'}:{port or DEFAULT_PORT}" if host or port else ""


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Give an error and its chain of causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def problem_of_code(code: int | None, data: Any, said: str) -> Problem:
    """Translate an HTTP code into a `Problem`.

    Parameters
    ----------
    code
        The HTTP code.
    data
        Data that the server sent with the code.
    said
        Text to use if the data has no message.
    """
    kinds: dict[int, Kind] = {401: "login", 403: "right", 404: "missing"}
    detail = data.get("detail", data.get("message", said)) if isinstance(data, dict) else said
    number = code if isinstance(code, int) and code > 0 else 500
    kind: Kind = kinds.get(number) or ("failed" if number >= 500 else "refused")
    return Problem(kind, short(f"HTTP {number}: {detail}" if detail else f"HTTP {number}"))


def short(text: str) -> str:
    """Put a text on one line that is not too long."""
    return " ".join(text.split())[:_MOST_LETTERS]
