"""One pass of a convert over its micrographs: open and measure, cut and write, acknowledge, look at signals."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import numpy as np

from cryoplug.core.pixel_size import PixelSizeRemarks
from cryoplug.core.results import BatchResult, FileResult
from cryoplug.errors import CryoplugError, InputError, Stopped, StorageError
from cryoplug.inputs.movies.gain_of_run import RunGain
from cryoplug.inputs.movies.halves import MovieInput, MovieSummer
from cryoplug.inputs.pair_proof import PairProof
from cryoplug.inputs.pairing import PairedInput
from cryoplug.machine.interrupts import Interrupts
from cryoplug.store.manifest import FailedInput, Manifest, MicrographEntry
from cryoplug.store.pairs import finished_files
from cryoplug.store.writer import StoreWriter
from cryoplug.workflows.convert.ice_probe import IceProbe
from cryoplug.workflows.convert.inputs import ConvertInputs
from cryoplug.workflows.convert.patch_stream import OpenedPair, PatchPair, open_pair, patch_pairs, row_pairs
from cryoplug.workflows.convert.request import ConvertRequest

Progress = Callable[[FileResult], None]
_POOLS = ("convert", "transform")
_MOST_THREADS = 4
"""Most threads: each takes about 45 MB, and convert should stay below 400 MB."""
_POLL_S = 0.2
"""Seconds between two looks at signals, while a micrograph is opened or a movie summed."""


def pick_test_micrographs(count: int, fraction: float, seed: int) -> frozenset[int]:
    """Choose whole micrographs for testing, as a pure function of the arguments.

    Parameters
    ----------
    count
        Number of micrographs.
    fraction
        Part of them, 0 to 1. Above 0, at least one of two is chosen; below 1, at least one is left.
    seed
        Not negative.
    """
    if fraction <= 0 or (count < 2 and fraction < 1):
        return frozenset()
    chosen = count if fraction == 1 else min(max(round(fraction * count), 1), count - 1)
    return frozenset(np.random.default_rng([seed, count]).permutation(count)[:chosen].tolist())


def pick_test_exposures(exposures: Sequence[int], fraction: float, seed: int) -> frozenset[int]:
    """Choose inputs for testing so that no exposure and no stack is on both sides.

    Parameters
    ----------
    exposures
        For each input, the number of its exposure or stack.
    fraction, seed
        As for `pick_test_micrographs`.

    Returns
    -------
    frozenset[int]
        Positions in the list; none if all inputs are of one exposure.
    """
    numbers = list(dict.fromkeys(exposures))
    if len(numbers) == len(exposures):
        return pick_test_micrographs(len(exposures), fraction, seed)
    chosen = {numbers[index] for index in pick_test_micrographs(len(numbers), fraction, seed)}
    return frozenset(index for index, number in enumerate(exposures) if number in chosen)


def _test_pairs(inputs: ConvertInputs, request: ConvertRequest) -> frozenset[int]:
    """Choose pairs for testing, except pairs that are known to fail, because they could leave the test split empty."""
    usable = [place for place, pair in enumerate(inputs.pairs) if pair.problem is None]
    chosen = pick_test_exposures([inputs.exposures[place] for place in usable], request.test_split, request.seed)
    return frozenset(usable[place] for place in chosen)


class ConvertRun:
    """One pass over the micrographs into one writer; errors are those of `cryoplug.workflows.convert.convert`."""

    def __init__(
        self,
        request: ConvertRequest,
        inputs: ConvertInputs,
        writer: StoreWriter,
        progress: Progress,
        interrupts: Interrupts,
    ) -> None:
        self.request = request
        self.inputs = inputs
        self.pairs = inputs.pairs
        self.writer = writer
        self.progress = progress
        self.interrupts = interrupts
        self.files: list[FileResult] = []
        self.failures: list[FailedInput] = []
        self.pixel_sizes = PixelSizeRemarks()
        """Counts differences between sources of the pixel size."""
        self.threads = request.threads or min(len(os.sched_getaffinity(0)), _MOST_THREADS)
        self.test = _test_pairs(inputs, request)

    def run(self, gain: RunGain) -> BatchResult:
        """Convert all micrographs, and give the result of each."""
        began, resumed = time.perf_counter(), {entry.index for entry in self.writer.acknowledged}
        before = self.writer.count("train") + self.writer.count("test")
        fresh = [pair for pair in self.pairs if pair.index not in resumed]
        with contextlib.ExitStack() as stack:
            pool, transforms = (stack.enter_context(ThreadPoolExecutor(self.threads, name)) for name in _POOLS)
            proof = PairProof(halves=self.request.pairs == "halves", accept_unproven=self.request.accept_unproven)
            movies = any(isinstance(pair, MovieInput) for pair in self.pairs)
            summer = MovieSummer(gain, transforms, self._stop_if_asked) if movies else None
            probe = IceProbe.if_there() if self.request.pairs == "single" and fresh else None

            def measured(pair: PairedInput) -> OpenedPair:
                began = time.perf_counter()
                opened = open_pair(pair, self.request, proof, summer, probe, transforms)
                return replace(opened, seconds=time.perf_counter() - began)

            opened = self._opened_ahead(fresh, measured)
            try:
                self._look_at_signals()
                for pair in self.pairs:
                    if pair.index in resumed:
                        self._report(pair, "skipped", message="already written by the run that was interrupted")
                    else:
                        self._micrograph(pair, next(opened), pool)
            finally:
                opened.close()
        if not self.writer.acknowledged:
            self.writer.abort()
            return BatchResult(tuple(self.files), details={"train": 0, "test": 0})
        manifest = self.writer.finish(failures=self.failures)
        seconds = time.perf_counter() - began
        made = sum(manifest.counts.values()) - before
        details = {**store_details(manifest, self.inputs), "seconds": seconds}
        if not manifest.whole:
            details["patches_per_s"] = made / seconds if made else 0.0
        return BatchResult(tuple(self.files), outputs=store_outputs(self.request), details=details)

    def _micrograph(
        self, pair: PairedInput, opened: OpenedPair | InputError | StorageError, pool: ThreadPoolExecutor
    ) -> None:
        began = time.perf_counter()
        if isinstance(opened, CryoplugError):
            self._failed(pair, opened)
            return
        self.pixel_sizes.add(opened.known)
        split = "test" if pair.index in self.test else "train"
        whole = self.request.store == "whole"
        cut = row_pairs if whole else patch_pairs
        try:
            for item in _reading(cut(opened, self.request, pool, ahead=2 * self.threads)):
                if isinstance(item, CryoplugError):
                    self.writer.discard()
                    self._failed(pair, item)
                    return
                if whole:
                    self.writer.append_rows(split, item.noisy, item.clean, opened.sources[0].shape)
                else:
                    self.writer.append(split, item.noisy, item.clean, item.window)
                self._look_at_signals()
        except Stopped:
            self.writer.discard()
            raise
        finally:
            opened.close()
        self.writer.acknowledge(_entry(opened, split))
        self._report(pair, "done", message=opened.remarks, seconds=opened.seconds + time.perf_counter() - began)

    def _failed(self, pair: PairedInput, error: CryoplugError) -> None:
        self.failures.append(FailedInput(pair.index, str(pair.noisy.relative), str(error), error.exit_code))
        self._report(pair, "failed", message=str(error), exit_code=error.exit_code)

    def _opened_ahead(
        self, pairs: Sequence[PairedInput], measure: Callable[[PairedInput], OpenedPair]
    ) -> Generator[OpenedPair | InputError | StorageError, None, None]:
        # While the patches of one micrograph are made, the next one is opened and measured, or its frames are summed.
        current: Future[OpenedPair] | None = None
        with ThreadPoolExecutor(1, "measure") as pool:
            try:
                for i in range(len(pairs)):
                    current = current or pool.submit(measure, pairs[i])
                    opened = self._waited_for(current)
                    current = pool.submit(measure, pairs[i + 1]) if i + 1 < len(pairs) else None
                    yield opened
            finally:
                if current is not None and not current.cancel() and current.exception() is None:
                    current.result().close()

    def _waited_for(self, future: Future[OpenedPair]) -> OpenedPair | InputError | StorageError:
        while not wait([future], timeout=_POLL_S).done:
            self._look_at_signals()
        try:
            return future.result()
        except (InputError, StorageError) as error:
            return error

    def _look_at_signals(self) -> None:
        self._stop_if_asked()
        if self.interrupts.save_requested:
            self.interrupts.save_requested = False
            self.writer.wait_until_safe()

    def _stop_if_asked(self) -> None:
        if self.interrupts.stop_signal is None:
            return
        done = len(self.writer.acknowledged)
        kept = f"{done} of {len(self.pairs)} micrographs are safe in {self.request.target}; the same command goes on"
        if self.request.format == "hdf5":
            kept = f"an unfinished HDF5 store cannot be continued: the same command begins {self.request.target} again"
        raise Stopped(self.interrupts.stop_signal, kept)

    def _report(self, pair: PairedInput, status: str, **fields: object) -> None:
        output = None if status == "failed" else self.request.target
        result = FileResult(pair.noisy.shown, status, output, **fields)  # type: ignore[arg-type]
        self.files.append(result)
        self.progress(result)


def _reading(items: Iterator[PatchPair]) -> Iterator[PatchPair | InputError | StorageError]:
    # Tells a failure to read, which costs one micrograph, from a failure to write, which ends the run.
    try:
        yield from items
    except (InputError, StorageError) as error:
        yield error


def _entry(opened: OpenedPair, split: str) -> MicrographEntry:
    pair = opened.pair
    return MicrographEntry(
        name=str(pair.noisy.relative),
        split=split,
        shape=opened.sources[0].shape,
        pixel_size_angstrom=opened.pixel_size_angstrom,
        normalization=opened.normalizations[0].to_dict(),
        clean_name=None if pair.clean is None else str(pair.clean.relative),
        clean_normalization=None if len(opened.normalizations) == 1 else opened.normalizations[1].to_dict(),
        index=pair.index,
        noise=None if opened.noise is None else opened.noise.to_dict(),
    )


def store_details(manifest: Manifest, inputs: ConvertInputs) -> dict[str, object]:
    """Give the figures of a finished store, for people and ``--json``: its contents, and the files that were left out."""
    return {
        "train": manifest.counts["train"],
        "test": manifest.counts["test"],
        "micrographs": len(manifest.micrographs),
        "test_micrographs": sum(entry.split == "test" for entry in manifest.micrographs),
        "patch_size": manifest.patch_shape[0],
        "stride": manifest.stride,
        "companions": len(inputs.companions),
        "beyond_the_last_patch": _beyond_the_last_patch(manifest),
        "normalize": manifest.normalize,
        **({"whole": True} if manifest.whole else {}),
        "fingerprint": manifest.fingerprint(),
    }


def _beyond_the_last_patch(manifest: Manifest) -> float:
    """Give the part of the pixels (0 to 1) in no patch, because rows and columns of patches end before them."""
    if manifest.whole:
        return 0.0
    reach: dict[int, tuple[int, int]] = {}
    for windows in manifest.windows.values():
        for micrograph, y, x in windows:
            before = reach.get(micrograph, (0, 0))
            reach[micrograph] = max(before[0], y), max(before[1], x)
    side = manifest.patch_shape[0]
    pixels = sum(entry.shape[0] * entry.shape[1] for entry in manifest.micrographs)
    reached = sum((y + side) * (x + side) for y, x in reach.values())
    return round(1 - reached / pixels, 4) if pixels else 0.0


def store_outputs(request: ConvertRequest) -> tuple[Path, ...]:
    """Give the files of a finished store, manifest first."""
    return tuple(finished_files(request.target, request.format))
