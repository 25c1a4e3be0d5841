"""How many processes share a GPU, and what each of them is asked to do.

One process cannot keep a large GPU busy: all its threads share Python's lock, and a file needs it hundreds of times. On an
H200 one process did 161 files of 512 x 512 in a second, four did 633.
"""

from __future__ import annotations

import os
from dataclasses import replace

from cryoplug.machine.gpu_facts import gpu_facts
from cryoplug.workflows.denoise.request import DenoiseRequest

MOST = 4
"""Most processes on a GPU, if nobody asks for more."""
FILES_EACH = 500
"""Micrographs for which there is another process: several begin 3 seconds later than one does, which must come back."""
CORES_EACH = 4
"""Cores for which there is another process: it has readers and writers of its own."""
MEMORY_EACH_BYTES = 16 << 30
"""Memory of the GPU for which there is another process: a context, the network's maps, and micrographs under way."""


def requests_for(request: DenoiseRequest, files: int, *, by_itself: bool) -> list[DenoiseRequest]:
    """Give the request of each process: no STAR file, no page; the process that waits for them writes both.

    Parameters
    ----------
    request
        The request of the run.
    files
        Number of micrographs to denoise.
    by_itself
        Whether more than one process on a GPU may be chosen, if the request does not say how many.

    Returns
    -------
    list
        One request means: no other process is needed.
    """
    cores = len(os.sched_getaffinity(0))
    gpus = request.gpu or _one_gpu(request.device)
    places = max(1, len(gpus))
    if request.processes is not None or not by_itself or request.watch:
        each = [request.processes or 1] * len(gpus)
    else:
        each = [_that_pay(number, files // places, cores // places) for number in gpus]
    count = sum(each)
    if count < 2:
        return [request]
    own = replace(request, star=None, report=None, threads=request.threads or max(1, cores // count), processes=1)
    return [
        replace(own, gpu=(number,) if request.gpu else ())
        for number, many in zip(gpus, each, strict=True)
        for _ in range(many)
    ]


def _one_gpu(device: str) -> tuple[int, ...]:
    """Give the number of the GPU that a device names; ``auto`` names the first one, if there is one."""
    return () if device == "cpu" else (int(device.partition(":")[2] or 0),)


def _that_pay(gpu: int, files: int, cores: int) -> int:
    """Choose the number of processes on one GPU."""
    wanted = min(MOST, files // FILES_EACH, cores // CORES_EACH)
    facts = gpu_facts(gpu) if wanted > 1 else None
    if facts is None or not facts.for_several:
        return 1
    return max(1, min(wanted, facts.memory_bytes // MEMORY_EACH_BYTES))
