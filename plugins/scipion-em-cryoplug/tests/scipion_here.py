"""Scipion without a window: an installation of its own for these tests, projects in it, and waiting for what happens.

Scipion reads its settings from the environment when it is imported, so they are set here before.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, Callable, TypeVar

HERE = Path(tempfile.mkdtemp(prefix="scipion_"))
atexit.register(shutil.rmtree, HERE, ignore_errors=True)
PLUGIN = Path(__file__).resolve().parents[1]
TIMEOUT_S = 180.0
"""For what takes seconds; the machine may have other things to do."""
T = TypeVar("T")

os.environ.update(
    # Scipion starts "python" from PATH.
    PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    SCIPION_HOME=str(HERE / "home"),
    SCIPION_USER_DATA=str(HERE / "my data"),
    EM_ROOT=str(HERE / "em"),
    SCIPION_DOMAIN="pwem",
    SCIPION_NOTIFY="False",
    SCIPION_EM_NEW_FILE_CHECK_SEC="1",
)
for _name in ("SCIPION_HOME", "SCIPION_USER_DATA", "EM_ROOT"):
    Path(os.environ[_name]).mkdir()
subprocess.run([Path(sys.executable).with_name("scipion"), "config", "--unattended"], check=True, capture_output=True)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # those are Scipion's own
    import psutil
    from pwem import Domain
    from pwem.objects import Micrograph, SetOfMicrographs
    from pwem.protocols import ProtImportMicrographs
    from pyworkflow.project import Manager

    from cryoplug_scipion import Plugin

    PROTOCOLS = Domain.getProtocols()
    Denoise, Train, Evaluate = (PROTOCOLS[f"CryoplugProt{name}"] for name in ("Denoise", "Train", "Evaluate"))

__all__ = [
    "HERE",
    "PLUGIN",
    "PROTOCOLS",
    "Denoise",
    "Domain",
    "Evaluate",
    "Micrograph",
    "Plugin",
    "Session",
    "Train",
    "contents",
    "is_alive",
    "wait_for",
]


def wait_for(look: Callable[[], T | None], what: str) -> T:
    """Look again and again until there is something; fail with what was waited for."""
    until = time.monotonic() + TIMEOUT_S
    while time.monotonic() < until:
        if found := look():
            return found
        time.sleep(0.2)
    raise AssertionError(f"waited {TIMEOUT_S:.0f} s in vain for: {what}")


def contents(protocol: Any, name: str = "micrographs.sqlite") -> tuple[list[Any], bool]:
    """Read a set from the disk: its micrographs, and whether it is still open."""
    path = Path(protocol.getPath(name))
    if not path.is_file():
        return [], True
    try:
        found = SetOfMicrographs(filename=str(path))
        found.loadAllProperties()
        items = [item.clone(copyEnable=True) for item in found]
        is_open = found.isStreamOpen()
        found.close()
    except sqlite3.OperationalError:  # the protocol writes at this moment
        return [], True
    return items, is_open


def is_alive(pid: int) -> bool:
    """Tell whether a process does anything; one that is dead but not yet buried does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Session:
    """A project, and what people do in it."""

    def __init__(self, name: str) -> None:
        manager = Manager()
        manager.createProject(name)
        self.project = manager.loadProject(name)

    def run(self, kind: Any, inputs: dict[str, tuple[Any, str]], *, wait: bool = True, **fields: Any) -> Any:
        """Make a protocol and start it."""
        protocol = self.new(kind, inputs, **fields)
        self.project.launchProtocol(protocol, wait=wait)
        return protocol

    def new(self, kind: Any, inputs: dict[str, tuple[Any, str]], **fields: Any) -> Any:
        """Make a protocol; an input is another protocol and the name of its output."""
        threads = {} if kind is ProtImportMicrographs else {"numberOfThreads": 1, "useGpu": False}
        protocol = self.project.newProtocol(kind, **threads, **fields)
        for name, (of, output) in inputs.items():
            pointer = getattr(protocol, name)
            pointer.set(of)
            pointer.setExtended(output)
        return protocol

    def go_on(self, protocol: Any, *, wait: bool = True) -> None:
        """Press Continue."""
        self.project.launchProtocol(protocol, wait=wait)

    def import_(self, folder: Path, *, wait: bool = True, **fields: Any) -> Any:
        """Import the micrographs of a folder."""
        return self.run(
            ProtImportMicrographs,
            {},
            wait=wait,
            filesPath=str(folder),
            filesPattern="*.mrc",
            samplingRate=2.6,
            voltage=300.0,
            **fields,
        )

    def stream(self, folder: Path) -> Any:
        """Import a folder into which micrographs come one by one, until `close_stream`."""
        return self.import_(folder, wait=False, dataStreaming=True, timeout="1h", fileTimeout="1")

    def close_stream(self, imported: Any) -> None:
        """Press "Stop streaming"."""
        imported.stopImport(None)

    def status(self, protocol: Any) -> str:
        """Give the status that Scipion shows."""
        self.project._updateProtocol(protocol)
        return protocol.getStatus()

    def pid(self, protocol: Any) -> int:
        """Give the process of a running protocol."""

        def look() -> int:
            self.project._updateProtocol(protocol)
            return protocol.getPid() if protocol.isRunning() else 0

        return wait_for(look, "the process of the protocol")
