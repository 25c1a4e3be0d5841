"""A reader who types the blocks of a page into a shell, on a small project, in processes whose imports are done.

The shell is bash itself; only the command ``cryoplug`` is another one: it asks a server in this process to start a child of
`warm_start`, waits for its end and gives back what it wrote and its exit code.
"""

from __future__ import annotations

import json
import os
import shutil
import socketserver
import subprocess
import sys
import threading
from pathlib import Path

from warm_start import WarmStart

MOST_SECONDS = 180.0
"""For one command, on a machine that is busy with other things."""
SMALLER = {
    "--size": "384",
    "--count": "4",
    "--minutes": "0.02",
    "--epochs": "1",
    "--idle-exit": "1",
    "--poll": "0.1",
    "--settle": "0.1",
}
"""What the reader types instead of the number that the page shows, so that the tests take seconds."""

_COMMAND = """#!{python} -IS
import json, os, socket, sys
asked = socket.socket(socket.AF_UNIX)
asked.connect({socket!r})
with asked.makefile("rw") as stream:
    stream.write(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]) + "\\n")
    stream.flush()
    answer = json.loads(stream.readline())
sys.stderr.write(answer["stderr"])
sys.stderr.flush()
sys.stdout.write(answer["stdout"])
sys.stdout.flush()
sys.exit(answer["code"])
"""
_PROGRAM = """
from pathlib import Path
from cryoplug.models import shipped
shipped.FOLDER = Path({folder!r})
from cryoplug.cli.main import main
main()
"""


class Reader:
    """Runs scripts in a folder; `close` ends the server.

    Parameters
    ----------
    warm_start
        Starter of the processes.
    general_model
        Folder of a small network that stands for the general model.
    place
        Folder for the command and its socket.
    """

    def __init__(self, warm_start: WarmStart, general_model: Path, place: Path) -> None:
        self._warm_start = warm_start
        self._starting = threading.Lock()
        self._program = _PROGRAM.format(folder=str(general_model))
        self._commands = place / "bin"
        self._commands.mkdir()
        reader = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(json.dumps(reader._run(*json.loads(self.rfile.readline()))).encode() + b"\n")

        self._server = socketserver.ThreadingUnixStreamServer(str(place / "socket"), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        command = self._commands / "cryoplug"
        command.write_text(_COMMAND.format(python=sys.executable, socket=str(place / "socket")))
        command.chmod(0o755)

    def type(self, script: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Let bash run a script in a folder; the first command that fails ends it."""
        search = f"{self._commands}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder,
            env={**os.environ, "PATH": search, "HOME": str(folder)},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def python(self, program: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run Python code in a folder."""
        start = self._program.rpartition("from cryoplug.cli")[0]
        child = self._warm_start.start(program=start + program, folder=folder)
        stdout, stderr = child.communicate(MOST_SECONDS)
        return subprocess.CompletedProcess(program, child.wait(), stdout, stderr)

    def close(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._server.server_close()

    def _run(self, words: list[str], folder: str, environment: dict[str, str]) -> dict[str, object]:
        with self._starting:  # two commands of a pipe ask at once
            child = self._warm_start.start(
                *smaller(words), program=self._program, folder=Path(folder), environment=environment
            )
        stdout, stderr = child.communicate(MOST_SECONDS)
        return {"code": child.wait() % 256, "stdout": stdout, "stderr": stderr}


def smaller(words: list[str]) -> list[str]:
    """Replace the numbers that only cost time; what follows an option that is not there stays."""
    return [SMALLER.get(before, word) for before, word in zip(["", *words], words, strict=False)]


def lay_out_project(reader: Reader, folder: Path) -> None:
    """Make the project that the pages speak of: micrographs with their halves, in the folders of RELION and of cryoSPARC.

    Four micrographs of 384 x 384 pixels at 2.6 A/px, simulated.
    """
    made = reader.type("cryoplug simulate -o simulated --count 4 --size 384 --dose 60 --seed 3", folder)
    assert made.returncode == 0, made.stderr
    motion = folder / "MotionCorr" / "job002" / "Movies"
    motion.mkdir(parents=True)
    (folder / "Micrographs").mkdir()
    for path in sorted((folder / "simulated" / "noisy").glob("*.mrc")):
        shutil.copy(path, folder / "Micrographs")
        shutil.copy(path, motion)
        for half, ending in (("even", "EVN"), ("odd", "ODD")):
            shutil.copy(folder / "simulated" / half / path.name, motion / f"{path.stem}_{ending}.mrc")
            shutil.copy(folder / "simulated" / half / path.name, folder / "Micrographs" / f"{path.stem}_{ending}.mrc")
    listed = (folder / "simulated" / "micrographs.star").read_text()
    for star in ("MotionCorr/job002/corrected_micrographs.star", "CtfFind/job003/micrographs_ctf.star"):
        (folder / star).parent.mkdir(parents=True, exist_ok=True)
        (folder / star).write_text(listed.replace("simulated/noisy/", "MotionCorr/job002/Movies/"))
    _lay_out_cryosparc(folder)
    shutil.rmtree(folder / "simulated")


def _lay_out_cryosparc(folder: Path) -> None:
    import numpy as np

    job = folder / "J12"
    (job / "motioncorrected").mkdir(parents=True)
    paths = sorted(shutil.copy(path, job / "motioncorrected") for path in (folder / "Micrographs").glob("mic_????.mrc"))
    fields = [
        ("uid", "<u8"),
        ("micrograph_blob/path", "S60"),
        ("micrograph_blob/psize_A", "<f4"),
        ("micrograph_blob/idx", "<u4"),
    ]
    rows = [(number, f"J12/motioncorrected/{Path(path).name}".encode(), 2.6, 0) for number, path in enumerate(paths, 1)]
    with open(job / "micrographs.cs", "wb") as stream:
        np.save(stream, np.array(rows, dtype=fields), allow_pickle=False)
