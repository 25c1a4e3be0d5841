"""The denoise protocol while micrographs are being taken: growth, kill -9, Continue, Stop."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

from scipion_here import Denoise, Session, contents, is_alive, wait_for


class Microscope:
    """A folder into which micrographs come one by one, and the protocol that imports them."""

    def __init__(self, session: Session, raw: Path, folder: Path) -> None:
        self._files = sorted(raw.glob("*.mrc"))
        self.folder = folder
        self.folder.mkdir()
        self.take()
        self.session = session
        self.imported = session.stream(folder)
        self.has_imported(1)

    def take(self) -> None:
        """Take the next micrograph."""
        shutil.copy(self._files[len(list(self.folder.iterdir()))], self.folder)

    def has_imported(self, count: int) -> None:
        """Wait until Scipion has so many."""
        wait_for(lambda: len(contents(self.imported)[0]) >= count, f"{count} imported micrographs")
        self.session.project._updateProtocol(self.imported)

    def stop(self) -> None:
        """End the session."""
        self.session.close_stream(self.imported)


def _denoised(protocol: Any, count: int) -> None:
    wait_for(lambda: len(contents(protocol)[0]) >= count, f"{count} denoised micrographs")


def _workers(protocol: Any) -> list[int]:
    """Give the cryoplug process that denoised each micrograph."""
    lines = Path(protocol._getExtraPath("denoised", "denoise.jsonl")).read_text().splitlines()
    return [record["pid"] for record in map(json.loads, lines) if record["status"] == "done"]


def _finished(session: Session, protocol: Any) -> None:
    wait_for(lambda: session.status(protocol) in ("finished", "failed"), "the end of the protocol")
    assert protocol.isFinished(), protocol.getErrorMessage()


def test_the_output_grows_with_the_input_and_closes_after_it(session: Session, raw: Path, tmp_path: Path) -> None:
    microscope = Microscope(session, raw, tmp_path / "session one")
    protocol = session.run(
        Denoise, {"inputMicrographs": (microscope.imported, "outputMicrographs")}, wait=False, poll=0.5
    )
    for count in (1, 2, 3):
        _denoised(protocol, count)
        assert contents(protocol)[1], "the output closed while micrographs were still coming"
        assert session.status(microscope.imported) == "running"
        if count < 3:
            microscope.take()
    assert len(set(_workers(protocol))) == 1, "each micrograph had a process of its own"
    microscope.stop()
    _finished(session, protocol)
    items, is_open = contents(protocol)
    assert [item.getMicName() for item in items] == ["mic0001.mrc", "mic0002.mrc", "mic0003.mrc"]
    assert not is_open
    assert Path(protocol.report()).is_file()


def test_killed_continued_stopped_and_continued_again(session: Session, raw: Path, tmp_path: Path) -> None:
    microscope = Microscope(session, raw, tmp_path / "session two")
    protocol = session.run(
        Denoise, {"inputMicrographs": (microscope.imported, "outputMicrographs")}, wait=False, poll=0.5
    )
    _denoised(protocol, 1)
    first = Path(contents(protocol)[0][0].getFileName())
    made = first.stat().st_mtime_ns
    os.kill(session.pid(protocol), signal.SIGKILL)
    (worker,) = _workers(protocol)
    wait_for(lambda: not is_alive(worker), "cryoplug to end with the protocol that was killed")

    microscope.take()
    microscope.has_imported(2)
    session.go_on(protocol, wait=False)
    _denoised(protocol, 2)
    worker = _workers(protocol)[-1]
    session.pid(protocol)
    session.project.stopProtocol(protocol)
    wait_for(lambda: not is_alive(worker), "cryoplug to end with the protocol that was stopped")
    assert session.status(protocol) == "aborted"
    assert not contents(protocol)[1]

    microscope.take()
    microscope.has_imported(3)
    microscope.stop()
    wait_for(lambda: session.status(microscope.imported) == "finished", "the end of the import")
    session.go_on(protocol)
    assert protocol.isFinished(), protocol.getErrorMessage()
    items, is_open = contents(protocol)
    assert [item.getMicName() for item in items] == ["mic0001.mrc", "mic0002.mrc", "mic0003.mrc"]
    assert not is_open
    assert first.stat().st_mtime_ns == made, "a finished micrograph was denoised again"
    assert len(_workers(protocol)) == 3
