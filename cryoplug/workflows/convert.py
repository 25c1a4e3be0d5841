"""Convert: micrographs in, a store of noisy/clean training pairs out, in bounded memory, killable at any moment."""

from __future__ import annotations

import importlib.metadata
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from cryoplug.core.results import BatchResult, FileResult
from cryoplug.errors import CryoplugError, FormatError, InputError, StorageError, UsageError
from cryoplug.store import raw
from cryoplug.store.manifest import FailedInput, Manifest, MicrographEntry
from cryoplug.store.pairs import HDF5_NAME, create_store, finished_files, finished_manifest
from cryoplug.store.writer import StoreWriter
from cryoplug.workflows.convert_request import ConvertRequest
from cryoplug.workflows.discovery import discover
from cryoplug.workflows.pairing import PairedInput, pair_files
from cryoplug.workflows.patch_stream import OpenedPair, PatchPair, open_pair, patch_pairs

__all__ = ["ConvertRequest", "convert", "pick_test_micrographs"]

Progress = Callable[[FileResult], None]
_MOST_THREADS = 4
"""Each takes about 45 MB: with more, 400 MB would not hold."""


def convert(request: ConvertRequest, progress: Progress = lambda _: None) -> BatchResult:
    """Write the store that the request asks for, or find it complete.

    Killed at any moment, the same request goes on after the last complete micrograph (bins) or starts again (HDF5), and
    the result is the same to the byte. A bad micrograph is recorded and the others go on.

    Parameters
    ----------
    request
        What to do.
    progress
        Called with each micrograph's result, in the order of the inputs.

    Returns
    -------
    BatchResult
        ``details`` has ``train``, ``test`` (pairs), ``patches_per_s`` (of this run) and ``fingerprint``.

    Raises
    ------
    UsageError
        The output holds another store and ``overwrite`` is off, or the output is one of the inputs.
    PairingError
        The two lists of files do not fit together.
    StorageError
        Writing failed; what was acknowledged stays for the next run.
    """
    pairs = list_pairs(request)
    _refuse_to_touch_inputs(request, pairs)
    _refuse_other_format(request)
    head = Manifest(
        patch_shape=(request.patch_size, request.patch_size),
        dtype=request.dtype,
        pairs=request.pairs,
        normalize=request.kind,
        seed=request.seed,
        stride=request.stride,
        software=_software(),
        request=request.identity(pairs),
    )
    if not request.overwrite:
        complete = _complete_already(request, head, pairs, progress)
        if complete is not None:
            return complete
    elif request.format == "bin":
        raw.finish_interrupted(request.target)
    with create_store(request.output, head, request.format, overwrite=request.overwrite) as writer:
        return _Run(request, pairs, writer, progress).result()


def list_pairs(request: ConvertRequest) -> tuple[PairedInput, ...]:
    """Find the inputs and bring partners together."""
    if request.pairs == "halves":
        return pair_files(discover(request.even), discover(request.odd), sides=("even", "odd"))
    noisy = discover(request.inputs)
    if request.pairs == "clean":
        return pair_files(noisy, discover(request.clean), sides=("noisy", "clean"))
    return tuple(PairedInput(i, item) for i, item in enumerate(noisy))


def pick_test_micrographs(count: int, fraction: float, seed: int) -> frozenset[int]:
    """Choose whole micrographs for testing, a pure function of the arguments.

    Parameters
    ----------
    count
        Number of micrographs.
    fraction
        Part of them, 0 to 1. Above 0 at least one is chosen when there are two; below 1 at least one is left.
    seed
        Not negative.
    """
    if fraction <= 0 or (count < 2 and fraction < 1):
        return frozenset()
    chosen = count if fraction == 1 else min(max(round(fraction * count), 1), count - 1)
    return frozenset(np.random.default_rng([seed, count]).permutation(count)[:chosen].tolist())


class _Run:
    """One pass over the micrographs into one writer."""

    def __init__(
        self, request: ConvertRequest, pairs: tuple[PairedInput, ...], writer: StoreWriter, progress: Progress
    ) -> None:
        self.request = request
        self.pairs = pairs
        self.writer = writer
        self.progress = progress
        self.files: list[FileResult] = []
        self.failures: list[FailedInput] = []
        self.threads = request.threads or min(len(os.sched_getaffinity(0)), _MOST_THREADS)
        self.test = pick_test_micrographs(len(pairs), request.test_split, request.seed)

    def result(self) -> BatchResult:
        began, resumed = time.perf_counter(), {entry.index for entry in self.writer.acknowledged}
        before = self.writer.count("train") + self.writer.count("test")
        fresh = [pair for pair in self.pairs if pair.index not in resumed]
        opened = _opened_ahead(fresh, self.request)
        with ThreadPoolExecutor(self.threads, "convert") as pool:
            try:
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
        details = {**_details(manifest), "patches_per_s": made / seconds if made else 0.0, "seconds": seconds}
        return BatchResult(tuple(self.files), outputs=_outputs(self.request), details=details)

    def _micrograph(
        self, pair: PairedInput, opened: OpenedPair | InputError | StorageError, pool: ThreadPoolExecutor
    ) -> None:
        began = time.perf_counter()
        if isinstance(opened, CryoplugError):
            self._failed(pair, opened)
            return
        split = "test" if pair.index in self.test else "train"
        try:
            for item in _reading(patch_pairs(opened, self.request, pool, ahead=2 * self.threads)):
                if isinstance(item, CryoplugError):
                    self.writer.discard()
                    self._failed(pair, item)
                    return
                self.writer.append(split, item.noisy, item.clean, item.window)
        finally:
            opened.close()
        self.writer.acknowledge(_entry(opened, split))
        self._report(pair, "done", message=opened.remarks, seconds=time.perf_counter() - began)

    def _failed(self, pair: PairedInput, error: CryoplugError) -> None:
        self.failures.append(FailedInput(pair.index, str(pair.noisy.relative), str(error), error.exit_code))
        self._report(pair, "failed", message=str(error), exit_code=error.exit_code)

    def _report(self, pair: PairedInput, status: str, **fields: object) -> None:
        output = None if status == "failed" else self.request.target
        result = FileResult(pair.noisy.path, status, output, **fields)  # type: ignore[arg-type]
        self.files.append(result)
        self.progress(result)


def _reading(items: Iterator[PatchPair]) -> Iterator[PatchPair | InputError | StorageError]:
    # Tells a failure to read, which costs one micrograph, from a failure to write, which ends the run.
    try:
        yield from items
    except (InputError, StorageError) as error:
        yield error


def _opened_ahead(
    pairs: Sequence[PairedInput], request: ConvertRequest
) -> Generator[OpenedPair | InputError | StorageError, None, None]:
    # While the patches of one micrograph are made, the next one is opened and measured.
    coming: Future[OpenedPair] | None = None
    with ThreadPoolExecutor(1, "measure") as pool:
        try:
            for i in range(len(pairs)):
                current = coming or pool.submit(open_pair, pairs[i], request)
                coming = None
                try:
                    opened: OpenedPair | InputError | StorageError = current.result()
                except (InputError, StorageError) as error:
                    opened = error
                if i + 1 < len(pairs):
                    coming = pool.submit(open_pair, pairs[i + 1], request)
                yield opened
        finally:
            if coming is not None and not coming.cancel() and coming.exception() is None:
                coming.result().close()


def _entry(opened: OpenedPair, split: str) -> MicrographEntry:
    pair = opened.pair
    return MicrographEntry(
        name=str(pair.noisy.relative),
        split=split,
        shape=opened.sources[0].shape,
        pixel_size_angstrom=opened.pixel_size_angstrom,
        normalization=opened.normalizations[0].to_dict(),
        clean_name=None if pair.clean is None else str(pair.clean.relative),
        clean_normalization=None if pair.clean is None else opened.normalizations[1].to_dict(),
        index=pair.index,
    )


def _complete_already(
    request: ConvertRequest, head: Manifest, pairs: tuple[PairedInput, ...], progress: Progress
) -> BatchResult | None:
    try:
        manifest = finished_manifest(request.target, request.format)
    except FormatError as error:
        raise UsageError(f"{error}; it is in the way: give --overwrite to replace it, or another output") from error
    if manifest is None:
        found = finished_files(request.target, request.format)
        if found:
            raise UsageError(f"{found[0]}: exists already; give --overwrite to replace it, or another output")
        return None
    asked = dict(head.request)
    differing = sorted(name for name in {*asked, *manifest.request} if asked.get(name) != manifest.request.get(name))
    if differing:
        raise UsageError(
            f"{request.target}: holds a finished store made with other {', '.join(differing)}; "
            "give --overwrite to redo it, or another output"
        )
    failures = {item.index: item for item in manifest.failures}
    files = []
    for pair in pairs:
        failure = failures.get(pair.index)
        if failure is None:
            result = FileResult(pair.noisy.path, "skipped", request.target, "already complete")
        else:
            result = FileResult(pair.noisy.path, "failed", None, failure.message, exit_code=failure.exit_code)
        files.append(result)
        progress(result)
    return BatchResult(tuple(files), outputs=_outputs(request), details={**_details(manifest), "complete": True})


def _details(manifest: Manifest) -> dict[str, object]:
    return {
        "train": manifest.counts["train"],
        "test": manifest.counts["test"],
        "micrographs": len(manifest.micrographs),
        "fingerprint": manifest.fingerprint(),
    }


def _outputs(request: ConvertRequest) -> tuple[Path, ...]:
    return tuple(finished_files(request.target, request.format))


def _refuse_other_format(request: ConvertRequest) -> None:
    # Two stores in one folder: nobody could say which one a reader means.
    if request.format == "bin":
        other = request.target / HDF5_NAME
    elif request.target != request.output:
        other = request.target.parent / raw.MANIFEST_NAME
    else:
        return
    if other.is_file():
        raise UsageError(f"{other}: a store of the other format is in this folder; choose another output")


def _refuse_to_touch_inputs(request: ConvertRequest, pairs: tuple[PairedInput, ...]) -> None:
    names = (raw.MANIFEST_NAME, *(name for pair in raw.BIN_NAMES.values() for name in pair))
    written = {request.target} if request.format == "hdf5" else {request.target / name for name in names}
    resolved = {path.resolve() for path in written}
    for pair in pairs:
        for item in pair.files:
            if item.path.resolve() in resolved:
                raise UsageError(f"{item.path}: is an input and would be overwritten; choose another --output")


def _software() -> str:
    try:
        version = importlib.metadata.version("cryoplug")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    return f"cryoplug {version}, numpy {np.__version__}"
