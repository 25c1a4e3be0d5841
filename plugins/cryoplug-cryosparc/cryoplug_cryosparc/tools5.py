"""cryosparc-tools 5: one address, a login that is kept in a file, typed records, tile images."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from cryoplug.errors import UsageError
from typing_extensions import override

from cryoplug_cryosparc.errors import Problem
from cryoplug_cryosparc.tools import (
    TIMEOUT_S,
    URL_VARIABLE,
    JobOutput,
    Tools,
    causes,
    problem_of_code,
    short,
    url_of_variables,
)


class Tools5(Tools):
    """cryosparc-tools 5."""

    has_tiles = True

    @override
    def url(self, given: str | None) -> str:
        from cryosparc.auth import InstanceAuthSessions

        known = list(InstanceAuthSessions.load().root)
        url = given or os.environ.get(URL_VARIABLE) or url_of_variables()
        if url:
            # The login is kept under the address exactly as it was typed.
            return next((item for item in known if item.rstrip("/") == url.rstrip("/")), url.rstrip("/"))
        if len(known) == 1:
            return known[0]
        several = f" (logged in to {', '.join(known)})" if known else ""
        raise UsageError(f"which cryoSPARC?{several} give --url, or log in: {self.log_in('URL')}")

    @override
    def log_in(self, url: str) -> str:
        return f"python -m cryosparc.tools login --url {url}"

    @override
    def connect(self, url: str) -> Any:
        from cryosparc.tools import CryoSPARC

        return CryoSPARC(url, host=None, base_port=None, timeout=TIMEOUT_S)

    @override
    def slot(self, name: str, dtype: str) -> dict[str, Any]:
        return {"name": name, "dtype": dtype}

    @override
    def folder(self, project: Any) -> Path:
        return Path(str(project.dir))

    @override
    def status(self, job: Any) -> str:
        job.refresh()
        return "deleted" if job.model.deleted or job.model.deleting else str(job.status)

    @override
    def outputs(self, job: Any) -> list[JobOutput]:
        return [
            JobOutput(name, item.type, frozenset(slot.name for slot in (*item.results, *item.slots)))
            for name, item in job.outputs.items()
        ]

    @override
    def is_connected(self, job: Any, name: str) -> bool:
        return name in job.inputs and bool(job.inputs[name].connections)

    @override
    def progress(self, job: Any, text: str) -> None:
        job.log(text, name="progress")

    @override
    def tile(self, job: Any, output: str, png: bytes) -> None:
        job.set_tile_image(io.BytesIO(png))
        job.set_output_image(output, io.BytesIO(png))

    @override
    def fail(self, job: Any, reason: str) -> None:
        job.stop(error=reason)

    @override
    def problem(self, error: Exception) -> Problem:
        from cryosparc.errors import APIError
        from httpx import TransportError

        for item in causes(error):
            if isinstance(item, (TransportError, OSError)):
                return Problem("silent", short(str(item) or type(item).__name__))
            if isinstance(item, APIError):
                return problem_of_code(item.code, item.data, "")
        if "authentication not provided" in str(error):
            return Problem("login", "no login found")
        return Problem("strange", short(f"{type(error).__name__}: {error}"))
