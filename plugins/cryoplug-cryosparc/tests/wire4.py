"""cryoSPARC 4 over HTTP: three ports; JSON-RPC, and a few addresses for files; a license in the header."""

from __future__ import annotations

import io
import json
import re
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cryosparc.dataset import Dataset
from fake_cryosparc import COLUMNS, FakeCryosparc, FakeJob, QuietServer, Refusal

LICENSE = "12345678-90ab-cdef-1234-567890abcdef"
PASSWORD = "a-password-that-is-only-known-here"
CORE = (
    "get_id_by_email_password",
    "get_running_version",
    "get_project",
    "get_project_dir_abs",
    "get_job",
    "run_external_job",
    "set_job_status",
    "job_send_streamlog",
)
VIS = ("create_external_job", "connect_external_job", "add_external_job_output")
_TRIES = 50


class Wire:
    """The server, while it is there: ``command_core``, ``command_vis`` and ``command_rtp``."""

    def __init__(self, cryosparc: FakeCryosparc) -> None:
        cryosparc.version = "v4.7.1"
        self._servers = _three_ports(cryosparc)
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._servers[0].server_address[1] - 2}"

    def environment(self, home: Path) -> dict[str, str]:
        """Give the variables by which one logs in."""
        return {
            "CRYOSPARC_LICENSE_ID": LICENSE,
            "CRYOSPARC_EMAIL": "ali@example.com",
            "CRYOSPARC_PASSWORD": PASSWORD,
            "CRYOSPARC_COMMAND_RETRY_SECONDS": "0",
        }

    def close(self) -> None:
        """Be gone: nobody listens any more."""
        for server in self._servers:
            server.shutdown()
            server.server_close()


def _three_ports(cryosparc: FakeCryosparc) -> list[QuietServer]:
    """Take a port and those that must lie 1 and 3 above it; where one of them is in use, try others."""
    for _ in range(_TRIES):
        servers: list[QuietServer] = []
        try:
            for name, offset in (("core", 0), ("vis", 1), ("rtp", 3)):
                handler = type(name, (_Handler,), {"cryosparc": cryosparc, "service": name})
                port = servers[0].server_address[1] + offset if servers else 0
                servers.append(QuietServer(("127.0.0.1", port), handler))
            return servers
        except (OSError, OverflowError):
            for server in servers:
                server.server_close()
    raise AssertionError(f"no three free ports in {_TRIES} tries")


class _Handler(BaseHTTPRequestHandler):
    cryosparc: FakeCryosparc
    service: str

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        parts = urlsplit(self.path)
        body = self._body()
        if not self.cryosparc.login_is_valid or self.headers["License-ID"] != LICENSE:
            self._reply(401, {"message": "Invalid license"})
            return
        if parts.path == "/api":
            self._rpc(json.loads(body))
            return
        try:
            self._reply(
                200, self._file(parts.path, {key: values[0] for key, values in parse_qs(parts.query).items()}, body)
            )
        except Refusal as refusal:
            self._reply(refusal.code, {"message": refusal.detail})

    def _rpc(self, request: dict[str, Any]) -> None:
        method, params = request["method"], request["params"]
        arguments, named = ((), params) if isinstance(params, dict) else (params, {})
        try:
            if method == "system.describe":
                names = {"core": CORE, "vis": VIS}.get(self.service, ())
                result: Any = {"procs": [{"name": name} for name in names]}
            else:
                assert method in {"core": CORE, "vis": VIS}[self.service], method
                result = getattr(self, method)(*arguments, **named)
        except Refusal as refusal:
            if refusal.code in (401, 403, 422, 500, 502, 503):
                self._reply(refusal.code, {"message": refusal.detail})
            else:
                error = {"name": "OtherError", "code": 500, "message": f"OtherError: {refusal.detail}", "data": None}
                self._reply(200, {"jsonrpc": "2.0", "id": request["id"], "error": error})
        else:
            self._reply(200, {"jsonrpc": "2.0", "id": request["id"], "result": result})

    def _file(self, path: str, query: dict[str, str], body: bytes) -> Any:
        if path == "/get_project_file":
            uid, name = re.fullmatch(r"(J\d+)/(.+)", json.loads(body)["path"]).groups()
            output, _, slot = name.removesuffix(".cs").rpartition(".")
            return self.cryosparc.call("load", uid, output, [slot])
        if match := re.fullmatch(r"/projects/P1/jobs/(J\d+)/files", path):
            return {
                "fileid": self.cryosparc.call("upload", body),
                "filename": query["filename"],
                "filetype": query["format"],
            }
        match = re.fullmatch(r"/external/projects/P1/jobs/(J\d+)/outputs/(.+)/dataset", path)
        assert match is not None, path
        self.cryosparc.call("save", match[1], unquote(match[2]), Dataset.load(io.BytesIO(body)))
        return {}

    def get_id_by_email_password(self, email: str, password: str) -> Any:
        if password != PASSWORD:
            raise Refusal(400, "Incorrect email or password")
        return self.cryosparc.call("login")

    def get_running_version(self) -> Any:
        return self.cryosparc.version

    def get_project(self, uid: str) -> Any:
        return {"uid": uid, "project_dir": str(self.cryosparc.call("project", uid))}

    def get_project_dir_abs(self, uid: str) -> Any:
        return str(self.cryosparc.call("project", uid))

    def get_job(self, project: str, uid: str) -> Any:
        self.cryosparc.call("project", project)
        return _document(self.cryosparc.call("job", uid))

    def run_external_job(self, _project: str, uid: str, status: str) -> Any:
        self.cryosparc.call("start", uid, status)

    def set_job_status(self, _project: str, uid: str, status: str) -> Any:
        self.cryosparc.call("status", uid, status)

    def job_send_streamlog(
        self, project_uid: str, job_uid: str, message: str, error: bool = False, flags: Any = (), imgfiles: Any = ()
    ) -> Any:
        if imgfiles:
            return self.cryosparc.call("show", job_uid, message, [item["fileid"] for item in imgfiles])
        return self.cryosparc.call("write_log", job_uid, "error" if error else "text", message)

    def create_external_job(self, project_uid: str, workspace_uid: str, user: str, title: str, desc: str) -> Any:
        self.cryosparc.call("project", project_uid)
        return self.cryosparc.call("create", workspace_uid, title, desc).uid

    def connect_external_job(
        self,
        project_uid: str,
        source_job_uid: str,
        source_output: str,
        target_job_uid: str,
        target_input: str,
        slots: Any,
        title: str,
        desc: str,
    ) -> Any:
        needed = [{"name": slot, "dtype": slot} if isinstance(slot, str) else _named(slot) for slot in slots]
        self.cryosparc.call("add_input", target_job_uid, target_input, "exposure", needed)
        self.cryosparc.call("connect", target_job_uid, target_input, source_job_uid, source_output)

    def add_external_job_output(
        self, project_uid: str, job_uid: str, type: str, name: str, slots: Any, passthrough: str, title: str
    ) -> Any:
        self.cryosparc.call("add_output", job_uid, name, type, [_named(slot) for slot in slots], passthrough)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _reply(self, code: int, answer: Any) -> None:
        if isinstance(answer, Dataset):
            kind, payload = "application/x-cryosparc-dataset", b"".join(answer.stream())
        else:
            kind, payload = "application/json", json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)


def _named(slot: dict[str, Any]) -> dict[str, Any]:
    """Read a slot as version 4 spells it: another spelling is an error."""
    return {"name": slot["prefix"], "dtype": slot["dtype"]}


def _document(job: FakeJob) -> dict[str, Any]:
    groups, results = [], []
    for name, output in job.outputs.items():
        found = [
            {
                "name": slot,
                "group_name": name,
                "type": f"{output.type}.{dtype}",
                "passthrough": False,
                "metafiles": [f"{job.uid}/{name}.{slot}.cs"] if output.dataset is not None else [],
                "min_fields": COLUMNS[dtype],
            }
            for slot, dtype in output.slots.items()
        ]
        groups.append({"name": name, "type": output.type, "title": name, "contains": found})
        results += found
    inputs = [
        {
            "name": name,
            "type": item["type"],
            "slots": item["slots"],
            "connections": [item["source"]] if item["source"] else [],
        }
        for name, item in job.inputs.items()
    ]
    return {
        "uid": job.uid,
        "job_type": job.type,
        "status": job.status,
        "deleted": job.deleted,
        "title": job.title,
        "input_slot_groups": inputs,
        "output_result_groups": groups,
        "output_results": results,
    }
