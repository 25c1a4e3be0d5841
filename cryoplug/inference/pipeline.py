"""Read, compute and write at the same time: bands of rows travel through bounded queues, file after file.

::

    reader thread                      calling thread           writer thread
    open, measure, normalise, read  -> network, band by band -> grey values, MRC rows, rename

A band is about 2 MB and few are under way, so memory depends neither on the size of a micrograph nor on their number.
The reader measures the next micrograph while the last one is computed and written.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from cryoplug.core.atomic import atomic_file, storage_errors
from cryoplug.core.micrograph import ImageF32, MicrographSource
from cryoplug.core.normalization import Normalization, fit_normalization
from cryoplug.core.results import FileResult
from cryoplug.core.tiling import Tile
from cryoplug.errors import InputError, StorageError
from cryoplug.formats.mrc import MrcHeader, MrcRowWriter
from cryoplug.formats.registry import open_micrograph

if TYPE_CHECKING:
    from cryoplug.inference.denoiser import Denoiser

T = TypeVar("T")

QUEUE_BANDS = 2
"""Bands that may wait between two threads: one being taken, one ready."""
CLIPPED_WARNING = 0.2
"""Percentile normalization clips 5 % of an ordinary micrograph; beyond this the network sees little of it."""
_POLL_S = 0.1


@dataclass(frozen=True)
class DenoiseJob:
    """One micrograph to denoise."""

    source: Path
    """The file to read."""
    target: Path
    """The MRC file to write; replaced when it exists."""
    pixel_size_angstrom: float | None = None
    """Sampling to write when the header of `source` has none; from a STAR file."""


@dataclass(frozen=True)
class _Begin:
    job: DenoiseJob
    started: float
    shape: tuple[int, int]
    template: MrcHeader | None
    pixel_size_angstrom: float | None
    normalization: Normalization


@dataclass(frozen=True)
class _Rows:
    band: Tile
    pixels: ImageF32


@dataclass(frozen=True)
class _End:
    message: str


@dataclass(frozen=True)
class _Failed:
    job: DenoiseJob
    started: float
    error: InputError | StorageError


_Message = _Begin | _Rows | _End | _Failed


def run_pipeline(
    jobs: Sequence[DenoiseJob],
    denoiser: Denoiser,
    *,
    label: str,
    begin: Callable[[DenoiseJob], None],
    finish: Callable[[DenoiseJob, FileResult], None],
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Denoise micrographs one after another.

    Parameters
    ----------
    jobs
        In order; no target may be the source of another.
    denoiser
        Called from this thread only.
    label
        Text for the label that every written MRC header gets.
    begin
        Called in the writer thread before a file is written.
    finish
        Called in the writer thread, in the order of `jobs`, when a file has its final name or has failed.
    should_stop
        Asked between bands; when it says yes, the file in work is dropped without a trace.

    Returns
    -------
    bool
        Whether all jobs were dealt with; False when `should_stop` ended it.

    Raises
    ------
    StorageError
        Writing failed; the file in work is dropped, nothing more is begun. A source that cannot be read is no reason to
        stop: it is given to `finish` as failed.
    DeviceError
        The device has too little memory or failed.
    """
    incoming: _Channel[_Message] = _Channel(QUEUE_BANDS)
    outgoing: _Channel[_Message] = _Channel(QUEUE_BANDS)
    with ThreadPoolExecutor(2, thread_name_prefix="cryoplug-files") as threads:
        reader = threads.submit(_read_all, jobs, denoiser, incoming)
        writer = threads.submit(_write_all, outgoing, label, begin, finish)
        try:
            for message in incoming.messages(should_stop):
                if isinstance(message, _Rows):
                    message = replace(message, pixels=denoiser.forward(message.pixels, message.band))
                outgoing.put(message)
            if not should_stop():
                outgoing.close()
        except _Closed:
            pass  # the writer gave up; its own error is raised below
        finally:
            incoming.abort()
            outgoing.abort()
        stopped = writer.result() < len(jobs)
        reader.result()
    return not stopped


class _Closed(Exception):
    """The other end of a channel has gone."""


class _Channel(Generic[T]):
    """A bounded queue that either end can shut without leaving the other one waiting."""

    def __init__(self, size: int) -> None:
        self._items: deque[T] = deque()
        self._size = size
        self._closed = False
        self._aborted = False
        self._changed = threading.Condition()

    def put(self, item: T) -> None:
        """Add an item, waiting for room; raise `_Closed` when nobody will take it."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._aborted or len(self._items) < self._size)
            if self._closed or self._aborted:
                raise _Closed
            self._items.append(item)
            self._changed.notify_all()

    def messages(self, should_stop: Callable[[], bool] = lambda: False) -> Iterator[T]:
        """Take items until the channel is closed and empty, or aborted, or `should_stop` says yes."""
        while True:
            with self._changed:
                # A signal handler runs in the main thread only when this wait ends now and then.
                while not (self._items or self._closed or self._aborted or should_stop()):
                    self._changed.wait(_POLL_S)
                if self._aborted or not self._items or should_stop():
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item

    def close(self) -> None:
        """Say that nothing more comes; what is inside is still taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abort(self) -> None:
        """Drop what is inside, unless the channel was closed: then everything in it is still wanted."""
        with self._changed:
            if not self._closed:
                self._aborted = True
                self._items.clear()
            self._changed.notify_all()


def _read_all(jobs: Sequence[DenoiseJob], denoiser: Denoiser, out: _Channel[_Message]) -> None:
    try:
        for job in jobs:
            started = time.perf_counter()
            try:
                with open_micrograph(job.source) as source:
                    _read_one(job, source, denoiser, out, started=started)
            except (InputError, StorageError) as error:
                out.put(_Failed(job, started, error))
    except _Closed:
        pass
    finally:
        out.close()


def _read_one(
    job: DenoiseJob, source: MicrographSource, denoiser: Denoiser, out: _Channel[_Message], *, started: float
) -> None:
    normalization = fit_normalization(source, denoiser.normalize)
    header = getattr(source, "header", None)
    known = source.pixel_size_angstrom
    out.put(
        _Begin(
            job,
            started,
            shape=source.shape,
            template=header if isinstance(header, MrcHeader) else None,
            pixel_size_angstrom=job.pixel_size_angstrom if known is None else known,
            normalization=normalization,
        )
    )
    clipped = 0
    for band in denoiser.bands(source.shape):
        rows = source.read_rows(band.read.y0, band.read.y1)
        clipped += _count_clipped(rows[band.crop.y0 : band.crop.y1], normalization)
        out.put(_Rows(band, normalization.apply(rows)))
    out.put(_End("; ".join(_warnings(job, source, normalization, clipped / (source.shape[0] * source.shape[1])))))


def _count_clipped(rows: np.ndarray, normalization: Normalization) -> int:
    if normalization.kind != "percentile":
        return 0
    low, high = normalization.offset, normalization.offset + normalization.scale
    return int(np.count_nonzero(rows < low)) + int(np.count_nonzero(rows > high))


def _warnings(job: DenoiseJob, source: MicrographSource, normalization: Normalization, clipped: float) -> Iterator[str]:
    yield from source.warnings
    header, given = source.pixel_size_angstrom, job.pixel_size_angstrom
    if header is not None and given is not None and abs(header - given) > 0.01 * given:
        yield f"the header says {header:g} A/px, the STAR file {given:g}; the header's was kept"
    if normalization.kind == "percentile" and clipped > CLIPPED_WARNING:
        yield (
            f"percentile normalization clips {100 * clipped:.0f} % of the pixels, which are lost; "
            "use --normalize zscore, with a checkpoint trained so"
        )


def _write_all(
    messages: _Channel[_Message],
    label: str,
    begin: Callable[[DenoiseJob], None],
    finish: Callable[[DenoiseJob, FileResult], None],
) -> int:
    """Write every file that comes; return how many were dealt with."""
    count = 0
    stream = messages.messages()
    try:
        for message in stream:
            if isinstance(message, _Begin):
                begin(message.job)
                result = _write_one(message, stream, label)
                if result is None:
                    break
                finish(message.job, result)
            elif isinstance(message, _Failed):
                finish(message.job, _failure(message))
            count += 1
    finally:
        # Also frees a compute thread that waits for room.
        messages.abort()
        messages.close()
    return count


def _write_one(start: _Begin, messages: Iterator[_Message], label: str) -> FileResult | None:
    """Write one file; None when the stream ended before the file did."""
    job = start.job
    try:
        with atomic_file(job.target) as stream, storage_errors(job.target):
            writer = MrcRowWriter(
                stream,
                start.shape,
                template=start.template,
                pixel_size_angstrom=start.pixel_size_angstrom,
                label=label,
                path=job.target,
            )
            message = _copy_rows(writer, start.normalization, messages)
            writer.finish()
    except _SourceError as error:
        return _failure(error.failed)
    except _Closed:
        return None
    return FileResult(job.source, "done", job.target, message, time.perf_counter() - start.started)


def _copy_rows(writer: MrcRowWriter, normalization: Normalization, messages: Iterator[_Message]) -> str:
    for message in messages:
        if isinstance(message, _Rows):
            writer.write_rows(normalization.invert(message.pixels))
        elif isinstance(message, _End):
            return message.message
        elif isinstance(message, _Failed):
            raise _SourceError(message)
    raise _Closed


class _SourceError(Exception):
    """The source broke while it was read: nothing of it may stay."""

    def __init__(self, failed: _Failed) -> None:
        super().__init__(str(failed.error))
        self.failed = failed


def _failure(failed: _Failed) -> FileResult:
    error = failed.error
    seconds = time.perf_counter() - failed.started
    return FileResult(failed.job.source, "failed", None, str(error), seconds, error.exit_code)
