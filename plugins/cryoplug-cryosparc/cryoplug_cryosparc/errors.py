"""Errors of cryoSPARC and of the connection to it; each becomes one sentence and an exit code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cryoplug.errors import CryoplugError, UsageError

Kind = Literal["login", "right", "missing", "refused", "failed", "silent", "strange"]


@dataclass(frozen=True)
class Problem:
    """What went wrong between cryosparc-tools and the server."""

    kind: Kind
    """``login``: not logged in, or the login expired. ``right``: the account has no permission. ``missing``: no such project
    or job. ``refused``: the server refuses. ``failed``: an error in the server. ``silent``: no answer. ``strange``: an
    answer that cryosparc-tools does not understand."""
    detail: str
    """Message of the server or the system, on one line."""


class ServerError(CryoplugError):
    """cryoSPARC did not answer, failed, or refused."""


class NotThereError(UsageError):
    """cryoSPARC does not know the project, workspace or job."""


class JobGoneError(ServerError):
    """The External job was deleted in cryoSPARC."""


class EndedThereError(CryoplugError):
    """Somebody ended the External job in cryoSPARC; finished micrographs are safe, as after SIGTERM."""

    exit_code = 143


def as_error(problem: Problem, *, doing: str, url: str, log_in: str, tools: str) -> CryoplugError:
    """Make the error of a problem.

    Parameters
    ----------
    problem
        What went wrong.
    doing
        The action that failed, such as ``job J43: saving the output``.
    url
        Address of cryoSPARC.
    log_in
        The command or the variables for the login.
    tools
        Name and version of the installed cryosparc-tools.
    """
    said = f" ({problem.detail})" if problem.detail else ""
    where = f"cryoSPARC at {url}"
    if problem.kind == "login":
        return UsageError(f"{doing}: {where} does not accept the login, it may have expired{said}; {log_in}")
    if problem.kind == "right":
        return UsageError(f"{doing}: this account has no right to do it on {where}{said}; ask its administrator")
    if problem.kind == "missing":
        return NotThereError(f"{doing}: {where} does not know it{said}; correct the project, workspace or job")
    if problem.kind == "silent":
        return ServerError(f"{doing}: {where} does not answer{said}; look at cryosparcm status, then run again")
    if problem.kind == "failed":
        return ServerError(f"{doing}: {where} failed{said}; look at its logs (cryosparcm log), then run again")
    if problem.kind == "refused":
        return ServerError(f"{doing}: {where} refused{said}; correct what it names, then run again")
    return ServerError(
        f"{doing}: {tools} does not understand {where}{said}; install the cryosparc-tools that has its version"
    )
