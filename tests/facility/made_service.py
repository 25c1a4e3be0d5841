"""The service of examples/facility with a program in cryoplug's place that does what a test wrote down."""

from __future__ import annotations

import datetime
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

FACILITY = Path(__file__).parents[2] / "examples" / "facility"
PATIENCE_S = 120.0
NIGHT = "%Y-%m-%d"
BEGINS_AT = (datetime.datetime.now().hour + 12) % 24
"""No night begins while the tests run."""

PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path

here = Path(sys.argv[1])
with open(here / "called", "a") as called:
    called.write(json.dumps(sys.argv[2:]) + "\\n")
number = len((here / "called").read_text().splitlines())
path = here / f"turn{number}.json"
turn = json.loads(path.read_text()) if path.exists() else {"code": 2}
for record in turn.get("records", []):
    print(json.dumps(record), flush=True)
print("\\n".join(turn.get("words", [])), file=sys.stderr, flush=True)
if turn.get("waits"):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    (here / "waits").touch()
    time.sleep(600)
if turn.get("code", 0) < 0:
    os.kill(os.getpid(), -turn["code"])
sys.exit(turn.get("code", 0))
"""
"""After the last turn that was written down it exits with 2, which ends the service."""


def record(name: str, status: str = "done", message: str = "") -> dict[str, Any]:
    """Make a record as ``cryoplug denoise --json`` writes it."""
    output = f"out/{name}" if status != "failed" else None
    code = 4 if status == "failed" else 0
    return {
        "input": name, "status": status, "output": output, "message": message, "seconds": 0.5, "exit_code": code
    }  # fmt: skip


class Facility:
    """A folder with settings, a program, and what the service said and did."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        (folder / "program.py").write_text(PROGRAM)
        self.settings = {
            "micrographs": f"{folder}/raw/{NIGHT}",
            "output": f"{folder}/denoised/{NIGHT}",
            "command": [sys.executable, str(folder / "program.py"), str(folder)],
            "alert": [
                sys.executable,
                "-c",
                f"import sys; open({str(folder / 'alerts')!r}, 'a').write(sys.stdin.read() + '====')",
            ],
            "retry_s": 0.01,
            "night_begins_at": BEGINS_AT,
            **settings,
        }
        self.path = folder / "settings.toml"

    def turns(self, *turns: dict[str, Any]) -> None:
        for number, turn in enumerate(turns, start=1):
            (self.folder / f"turn{number}.json").write_text(json.dumps(turn))

    def start(self) -> subprocess.Popen[str]:
        self.path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in self.settings.items()))
        return subprocess.Popen(
            [sys.executable, str(FACILITY / "service.py"), str(self.path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
        )

    def run(self) -> tuple[int, str, str]:
        service = self.start()
        out, err = service.communicate(timeout=PATIENCE_S)
        return service.returncode, out, err

    def end(self, service: subprocess.Popen[str]) -> tuple[int, str, str]:
        service.send_signal(signal.SIGTERM)
        out, err = service.communicate(timeout=PATIENCE_S)
        return service.returncode, out, err

    @property
    def alerts(self) -> list[str]:
        path = self.folder / "alerts"
        return path.read_text().split("====")[:-1] if path.exists() else []

    @property
    def called(self) -> list[Sequence[str]]:
        return [json.loads(line) for line in (self.folder / "called").read_text().splitlines()]


def until(happened: Callable[[], bool], service: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not happened():
        assert service.poll() is None and time.monotonic() < end, service.communicate()
        time.sleep(0.02)
