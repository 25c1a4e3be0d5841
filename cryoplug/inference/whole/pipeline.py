"""Several whole micrographs at a time, for a GPU: readers, one computing thread, writers.

::

    reader threads                                      calling thread     writer threads
    open, read, copy to the GPU, Fourier-crop if     -> network, back  -> header and pixels, rename
    asked, measure, normalise

Before it waits for a micrograph, the calling thread queues the next one, so that the device is never idle. Number and bytes of
all buffers are limited. A micrograph that is too large goes through the pipeline of bands, while readers and writers go on.
Results come in the order of completion.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cryoplug.core.micrograph import MicrographSource, row_bands
from cryoplug.disk.atomic import atomic_file, storage_errors
from cryoplug.errors import InputError, PixelError, SeveralImagesError, StorageError, UsageError
from cryoplug.formats.mrc import MrcHeader, check_float16_range, mrc_head
from cryoplug.inference.bands.reading import open_source
from cryoplug.inference.bands.writing import failure
from cryoplug.inference.delivery import Delivery
from cryoplug.inference.messages import DenoiseJob, DenoiseResult, Failed
from cryoplug.inference.remarks import remarks_on_reading, remarks_on_writing
from cryoplug.machine.channel import Channel, Closed
from cryoplug.machine.devices import Interrupted, OutOfDeviceMemory, device_errors, free_cached_memory

if TYPE_CHECKING:
    import torch

    from cryoplug.inference.denoiser import Denoiser
    from cryoplug.inference.whole.computing import Computed, Computer
    from cryoplug.inference.whole.preparing import Prepared, Preparer

BUFFER_BYTES = 1 << 30
"""Most bytes of host memory for all readers' buffers, and again for all writers'; one large micrograph may have more."""
READ_BYTES = 16 << 20
"""Bytes to read between two checks for a stop."""


@dataclass(frozen=True)
class Threads:
    """Numbers of reader and writer threads beside the computing thread."""

    readers: int
    """Number of readers; each holds one micrograph."""
    writers: int
    """Number of writers; each holds one result."""

    @classmethod
    def for_cores(cls, cores: int, processes: int = 1) -> Threads:
        """Choose for a machine. On 16 cores, one thread reads 3.9 and writes 2.1 GB/s of a RAM disk; eight reach 23 and 13.

        Most of a reader's and a writer's time is waiting: for the device, for a copy in the system, for Python's lock. The
        fewer threads a process has, the less it waits for that lock: where several processes share the cores, all of them
        together have little more threads than one would have.
        """
        half = cores // processes // 2
        return cls(readers=max(1, min(6, 8 // processes, half)), writers=max(2, min(9, 12 // processes, half)))


@dataclass(frozen=True)
class TooLarge:
    """A micrograph that is too large to go as a whole."""

    job: DenoiseJob
    """The job."""


def run_whole(
    jobs: Iterable[DenoiseJob],
    denoiser: Denoiser,
    delivery: Delivery,
    *,
    in_bands: Callable[[DenoiseJob], bool],
    threads: Threads | None = None,
    processes: int = 1,
) -> bool:
    """Denoise micrographs, several at a time; raise what `run_pipeline` raises, the first error of all threads.

    Parameters
    ----------
    jobs, denoiser, delivery
        As for `cryoplug.inference.pipeline.run_pipeline`, except that ``begin`` and ``finish`` are called from several
        threads, and in the order of completion. After a stop, results that are being written become whole files; what
        was only read or computed is dropped.
    in_bands
        Denoises one micrograph in bands, and returns whether it was finished.
    threads
        Numbers of threads; None: chosen automatically.
    processes
        Number of processes that share the cores of this machine.

    Returns
    -------
    bool
        Whether all jobs were done; False when ``delivery.should_stop`` ended the run.
    """
    from cryoplug.inference.whole.computing import Computer
    from cryoplug.inference.whole.preparing import Preparer
    from cryoplug.machine.streams import Streams

    threads = threads or Threads.for_cores(len(os.sched_getaffinity(0)), processes)
    streams, thumbnails = Streams(denoiser.device), delivery.look is not None
    preparer = Preparer(denoiser, streams, thumbnails=thumbnails)
    computer = Computer(denoiser, streams, delivery.dtype, thumbnails=thumbnails)
    run = _Run(jobs, denoiser, preparer, computer, delivery, in_bands, threads)
    with ThreadPoolExecutor(threads.readers + threads.writers, thread_name_prefix="cryoplug-files") as pool:
        for _ in range(threads.readers):
            pool.submit(run.read)
        for _ in range(threads.writers):
            pool.submit(run.write)
        # An error of any thread is in `errors`, this one's included.
        with contextlib.suppress(BaseException):
            complete = run.compute()
    if run.errors:
        raise run.errors[0]
    return complete


class _Run:
    def __init__(
        self,
        jobs: Iterable[DenoiseJob],
        denoiser: Denoiser,
        preparer: Preparer,
        computer: Computer,
        delivery: Delivery,
        in_bands: Callable[[DenoiseJob], bool],
        threads: Threads,
    ) -> None:
        from cryoplug.machine.pinned import PinnedBuffers

        self.errors: list[BaseException] = []
        self._jobs, self._denoiser = iter(jobs), denoiser
        self._preparer, self._computer = preparer, computer
        self._delivery, self._in_bands = delivery, in_bands
        self._incoming: Channel[Prepared | Failed | TooLarge] = Channel(1)
        self._outgoing: Channel[Computed | Failed] = Channel(threads.writers)
        self._inputs = PinnedBuffers(most=threads.readers, most_bytes=BUFFER_BYTES, device=denoiser.device)
        # Two more than there are writers: one is computed, one is queued, while each of them has its own.
        self._results = PinnedBuffers(most=threads.writers + 2, most_bytes=BUFFER_BYTES, device=denoiser.device)
        self._lock = threading.Lock()
        self._jobs_lock = threading.Lock()
        self._readers = threads.readers
        self._queued: tuple[Prepared, Computed] | None = None

    def read(self) -> None:
        """Load micrographs until there are no more: one of the reader threads."""
        try:
            for job in self._taken_jobs():
                started = time.perf_counter()
                message: Prepared | Failed | TooLarge
                try:
                    with open_source(job) as source:
                        message = self._prepare(job, source, started)
                except SeveralImagesError:
                    message = TooLarge(job)  # a stack goes through the other pipeline, too
                except (InputError, StorageError, UsageError) as error:
                    message = Failed(job, started, error)
                self._incoming.put(message)
        except Closed:
            pass
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            with self._lock:
                self._readers -= 1
                if not self._readers:
                    self._incoming.close()

    def compute(self) -> bool:
        """Compute loaded micrographs in the calling thread until the end or a stop; return whether the end was reached."""
        complete = False
        try:
            for message in self._incoming.messages(self._delivery.should_stop):
                if isinstance(message, TooLarge):
                    self._compute_in_bands(message.job)
                elif isinstance(message, Failed):
                    self._outgoing.put(message)
                else:
                    self._compute_one(message)
                if self._incoming.is_empty:
                    self._hand_on()
            if not self._delivery.should_stop() and not self.errors:
                self._outgoing.close()
                complete = True
        except (Closed, Interrupted):
            pass  # another thread gave up and left its error, or a stop was asked for
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            self._abort()
        return complete

    def write(self) -> None:
        """Write results until there are no more: one of the writer threads."""
        try:
            for message in self._outgoing.messages():
                if isinstance(message, Failed):
                    self._delivery.finish(message.job, failure(message))
                    continue
                job = message.measured.job
                self._delivery.begin(job)
                result = self._write_one(message)
                self._results.give_back(message.buffer)
                both = message.before_after()
                if self._delivery.look is not None and both is not None and result.status == "done":
                    self._delivery.look(job, both, message.measured.plan.pixel_size_angstrom)
                self._delivery.finish(job, result)
        except BaseException as error:
            self._fail(error)
            raise

    def _taken_jobs(self) -> Iterator[DenoiseJob]:
        while True:
            with self._jobs_lock:
                job = None if self._given_up() else next(self._jobs, None)
            if job is None:
                return
            yield job

    def _prepare(self, job: DenoiseJob, source: MicrographSource, started: float) -> Prepared | TooLarge:
        known = job.known_pixel_size(source.pixel_size_angstrom)
        plan = self._denoiser.regrid.plan(source.shape, known.angstrom, path=source.path)
        if not self._preparer.takes(plan):
            return TooLarge(job)
        dtype = source.stored_dtype or np.dtype(np.float32)
        size_bytes = source.shape[0] * source.shape[1] * dtype.itemsize
        buffer = self._inputs.take(size_bytes)
        try:
            self._fill(buffer, source, dtype)
            return self._preparer.prepare(buffer[:size_bytes], dtype, source, job=job, started=started, plan=plan)
        except OutOfDeviceMemory:
            return TooLarge(job)
        finally:
            self._inputs.give_back(buffer)

    def _fill(self, buffer: torch.Tensor, source: MicrographSource, dtype: np.dtype) -> None:
        height, width = source.shape
        if source.stored_dtype is None:
            pixels = buffer.numpy()[: height * width * 4].view(np.float32).reshape(height, width)
            for start, rows in row_bands(source):
                self._check_wanted()
                pixels[start : start + len(rows)] = rows
            return
        row_bytes = width * dtype.itemsize
        step, view = max(1, READ_BYTES // row_bytes), buffer.numpy().data
        for start in range(0, height, step):
            self._check_wanted()
            source.read_stored(start, min(start + step, height), view[start * row_bytes :])

    def _compute_one(self, prepared: Prepared) -> None:
        """Queue a micrograph, and hand on the one before it."""
        size_bytes = self._computer.written_bytes(prepared.measured.plan.written_shape)
        if not self._results.has(size_bytes):
            self._hand_on()
        target = self._results.take(size_bytes)
        queued = self._computed(prepared, target)
        self._hand_on()
        self._queued = None if queued is None else (prepared, queued)

    def _hand_on(self) -> None:
        """Wait for the micrograph that is queued, and give it to the writers."""
        if self._queued is None:
            return
        (prepared, computed), self._queued = self._queued, None
        with device_errors():
            computed.wait()
        if not computed.fits:
            again = self._computed(prepared, computed.buffer, again=True)
            if again is None:
                return
            computed = again
        self._outgoing.put(computed)

    def _computed(self, prepared: Prepared, target: torch.Tensor, *, again: bool = False) -> Computed | None:
        """Compute a micrograph; if memory runs out, compute it in bands and return None."""
        try:
            return self._computer.compute(prepared, target, self._delivery.should_stop, again=again)
        except OutOfDeviceMemory:
            pass
        # Only here, when the error and all that it held on to is gone.
        self._results.give_back(target)
        self._compute_in_bands(prepared.measured.job)
        return None

    def _compute_in_bands(self, job: DenoiseJob) -> None:
        self._hand_on()
        self._computer.forget_recording()
        free_cached_memory(self._denoiser.device)
        if not self._in_bands(job):
            raise Interrupted

    def _write_one(self, computed: Computed) -> DenoiseResult:
        measured, job, source = computed.measured, computed.measured.job, computed.measured.source
        with device_errors():
            computed.wait()
        statistics, std = computed.statistics(), math.nan
        if statistics is not None:
            std = statistics.std
        try:
            check_float16_range(computed.largest, self._delivery.dtype, job.target)
        except PixelError as error:
            return failure(Failed(job, measured.started, error), source.shape)
        shape = measured.plan.written_shape
        head = mrc_head(
            shape,
            statistics,
            path=job.target,
            template=_header_of(source),
            pixel_size_angstrom=measured.plan.written_angstrom,
            label=self._delivery.label,
            dtype=self._delivery.dtype,
        )
        pixels = computed.buffer.numpy().data[: self._computer.written_bytes(shape)]
        with atomic_file(job.target) as stream, storage_errors(job.target):
            stream.write(head)
            stream.write(pixels)
        before = remarks_on_reading(
            warnings=source.warnings,
            plan=measured.plan,
            checkpoint=self._denoiser.checkpoint,
            grey_values=[measured.grey, *measured.unlike_training],
            repairs=measured.repairs,
        )
        return DenoiseResult(
            job.source,
            "done",
            job.target,
            remarks_on_writing(
                before,
                mean_shift=computed.mean_shift,
                sigma=measured.seen.std if measured.seen else 0.0,
                rounding_rms=computed.rounding_rms,
                sigma_written=std,
                no_particles=measured.no_particles,
            ),
            time.perf_counter() - measured.started,
            shape=shape,
            pixel_size_angstrom=measured.plan.written_angstrom,
            pixel_size=job.known_pixel_size(source.pixel_size_angstrom),
            sigma_in=measured.sigma_in,
            sigma_out=std,
            hot_pixels=len(measured.repairs.hot),
            bad_border=measured.repairs.border.lines,
            mean_shift=computed.mean_shift,
        )

    def _check_wanted(self) -> None:
        if self._given_up():
            raise Closed

    def _given_up(self) -> bool:
        return self._incoming.aborted or self._delivery.should_stop()

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self.errors.append(error)
        self._delivery.gave_up()
        self._abort()

    def _abort(self) -> None:
        for channel in (self._incoming, self._outgoing):
            channel.abort()
        for buffers in (self._inputs, self._results):
            buffers.close()


def _header_of(source: MicrographSource) -> MrcHeader | None:
    header = getattr(source, "header", None)
    return header if isinstance(header, MrcHeader) else None
