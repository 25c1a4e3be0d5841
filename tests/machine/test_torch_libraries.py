"""torch's libraries are loaded before torch is imported, and never where it is not needed."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from cryoplug.machine import torch_libraries

LOOK = """
import sys, threading
from cryoplug.machine.torch_libraries import load_ahead
{before}
load_ahead()
for thread in threading.enumerate():
    if thread is not threading.current_thread(): thread.join()
maps = open("/proc/self/maps").read()
assert ("libtorch_python" in maps) == {loaded}, maps
assert "torch" not in sys.modules
import torch
assert torch.ones(3).sum() == 3
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("before", "loaded"),
    [
        ("import os; os.sched_getaffinity = lambda pid: {0, 1}", True),
        ("import os; os.sched_getaffinity = lambda pid: {0}", False),
        (
            "import os, pathlib; os.sched_getaffinity = lambda pid: {0, 1}; pathlib.Path.__truediv__ = lambda a, b: a",
            False,
        ),
    ],
)
def test_the_libraries_are_loaded_and_torch_is_not_imported(before: str, loaded: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOOK.format(before=before, loaded=loaded)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_nothing_is_begun_when_torch_is_there() -> None:
    import torch  # noqa: F401

    before = threading.active_count()
    torch_libraries.load_ahead()
    assert threading.active_count() == before
