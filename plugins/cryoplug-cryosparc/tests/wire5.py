"""cryoSPARC 5 over HTTP: one port, an address for each function, a login by token."""

from __future__ import annotations

import io
import json
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cryosparc.auth import get_default_auth_config_path
from cryosparc.dataset import Dataset
from cryosparc.models.asset import GridFSAsset
from cryosparc.models.event import ImageEvent, TextEvent
from cryosparc.models.job import Job
from cryosparc.models.job_spec import Connection, Input, Inputs, InputSlot, JobSpec, Output, OutputResult, Outputs
from cryosparc.models.project import Project
from cryosparc.models.resource import ResourceSpec
from cryosparc.models.user import User
from fake_cryosparc import FakeCryosparc, FakeJob, QuietServer, Refusal
from fake_openapi import document, places

PREFIX = "/api/cmd"
TOKEN = "a-token-that-is-only-known-here"
ENDPOINTS = (
    "login",
    "users.me",
    "config.get_version",
    "projects.find_one",
    "projects.get_directory",
    "jobs.find_one",
    "jobs.create",
    "jobs.load_output",
    "jobs.add_external_input",
    "jobs.connect",
    "jobs.add_external_output",
    "jobs.get_output_fields",
    "jobs.mark_running",
    "jobs.mark_completed",
    "jobs.mark_failed",
    "jobs.add_event_log",
    "jobs.update_event_log",
    "jobs.add_image_log",
    "jobs.set_tile_image",
    "jobs.set_output_image",
    "jobs.save_output",
    "assets.upload",
)
_NOW = datetime(2025, 1, 1, tzinfo=UTC)


class Wire:
    """The server, while it is there."""

    def __init__(self, cryosparc: FakeCryosparc) -> None:
        cryosparc.version = "v5.0.3"
        handler = type("Handler", (_Handler,), {"cryosparc": cryosparc})
        self._server = QuietServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def environment(self, home: Path) -> dict[str, str]:
        """Log in: leave the token where cryosparc-tools looks for it; give the variables that say where that is."""
        token = {"token": {"access_token": TOKEN, "token_type": "bearer"}, "expires": "2099-01-01T00:00:00Z"}
        path = home / "cryosparc-tools" / "auth.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({self.url: {"ali@example.com": token}}), encoding="utf-8")
        get_default_auth_config_path.cache_clear()
        return {"XDG_CONFIG_HOME": str(home)}

    def close(self) -> None:
        """Be gone: nobody listens any more."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    cryosparc: FakeCryosparc

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        if self.path == f"{PREFIX}/openapi.json":
            self._reply(200, document(ENDPOINTS))
        else:
            self._reply(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        parts = urlsplit(self.path)
        words = [unquote(word) for word in parts.path.removeprefix(f"{PREFIX}/").split("/")]
        name = next(item for item in ENDPOINTS if item.split(".") == words[: len(item.split("."))])
        arguments = dict(zip(places(name), words[len(name.split(".")) :], strict=True))
        query = {key: values if key == "slots" else values[0] for key, values in parse_qs(parts.query).items()}
        body = self._body()
        if name != "login" and not self._is_logged_in():
            self._reply(401, {"detail": "Invalid or expired token"})
            return
        try:
            answer = getattr(self, name.replace(".", "_"))(arguments, query, body)
        except Refusal as refusal:
            self._reply(refusal.code, {"detail": refusal.detail})
        else:
            self._reply(200, answer)

    def login(self, _where: Any, _query: Any, body: bytes) -> Any:
        form = parse_qs(body.decode())
        if form["username"] != ["ali@example.com"] or len(form["password"][0]) != 64:
            raise Refusal(401, "Incorrect email or password")
        return {"access_token": TOKEN, "token_type": "bearer"}

    def users_me(self, _where: Any, _query: Any, _body: bytes) -> Any:
        roles: dict[str, Any] = {"__global_roles__": ["admin"]}
        identity = self.cryosparc.call("login")
        return User(
            _id=identity,
            name="ali",
            first_name="A",
            last_name="L",
            emails=[],
            roles=roles,
            register_token=None,
            created_at=_NOW,
        )

    def config_get_version(self, _where: Any, _query: Any, _body: bytes) -> Any:
        return self.cryosparc.version

    def projects_find_one(self, where: Any, _query: Any, _body: bytes) -> Any:
        folder = self.cryosparc.call("project", where["project_uid"])
        user = "6372a35e821ed2b71d9fe4e3"
        return Project(
            uid="P1", uid_num=1, title="P", project_dir=str(folder), owner_user_id=user, size_last_updated=_NOW
        )

    def projects_get_directory(self, where: Any, _query: Any, _body: bytes) -> Any:
        return str(self.cryosparc.call("project", where["project_uid"]))

    def jobs_find_one(self, where: Any, _query: Any, _body: bytes) -> Any:
        self.cryosparc.call("project", where["project_uid"])
        return _job(self.cryosparc.call("job", where["job_uid"]))

    def jobs_create(self, where: Any, query: Any, _body: bytes) -> Any:
        assert query["type"] == "snowflake"
        job = self.cryosparc.call("create", where["workspace_uid"], query["title"], query["description"])
        return _job(job)

    def jobs_load_output(self, where: Any, query: Any, _body: bytes) -> Any:
        return self.cryosparc.call("load", where["job_uid"], where["output_name"], query["slots"])

    def jobs_add_external_input(self, where: Any, _query: Any, body: bytes) -> Any:
        spec = json.loads(body)
        return _job(
            self.cryosparc.call("add_input", where["job_uid"], where["input_name"], spec["type"], spec["slots"])
        )

    def jobs_connect(self, where: Any, query: Any, _body: bytes) -> Any:
        source = query["source_job_uid"], query["source_output_name"]
        return _job(self.cryosparc.call("connect", where["job_uid"], where["input_name"], *source))

    def jobs_add_external_output(self, where: Any, _query: Any, body: bytes) -> Any:
        spec = json.loads(body)
        given = spec["type"], spec["slots"], spec.get("passthrough")
        return _job(self.cryosparc.call("add_output", where["job_uid"], where["output_name"], *given))

    def jobs_get_output_fields(self, where: Any, _query: Any, _body: bytes) -> Any:
        return self.cryosparc.call("columns", where["job_uid"], where["output_name"])

    def jobs_mark_running(self, where: Any, query: Any, _body: bytes) -> Any:
        return _job(self.cryosparc.call("start", where["job_uid"], query["status"]))

    def jobs_mark_completed(self, where: Any, _query: Any, _body: bytes) -> Any:
        return _job(self.cryosparc.call("status", where["job_uid"], "completed"))

    def jobs_mark_failed(self, where: Any, query: Any, _body: bytes) -> Any:
        return _job(self.cryosparc.call("status", where["job_uid"], "failed", query.get("error", "")))

    def jobs_add_event_log(self, where: Any, query: Any, body: bytes) -> Any:
        identity = self.cryosparc.call("write_log", where["job_uid"], query["type"], json.loads(body))
        return TextEvent(_id=identity, project_uid="P1", job_uid=where["job_uid"], type="text", text=json.loads(body))

    def jobs_update_event_log(self, where: Any, query: Any, body: bytes) -> Any:
        text = json.loads(body)
        self.cryosparc.call("write_log", where["job_uid"], query["type"], text, where["event_id"])
        return TextEvent(_id=where["event_id"], project_uid="P1", job_uid=where["job_uid"], type="text", text=text)

    def jobs_add_image_log(self, where: Any, query: Any, body: bytes) -> Any:
        assets = [item["fileid"] for item in json.loads(body)]
        identity = self.cryosparc.call("show", where["job_uid"], query["text"], assets)
        return ImageEvent(_id=identity, project_uid="P1", job_uid=where["job_uid"], type="image", text=query["text"])

    def jobs_set_tile_image(self, where: Any, _query: Any, body: bytes) -> Any:
        return _job(self.cryosparc.call("set_tile", where["job_uid"], json.loads(body)["fileid"]))

    def jobs_set_output_image(self, where: Any, _query: Any, body: bytes) -> Any:
        image = json.loads(body)["fileid"]
        return _job(self.cryosparc.call("set_output_image", where["job_uid"], where["output_name"], image))

    def jobs_save_output(self, where: Any, _query: Any, body: bytes) -> Any:
        dataset = Dataset.load(io.BytesIO(body))
        return _job(self.cryosparc.call("save", where["job_uid"], where["output_name"], dataset))

    def assets_upload(self, _where: Any, query: Any, body: bytes) -> Any:
        identity = self.cryosparc.call("upload", body)
        return GridFSAsset(fileid=identity, filename=query["filename"], filetype=query["format"])

    def _is_logged_in(self) -> bool:
        return self.cryosparc.login_is_valid and self.headers["Authorization"] == f"Bearer {TOKEN}"

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
            content = answer.model_dump(mode="json", by_alias=True) if hasattr(answer, "model_dump") else answer
            kind, payload = "application/json", json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)


def _job(job: FakeJob) -> Job:
    inputs = {
        name: Input(
            type=item["type"],
            title=name,
            slots=[InputSlot(**slot) for slot in item["slots"]],
            connections=[Connection(job_uid=item["source"][0], output=item["source"][1])] if item["source"] else [],
        )
        for name, item in job.inputs.items()
    }
    outputs = {
        name: Output(
            type=item.type,
            title=name,
            passthrough=item.passthrough,
            results=[OutputResult(name=slot, dtype=dtype) for slot, dtype in item.slots.items()],
        )
        for name, item in job.outputs.items()
    }
    spec = JobSpec(
        type=job.type,
        inputs=Inputs(inputs),
        outputs=Outputs(outputs),
        ui_tile_width=1,
        ui_tile_height=1,
        resource_spec=ResourceSpec(),
    )
    return Job(
        uid=job.uid,
        uid_num=int(job.uid[1:]),
        project_uid="P1",
        project_uid_num=1,
        workspace_uids=[job.workspace],
        job_dir=job.uid,
        job_dir_size_last_updated=_NOW,
        title=job.title,
        description=job.description,
        status=job.status,
        status_num=0,
        spec=spec,
        build_errors=[],
        deleted=job.deleted,
    )
