"""Processes of cryoplug that start at once, for tests that kill, stop or measure them.

A process that imports torch takes seconds before it does anything. Here one server process imports everything and then
forks: each child is a real process with a number, an exit code and a life of its own, but its imports are done. The
server never computes, so it has no threads that a fork would lose.

A child ends as Python does: it waits for its threads, does what was left for the end, writes out what it printed. Only
what it imported is not taken apart; of a fork that copies all of it, and takes 0.4 s.

What Python or a library reads when it starts (`PYTHONPATH`, `OMP_NUM_THREADS`, locale, `CUDA_VISIBLE_DEVICES`) is that of
the server: where such a thing is the subject of a test, start a fresh Python instead.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

COMMAND = "from cryoplug.cli.main import main; main()"
"""Program of a child that is the command ``cryoplug``."""
_ROOT = Path(__file__).resolve().parents[1]
_LIBRARIES = (
    "torch",
    "torch._dynamo",
    "h5py",
    "tifffile",
    "numpy.random",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
)
"""What cryoplug imports late. Not pandas: pyarrow starts a thread."""


class WarmStart:
    """The server; `close` ends it, and every child that still runs."""

    def __init__(self) -> None:
        # No plugin, no GPU and no threads of OpenBLAS: a child has none of them.
        fixed = {"CRYOPLUG_NO_PLUGINS": "1", "CUDA_VISIBLE_DEVICES": "", "OPENBLAS_NUM_THREADS": "1"}
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH", ""))))
        environment = {**os.environ, **fixed, "PYTHONPATH": path}
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        self._lock = threading.Lock()
        self._children: list[Child] = []
        self._logs = tempfile.TemporaryDirectory(prefix="cryoplug-warm-")

    def start(
        self,
        *words: object,
        program: str = COMMAND,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        stdout: Path | None = None,
        stderr: Path | None = None,
    ) -> Child:
        """Start a child.

        Parameters
        ----------
        words
            Its arguments, ``sys.argv[1:]``.
        program
            Python code, as after ``python -c``; the command ``cryoplug`` when it is not given.
        folder
            Working folder; that of the caller when it is not given.
        environment
            All of its variables; those of the caller when it is not given.
        stdout, stderr
            Files that it writes to; `Child.communicate` gives what is in them.
        """
        log = Path(self._logs.name, str(len(self._children)))
        order = {
            "program": program,
            "words": [os.fspath(word) if isinstance(word, os.PathLike) else str(word) for word in words],
            "folder": str(folder or Path.cwd()),
            "environment": dict(os.environ if environment is None else environment),
            "stdout": str(stdout or log.with_suffix(".out")),
            "stderr": str(stderr or log.with_suffix(".err")),
        }
        for name in ("stdout", "stderr"):
            Path(order[name]).write_bytes(b"")
        child = Child(self._ask(order)["pid"], Path(order["stdout"]), Path(order["stderr"]), self._reap)
        self._children.append(child)
        return child

    def _reap(self, pid: int) -> End:
        end = self._ask({"reap": pid})
        return End(os.waitstatus_to_exitcode(end["status"]), end["work_ms"] / 1000, end["peak_kb"] / 1024)

    def _ask(self, order: Mapping[str, object]) -> dict[str, int]:
        """Send an order to the server and wait for its answer."""
        with self._lock:
            assert self._server.stdin is not None and self._server.stdout is not None
            self._server.stdin.write(json.dumps(order).encode() + b"\n")
            self._server.stdin.flush()
            line = self._server.stdout.readline()
        assert line, "the server of warm processes has ended"
        return json.loads(line)

    def close(self) -> None:
        """Kill what still runs, and end the server."""
        for child in self._children:
            if child.poll() is None:
                child.kill()
                child.wait()
        self._server.communicate(timeout=60)
        self._logs.cleanup()


@dataclass(frozen=True)
class End:
    """How a process ended."""

    code: int
    """Exit code; of one that a signal killed, minus the signal."""
    work_s: float
    """Seconds of processor time that it took."""
    peak_mb: float
    """The most memory that it held; of a fork never less than the imports take."""


class Child:
    """A process that runs, with the methods of `subprocess.Popen` that tests use.

    Parameters
    ----------
    pid
        Its number.
    out, err
        Files that it writes to.
    reap
        Takes the end of a process that has ended.
    """

    def __init__(self, pid: int, out: Path, err: Path, reap: Callable[[int], End]) -> None:
        self.pid = pid
        self.end: End | None = None
        """None while it runs, and until somebody has asked."""
        self._out, self._err, self._reap = out, err, reap
        self._life = os.pidfd_open(pid)

    @property
    def returncode(self) -> int | None:
        """Exit code; of one that a signal killed, minus the signal; None while it runs."""
        return self.end.code if self.end else None

    def poll(self) -> int | None:
        """Give the exit code, or None while it runs."""
        self._has_ended(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and give the exit code; `subprocess.TimeoutExpired` after `timeout` seconds."""
        if not self._has_ended(timeout) or self.end is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return self.end.code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; give what it wrote to stdout and stderr."""
        self.wait(timeout)
        return self._out.read_text(errors="replace"), self._err.read_text(errors="replace")

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing when it has ended."""
        if self.end is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._life, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _has_ended(self, timeout: float | None) -> bool:
        if self.end is None and select.select([self._life], [], [], timeout)[0]:
            self.end = self._reap(self.pid)
            os.close(self._life)
        return self.end is not None


def _serve() -> dict[str, object] | None:
    """Fork and reap as ordered; give a child its order, and None to the server when nobody wants it any more."""
    while line := sys.stdin.buffer.readline():
        order = json.loads(line)
        if "reap" in order:
            _, status, usage = os.wait4(order["reap"], 0)
            work_ms = int(1000 * (usage.ru_utime + usage.ru_stime))
            answer = {"status": status, "work_ms": work_ms, "peak_kb": usage.ru_maxrss}
        else:
            answer = {"pid": os.fork()}
            if not answer["pid"]:
                return order
        os.write(1, json.dumps(answer).encode() + b"\n")
    return None


def _become(order: dict[str, object]) -> str:
    """Take over folder, variables, streams and arguments of an order; give the program."""
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, order["stdout"], os.O_WRONLY),
        (2, order["stderr"], os.O_WRONLY),
    ):
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    # The server has read from its own; nobody has written to the other two.
    sys.stdin = open(0, closefd=False)
    sys.argv = ["-c", *order["words"]]
    return order["program"]


def _import_all() -> None:
    """Import cryoplug and its libraries, whatever is for a GPU alone left out."""
    for name in _LIBRARIES:
        importlib.import_module(name)
    cryoplug = importlib.import_module("cryoplug")
    for module in pkgutil.walk_packages(cryoplug.__path__, "cryoplug."):
        if "triton" not in module.name and module.name not in ("cryoplug.__main__", "cryoplug.testing"):
            importlib.import_module(module.name)
    assert len(os.listdir("/proc/self/task")) == 1, "a fork would lose threads"
    # The children's garbage collector leaves alone what is here: else each of them copies all of it, and takes 0.7 s.
    gc.collect()
    gc.freeze()


def _run(program: str, leave: list[int]) -> None:
    """Run the program of a child; put into `leave` the exit code of the process, unless Python finds it out itself."""
    try:
        exec(program, {"__name__": "__main__"})
        leave.append(0)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            leave.append((end.code or 0) & 0xFF)
        raise


def _leave(codes: list[int]) -> None:
    """End the process with this exit code, if there is one."""
    if codes:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(codes[0])


if __name__ == "__main__":
    codes: list[int] = []
    # Before anything else is imported: what is registered first is done last.
    atexit.register(_leave, codes)
    _import_all()
    received = _serve()
    if received is not None:
        _run(_become(received), codes)
