"""``cryoplug denoise`` that stands still after its first micrograph, once for each task, until it is asked to end.

So a test knows where a task is when it ends it: one micrograph finished and in the journal, others left. The file
``go-on`` lets it go on, too.
"""

import os
import sys
import time
from pathlib import Path

from cryoplug.cli.main import main
from cryoplug.machine.interrupts import Interrupts
from cryoplug.outputs.journal import Journal

TASK = Path(f"stands-{os.environ['SLURM_ARRAY_TASK_ID']}")

_enter, _append = Interrupts.__enter__, Journal.append
running: list[Interrupts] = []


def enter(self: Interrupts) -> Interrupts:
    running.append(self)
    return _enter(self)


def append(self: Journal, *result: object) -> None:
    _append(self, *result)
    if not TASK.exists():
        TASK.with_suffix(".new").write_text(os.environ["SLURMD_NODENAME"])
        TASK.with_suffix(".new").rename(TASK)
        while not Path("go-on").exists() and all(one.stop_signal is None for one in running):
            time.sleep(0.05)


Interrupts.__enter__, Journal.append = enter, append
main(sys.argv[1:])
