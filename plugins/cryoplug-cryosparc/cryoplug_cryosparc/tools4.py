"""cryosparc-tools 4.7: three ports, secrets from the environment, records as dicts, slots that are called ``prefix``.

This version has no login command, no tile images, and no log line that can change.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryoplug.errors import UsageError
from typing_extensions import override

from cryoplug_cryosparc.errors import Problem
from cryoplug_cryosparc.tools import (
    DEFAULT_PORT,
    TIMEOUT_S,
    URL_VARIABLE,
    JobOutput,
    Tools,
    causes,
    problem_of_code,
    short,
    url_of_variables,
)

_SECRETS = ("CRYOSPARC_LICENSE_ID", "CRYOSPARC_EMAIL", "CRYOSPARC_PASSWORD")
_LINE_EVERY_S = 60.0
"""Least seconds between two lines of progress, because each is a new line in the log."""


class Tools4(Tools):
    """cryosparc-tools 4."""

    has_tiles = False

    def __init__(self, version: str) -> None:
        super().__init__(version)
        self._last_line_s = -_LINE_EVERY_S

    @override
    def url(self, given: str | None) -> str:
        return (
            given or os.environ.get(URL_VARIABLE) or url_of_variables() or f"http://localhost:{DEFAULT_PORT}"
        ).rstrip("/")

    @override
    def log_in(self, url: str) -> str:
        return f"set {', '.join(_SECRETS)} in the environment"

    @override
    def connect(self, url: str) -> Any:
        missing = [name for name in _SECRETS if not os.environ.get(name)]
        if missing:
            raise UsageError(f"{', '.join(missing)}: not set; cryosparc-tools 4 logs in by these variables")
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError as error:
            raise UsageError(f"--url {url}: {error}; write it as http://HOST:{DEFAULT_PORT}") from error
        if parts.scheme != "http" or not parts.hostname:
            raise UsageError(f"--url {url} (allowed with cryosparc-tools 4: http://HOST:PORT)")
        from cryosparc.tools import LICENSE_REGEX, CryoSPARC

        license_id, email, password = (os.environ[name] for name in _SECRETS)
        if not LICENSE_REGEX.fullmatch(license_id):
            raise UsageError(f"{_SECRETS[0]}: not a license ID (allowed: 8-4-4-4-12 digits and letters a to f)")
        return CryoSPARC(license_id, parts.hostname, port or DEFAULT_PORT, email, password, TIMEOUT_S)

    @override
    def slot(self, name: str, dtype: str) -> dict[str, Any]:
        return {"prefix": name, "dtype": dtype, "required": True}

    @override
    def folder(self, project: Any) -> Path:
        return Path(str(project.dir()))

    @override
    def status(self, job: Any) -> str:
        job.refresh()
        return "deleted" if job.doc.get("deleted") else str(job.status)

    @override
    def outputs(self, job: Any) -> list[JobOutput]:
        return [
            JobOutput(item["name"], item["type"], frozenset(slot["name"] for slot in item["contains"]))
            for item in job.doc["output_result_groups"]
        ]

    @override
    def is_connected(self, job: Any, name: str) -> bool:
        return any(item["name"] == name and item["connections"] for item in job.doc["input_slot_groups"])

    @override
    def progress(self, job: Any, text: str) -> None:
        now = time.monotonic()
        if now - self._last_line_s >= _LINE_EVERY_S:
            self._last_line_s = now
            job.log(text)

    @override
    def tile(self, job: Any, output: str, png: bytes) -> None:
        raise NotImplementedError("cryosparc-tools 4 has no tile images; look at has_tiles")

    @override
    def fail(self, job: Any, reason: str) -> None:
        try:
            job.log(reason, level="error")
        finally:
            job.stop(error=True)

    @override
    def problem(self, error: Exception) -> Problem:
        from cryosparc.errors import CommandError

        chain = list(causes(error))
        found = next((item for item in reversed(chain) if isinstance(item, CommandError)), None)
        if found is None:
            broken = next((item for item in chain if isinstance(item, OSError)), None)
            if broken is not None:
                return Problem("silent", short(str(broken)))
            if isinstance(error, (TypeError, ValueError)):  # such as an output without results
                return Problem("refused", short(str(error)))
            return Problem("strange", short(f"{type(error).__name__}: {error}"))
        text = str(found)
        # It gives every failure the code 500; only the text tells that nobody answered.
        for sign in ("URL Error", "Timeout Error"):
            if sign in text:
                return Problem("silent", short(text[text.index(sign) :]))
        # The first line has the parameters of the call, the password among them.
        said = text.partition("\n")[2] or ("" if "with params" in text else text)
        if "authentication" in str(error):
            return Problem("login", short(said))
        if any(sign in said for sign in ("does not exist", "not found", "No such")):
            return Problem("missing", short(said))
        return problem_of_code(found.code, found.data, said)
