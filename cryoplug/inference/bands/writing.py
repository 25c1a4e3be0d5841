"""The pipeline's last thread: convert bands back to grey values and write them as MRC files."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator

import numpy as np

from cryoplug.core.mean_kept import mean_shift
from cryoplug.core.remarks import joined
from cryoplug.core.statistics import moments_of
from cryoplug.disk.atomic import atomic_file, storage_errors
from cryoplug.errors import PixelError
from cryoplug.formats.mrc import MrcRowWriter
from cryoplug.inference.bands.sections import StackRemarks
from cryoplug.inference.delivery import Delivery
from cryoplug.inference.messages import Begin, DenoiseResult, End, Failed, Message, Rows, Sections
from cryoplug.inference.remarks import remarks_on_writing
from cryoplug.machine.channel import Channel, Closed


def write_all(messages: Channel[Message], delivery: Delivery) -> bool:
    """Write every file that arrives; return whether every file that was begun is complete."""
    stream = messages.messages()
    try:
        for message in stream:
            if isinstance(message, Begin):
                delivery.begin(message.job)
                result = _write_one(message, stream, delivery.label, delivery.dtype)
                if result is None:
                    return False
                delivery.finish(message.job, result)
            elif isinstance(message, Failed):
                delivery.finish(message.job, failure(message))
        return not messages.aborted
    finally:
        # Also frees a compute thread that waits for room.
        messages.abort()
        messages.close()


def _write_one(start: Begin, messages: Iterator[Message], label: str, dtype: str) -> DenoiseResult | None:
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
                dtype=dtype,
                sections=start.sections,
            )
            # Rounded once: what may still have to be shifted is not rounded to float16 before.
            if start.sections > 1:
                end, shift = _copy_sections(writer, start, messages), 0.0
            else:
                end, shift = _copy_rows(writer, start, messages, hold=start.grid is not None or dtype != "float32")
            writer.finish()
    except _AtItsEnd as error:
        return failure(error.failed, start.shape)
    except PixelError as error:
        # What is still under way of this file must not be taken for the next one's.
        rest = next((message for message in messages if isinstance(message, (End, Failed))), None)
        return None if rest is None else failure(Failed(job, start.started, error), start.shape)
    except Closed:
        return None
    return DenoiseResult(
        job.source,
        "done",
        job.target,
        remarks_on_writing(
            end.message,
            mean_shift=end.mean_shift + shift,
            sigma=end.sigma_seen,
            rounding_rms=writer.rounding_rms,
            sigma_written=writer.std,
            no_particles=end.no_particles,
        ),
        time.perf_counter() - start.started,
        shape=start.shape,
        sections=start.sections,
        pixel_size_angstrom=start.pixel_size_angstrom,
        pixel_size=start.pixel_size,
        sigma_in=end.sigma_in if math.isfinite(end.sigma_in) else None,
        sigma_out=writer.std,
        hot_pixels=end.hot_pixels,
        bad_border=end.bad_border,
        mean_shift=end.mean_shift + shift,
    )


def _copy_rows(writer: MrcRowWriter, start: Begin, messages: Iterator[Message], *, hold: bool) -> tuple[End, float]:
    """Write all rows; give the last message, and the value added to keep the mean."""
    grid = start.grid
    shape = start.shape if grid is None else grid.network_shape
    denoised = np.empty(shape, np.float32) if hold else None
    for message in messages:
        if isinstance(message, Rows):
            rows = start.to_grey_values.invert(message.pixels)
            if denoised is None:
                writer.write_rows(rows)
            else:
                denoised[message.band.paste.slices] = rows
        elif isinstance(message, End):
            try:
                return message, _finish_rows(writer, start, denoised, message)
            except PixelError as error:
                raise _AtItsEnd(Failed(start.job, start.started, error)) from error
        elif isinstance(message, Failed):
            raise _AtItsEnd(message)
    raise Closed


def _copy_sections(writer: MrcRowWriter, start: Begin, messages: Iterator[Message]) -> End:
    """Write all sections of a stack; give the last message, with the results of the sections."""
    remarks = StackRemarks(start.sections)
    for message in messages:
        if isinstance(message, Sections):
            writer.write_rows(message.pixels.reshape(-1, message.pixels.shape[2]))
            remarks.add(message)
        elif isinstance(message, End):
            try:
                remarks.check_any(start.job.source)
            except PixelError as error:
                raise _AtItsEnd(Failed(start.job, start.started, error)) from error
            said = joined((*remarks.sentences(), message.message))
            return dataclasses.replace(
                message, message=said, hot_pixels=remarks.hot_pixels, bad_border=remarks.bad_border
            )
        elif isinstance(message, Failed):
            raise _AtItsEnd(message)
    raise Closed


def _finish_rows(writer: MrcRowWriter, start: Begin, denoised: np.ndarray | None, end: End) -> float:
    """Write the rows that need the whole image, and keep the mean; give the value added for that."""
    if denoised is None:
        # All is in the file already: it is not held in memory, so the file is gone through once more if need be.
        shift = mean_shift(end.seen, writer.mean)
        if shift:
            writer.shift(shift)
        return shift
    shift = mean_shift(end.seen, moments_of(denoised).mean)
    if shift:
        denoised += np.float32(shift)
    for rows in (denoised,) if start.grid is None else start.grid.finish(denoised, start.raw):
        writer.write_rows(rows)
    return shift


class _AtItsEnd(Exception):
    """A file failed after its last message; nothing of it may stay, and the next message belongs to the next file."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(str(failed.error))
        self.failed = failed


def failure(failed: Failed, shape: tuple[int, int] | None = None) -> DenoiseResult:
    """Give the result of a failed micrograph."""
    error = failed.error
    seconds = time.perf_counter() - failed.started
    return DenoiseResult(failed.job.source, "failed", None, str(error), seconds, error.exit_code, shape=shape)
