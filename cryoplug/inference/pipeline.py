"""Denoise a list of micrographs: choose the road, and read, compute and write at the same time.

A GPU gets whole micrographs, several at a time: `cryoplug.inference.whole.pipeline`. Otherwise bands of rows pass through
bounded queues, one file after another:

::

    reader thread                      calling thread           writer thread
    open, measure, normalise, read  -> network, band by band -> grey values, MRC rows, rename

A band is about 2 MB and few are in memory, so memory depends neither on the size of micrographs nor on their number.
The reader measures the next micrograph while the last one is computed and written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from cryoplug.core.micrograph import ImageF32
from cryoplug.inference.bands.reading import read_all
from cryoplug.inference.bands.sections import denoised_sections
from cryoplug.inference.bands.writing import write_all
from cryoplug.inference.delivery import Delivery
from cryoplug.inference.messages import Begin, DenoiseJob, DenoiseResult, Message, Rows, Sections
from cryoplug.inference.stages import run_stages
from cryoplug.inference.whole.pipeline import run_whole

if TYPE_CHECKING:
    from cryoplug.inference.denoiser import Denoiser
    from cryoplug.machine.channel import Channel

__all__ = ["QUEUE_BANDS", "DenoiseJob", "DenoiseResult", "run_pipeline"]

QUEUE_BANDS = 2
"""Most bands that wait between two threads: one being taken, one ready."""


def run_pipeline(
    jobs: Iterable[DenoiseJob],
    denoiser: Denoiser,
    delivery: Delivery,
    *,
    whole: bool | None = None,
    processes: int = 1,
) -> bool:
    """Denoise micrographs one after another.

    Parameters
    ----------
    jobs
        Jobs in order; no target may be the source of another job. The reader thread asks for the next job, and may wait
        for it.
    denoiser
        The network; called only from this thread. In bands, another pixel size needs a micrograph on the network's grid
        in memory; `strength` and the merging of high frequencies also need the raw one.
    delivery
        How results are written and reported.
    whole
        Whether to compute micrographs as a whole, which needs memory for several of them; None: only on a GPU.
        Micrographs that are too large for the device go in bands.
    processes
        Number of processes that denoise on this machine for the same run: they share its cores.

    Returns
    -------
    bool
        Whether all jobs were done; False when ``delivery.should_stop`` ended the run.

    Raises
    ------
    StorageError
        Writing failed; the unfinished file is dropped, and no other is begun. A source that cannot be read does not stop
        the run: it goes to ``delivery.finish`` as failed.
    DeviceError
        The device has too little memory or failed.
    """
    if whole is None:
        whole = denoiser.device.type == "cuda"
    if not whole:
        return _run_in_bands(jobs, denoiser, delivery)
    return run_whole(
        jobs,
        denoiser,
        delivery,
        in_bands=lambda job: _run_in_bands([job], denoiser, delivery),
        processes=processes,
    )


def _run_in_bands(jobs: Iterable[DenoiseJob], denoiser: Denoiser, delivery: Delivery) -> bool:
    should_stop = delivery.should_stop

    def read(out: Channel[Message]) -> None:
        read_all(jobs, denoiser, out, should_stop)

    return run_stages(
        read,
        lambda messages: _computed(messages, denoiser, should_stop),
        lambda results: write_all(results, delivery),
        capacity=(QUEUE_BANDS, QUEUE_BANDS),
        should_stop=should_stop,
        gave_up=delivery.gave_up,
    )


def _computed(messages: Iterable[Message], denoiser: Denoiser, should_stop: Callable[[], bool]) -> Iterator[Message]:
    """Compute messages and pass them on in order; the next band or part of a stack is begun before waiting for the last."""
    under_way: deque[Callable[[], Message]] = deque()
    bands = 1
    with ThreadPoolExecutor(thread_name_prefix="cryoplug-sections") as pool:
        for message in messages:
            at_once = 0
            if isinstance(message, Begin):
                shape = message.shape if message.grid is None else message.grid.network_shape
                bands = denoiser.bands_at_once(shape)
            elif isinstance(message, Rows):
                at_once = bands
                finish = denoiser.start(message.pixels, message.band, should_stop)
                under_way.append(partial(_finished, message, finish))
            elif isinstance(message, Sections):
                assert message.grid is not None
                at_once = denoiser.sections_at_once(message.grid.network_shape)
                compute = partial(denoised_sections, message, denoiser, should_stop)
                under_way.append(compute if at_once == 1 else pool.submit(compute).result)
            while under_way and len(under_way) >= at_once:
                yield under_way.popleft()()
            if not at_once:
                yield message


def _finished(rows: Rows, finish: Callable[[], ImageF32]) -> Rows:
    return replace(rows, pixels=finish())
