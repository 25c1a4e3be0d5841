"""Reads paths that come on standard input, each in a fork, and answers with error, time and peak memory."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from cryoplug.core.results import to_json
from cryoplug.errors import CryoplugError
from cryoplug.formats.cs import cs_images
from cryoplug.formats.registry import format_of, open_micrograph
from cryoplug.formats.star import image_table, read_star
from cryoplug.models.checkpoint import load_checkpoint
from cryoplug.store import hdf5
from cryoplug.store.pairs import open_store
from cryoplug.workflows.inspect import inspect_path

_ = hdf5, __import__("safetensors.numpy")  # imported once, before anything is measured


def _image(path: Path) -> Any:
    with open_micrograph(path) as source:
        for start in range(0, source.shape[0], 64):
            source.read_rows(start, min(start + 64, source.shape[0]))
        return source.shape


def _store(path: Path) -> Any:
    with open_store(path) as store:
        return store.count()


ACTIONS = {
    "image": _image,
    "validate": lambda path: [item.message for item in format_of(path).validate(path)],
    "star": lambda path: len(image_table(read_star(path), "either").names),
    "cs": lambda path: len(cs_images(path, "either")),
    "store": _store,
    "checkpoint": lambda path: load_checkpoint(path).model_id,
    "inspect": lambda path: to_json(inspect_path(path)),
}


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _work_s() -> float:
    """Give the processor time of this process and those that it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _measured(action: str, path: Path) -> dict[str, Any]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory starts again from here
    before, start, work = _status_bytes("VmRSS"), time.perf_counter(), _work_s()
    error: Exception | None = None
    try:
        message = json.dumps(ACTIONS[action](path))
    except CryoplugError as caught:
        error, message = caught, str(caught)
    except Exception as caught:  # noqa: BLE001 - the test says which ones are allowed
        error, message = caught, traceback.format_exc()
    seconds, work_s = time.perf_counter() - start, _work_s() - work
    grown = _status_bytes("VmHWM") - before
    kind = None if error is None else type(error).__name__
    is_ours = isinstance(error, CryoplugError)
    return {"error": kind, "is_ours": is_ours, "message": message, "seconds": seconds, "work_s": work_s, "bytes": grown}


def main() -> None:
    for line in sys.stdin:
        action, path = json.loads(line)
        receiver, sender = os.pipe()
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            with os.fdopen(sender, "w") as stream:
                stream.write(json.dumps(_measured(action, Path(path))))
            os._exit(0)
        os.close(sender)
        with os.fdopen(receiver) as stream:
            answer = stream.read()
        _, status = os.waitpid(child, 0)
        dead = {
            "error": f"status {status}",
            "is_ours": False,
            "message": "died",
            "seconds": 30.0,
            "work_s": 30.0,
            "bytes": 0,
        }
        print(answer or json.dumps(dead), flush=True)


main()
