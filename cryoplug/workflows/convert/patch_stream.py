"""Read patches of a micrograph, or all its rows, in bands; a few threads make pairs of them, which come out in order."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count, repeat
from pathlib import Path

import numpy as np

from cryoplug.core.grey_scale import normalization_remark
from cryoplug.core.look import LookedAt, look_at
from cryoplug.core.micrograph import BAND_PIXELS, ImageF32, MicrographSource
from cryoplug.core.noise import founding_noise, patch_rng
from cryoplug.core.normalization import MeasuredSource, Normalization, check_usable, clipped_fraction, fit_to
from cryoplug.core.pixel_size import PixelSize, pixel_size_of_exposure, unknown_pixel_size
from cryoplug.core.remarks import joined
from cryoplug.errors import ShapeError
from cryoplug.formats import registry
from cryoplug.formats.mrc_claims import DENOISED_ALREADY
from cryoplug.inputs.discovered import DiscoveredMicrograph
from cryoplug.inputs.movies.halves import MovieInput, MovieSummer
from cryoplug.inputs.pair_proof import PairProof
from cryoplug.inputs.pairing import PairedInput
from cryoplug.metrics.micrograph_noise import MicrographNoise
from cryoplug.store.layout import storage_dtype
from cryoplug.workflows.convert import single_noise
from cryoplug.workflows.convert.cropping import cropped_source
from cryoplug.workflows.convert.ice_probe import IceProbe
from cryoplug.workflows.convert.request import ConvertRequest

ZSCORE_NOISE_RANGE = 3.0
"""With zscore, -3..3 standard deviations correspond to the founding recipe's 0..1."""
_BAND_ROWS = 256
_STRIP_PIXELS = 1024 * 1024


@dataclass(frozen=True)
class OpenedPair:
    """One or two opened micrographs, and the normalization of their pixels."""

    pair: PairedInput
    """The input files."""
    sources: tuple[MicrographSource, ...]
    """The noisy file, then the clean one if it is another file."""
    normalizations: tuple[Normalization, ...]
    """Normalization of each source."""
    pixel_size_angstrom: float | None
    """Pixel size in the store: that of ``--angpix``, else `known`."""
    known: PixelSize
    """Pixel size of the files, and its source."""
    notes: tuple[str, ...] = ()
    """Remarks from the comparison of the two."""
    noise: MicrographNoise | None = None
    """Noise of a single exposure; None for others."""
    seconds: float = 0.0
    """Time that it took to open and measure them; for a movie, also to sum it."""

    @property
    def remarks(self) -> str:
        """All remarks: oddities that were accepted."""
        warnings = dict.fromkeys(text for item in self.sources for text in item.warnings)
        if DENOISED_ALREADY not in self.sources[0].warnings:
            warnings.pop(DENOISED_ALREADY, None)  # as the clean side of a pair it is what the user wants
        return joined([self.pair.remark, *warnings, *self.notes])

    def close(self) -> None:
        """Close the files."""
        for source in self.sources:
            source.close()


@dataclass(frozen=True)
class PatchPair:
    """One finished pair of patches, or of bands of rows."""

    window: tuple[int, int]
    """(y, x) of its first pixel."""
    noisy: np.ndarray
    """(y, x), dtype of the store."""
    clean: np.ndarray
    """(y, x), dtype of the store."""


def open_pair(
    pair: PairedInput,
    request: ConvertRequest,
    proof: PairProof,
    summer: MovieSummer | None,
    probe: IceProbe | None = None,
    pool: ThreadPoolExecutor | None = None,
) -> OpenedPair:
    """Open and measure the files of one pair; a movie is summed.

    Parameters
    ----------
    pair
        The files.
    request
        Patch size and normalization.
    proof
        Compares the two sides.
    summer
        Sums movies; None if there are none.
    probe
        Measures single exposures in places without particles; None does not measure there.
    pool
        Threads to read both sides of a pair at once, and to measure them while they are compared; None does one after the
        other.

    Raises
    ------
    InputError, StorageError
        A file cannot be read, is smaller than a patch, or has unusable pixels.
    PairingError
        The two files do not belong together.
    """
    with ExitStack() as stack:
        sources, listed, headers = _sources_of(pair, summer, stack)
        known, sizes = pixel_size_of_exposure(request.pixel_size, listed, headers)
        size = known.angstrom
        if size is None and request.angpix is not None:
            raise unknown_pixel_size(sources[0].path, f"--angpix {request.angpix:g} needs it", "leave --angpix out")
        if len(sources) == 2:
            proof.check_files(sources[0], sources[1], sizes)
            if pair.clean is not None and pair.noisy.section is not None and pair.clean.section is not None:
                proof.look_through(pair.noisy.path, pair.clean.path)
        looked = list((pool.map if pool else map)(_look, count(), sources, repeat(request)))
        sources = tuple(each.source for each in looked)
        native, law = sources[0].shape, None
        if request.pairs == "single":
            part = 1.0 if request.angpix is None or size is None else min(1.0, size / request.angpix)
            law = single_noise.measure_law(sources[0], pixel_size_angstrom=size, part=part)

        def compared() -> list[str]:
            for each in looked:
                check_usable(each, each.extremes())
            return _compared(looked, proof, pair, known)

        notes: list[str] = []
        measured: list[MeasuredSource] = list(looked)
        if request.angpix is not None:
            notes = compared()  # before the crop: it is near Nyquist that two halves must share nothing
            sources = tuple(
                stack.enter_context(cropped_source(source, pixel_size_angstrom=size, target_angstrom=request.angpix))
                for source in sources
            )
            size = request.angpix
            measured = [MeasuredSource(source) for source in sources]
        for source in sources:
            check_holds_a_patch(source.path, source.shape, request)
        fits = [pool.submit(fit_to, each, request.kind) for each in measured] if pool else []
        try:
            if request.angpix is None and len(looked) == 2:
                notes = compared()
        finally:
            wait(fits)  # nothing reads a file that was closed
        normalizations = tuple(fit.result() for fit in fits) or tuple(fit_to(each, request.kind) for each in measured)
        grey = _grey_remarks(sources, measured, normalizations)
        if request.pairs == "noise" and request.kind != "percentile":
            limit = ZSCORE_NOISE_RANGE
            normalizations = (dataclasses.replace(normalizations[0], clip_low=-limit, clip_high=limit),)
        noise = None
        if law is not None:
            part = float(np.sqrt(np.prod(sources[0].shape) / np.prod(native)))
            noise = single_noise.describe_noise(law, sources[0], normalizations[0], part=part)
            if probe is not None:
                noise, remark = probe.checked_in_ice(noise, sources[0], normalizations[0], pixel_size_angstrom=size)
                notes += [remark] if remark else []
            notes += single_noise.check_trust(noise, sources[0], accept_unproven=request.accept_unproven)
        stack.pop_all()
    return OpenedPair(pair, sources, normalizations, size, known, tuple(dict.fromkeys([*notes, *grey])), noise)


def _sources_of(
    pair: PairedInput, summer: MovieSummer | None, stack: ExitStack
) -> tuple[tuple[MicrographSource, ...], tuple[float | None, ...], tuple[float | None, ...]]:
    """Open the files of a pair, or sum its movie; give the sources, and their pixel sizes by the list and by the headers."""
    if isinstance(pair, MovieInput) and summer is not None:
        halves = summer.halves(pair)
        return (halves.even, halves.odd), (halves.listed_angstrom,), (halves.header_angstrom, halves.header_angstrom)
    if pair.problem is not None:
        raise pair.problem
    sources = tuple(stack.enter_context(open_item(item)) for item in pair.files)
    listed = tuple(item.pixel_size_angstrom for item in pair.files)
    return sources, listed, tuple(source.pixel_size_angstrom for source in sources)


def _grey_remarks(
    sources: Sequence[MicrographSource], measured: Sequence[MeasuredSource], normalizations: Sequence[Normalization]
) -> list[str]:
    """Say where the percentile does not suit the grey values."""
    remarks = (
        normalization_remark(
            normalization, clipped=clipped_fraction(source, normalization), sigma=each.statistics().std
        )
        for source, each, normalization in zip(sources, measured, normalizations, strict=True)
        if normalization.kind == "percentile"
    )
    return list(filter(None, remarks))


def patch_pairs(
    opened: OpenedPair, request: ConvertRequest, pool: ThreadPoolExecutor, *, ahead: int
) -> Iterator[PatchPair]:
    """Give all pairs of a micrograph, row by row of the grid y, x = 0, stride, 2 stride, ...

    Parameters
    ----------
    opened
        The micrograph.
    request
        Patch size, stride, seed, dtype, regime.
    pool
        Threads that make the pairs; numpy's generators and loops run without the interpreter's lock.
    ahead
        Most pairs in progress at a time, which limits the memory.

    Yields
    ------
    PatchPair
        In order; the result does not depend on the number of threads.
    """
    waiting: deque[Future[PatchPair]] = deque()
    bands = [_bands(source, norm, request) for source, norm in zip(opened.sources, opened.normalizations, strict=True)]
    side = request.patch_px
    try:
        for rows in zip(*bands, strict=True):
            y = rows[0][0]
            for x in range(0, rows[0][1].shape[1] - side + 1, request.stride_px):
                # Copied, because the band rolls on while the pair is made.
                cut = [band[:, x : x + side].copy() for _, band in rows]
                waiting.append(pool.submit(_make_pair, cut, (y, x), opened.pair.index, request))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def row_pairs(
    opened: OpenedPair, request: ConvertRequest, pool: ThreadPoolExecutor, *, ahead: int
) -> Iterator[PatchPair]:
    """Give all pixels of a micrograph once, in bands from the first row; parameters as for `patch_pairs`.

    With ``--pairs noise`` every band has its own generator, so the noise does not depend on the threads.
    """
    waiting: deque[Future[PatchPair]] = deque()
    height = opened.sources[0].shape[0]
    try:
        # What is drawn depends on the bands; without noise they are as small as a core's own cache.
        small = max(1, BAND_PIXELS // opened.sources[0].shape[1])
        step = _BAND_ROWS if request.pairs == "noise" else min(_BAND_ROWS, small)
        for y in range(0, height, step):
            rows = [source.read_rows(y, min(y + step, height)) for source in opened.sources]
            waiting.append(pool.submit(_make_rows, rows, y, opened, request))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def check_holds_a_patch(path: Path, shape: tuple[int, int], request: ConvertRequest) -> None:
    """Raise an error if a micrograph is smaller than one patch.

    Parameters
    ----------
    path
        The file, for the message.
    shape
        ``(y, x)`` of the image that is cut into patches.
    request
        Has the size of a patch.

    Raises
    ------
    ShapeError
        It is smaller.
    """
    if min(shape) < request.patch_px:
        at = "" if request.angpix is None else f" at {request.angpix:g} angstrom"
        raise ShapeError(
            f"{path}: {shape[0]}x{shape[1]} pixels (y, x){at}, smaller than one patch of "
            f"{request.patch_px}x{request.patch_px}; give --patch-size {min(shape)} or less"
        )


def open_item(item: DiscoveredMicrograph) -> MicrographSource:
    """Open a micrograph, or the named section of a stack."""
    if item.section is None:
        return registry.open_micrograph(item.path)
    return registry.open_micrograph(item.path, section=item.section)


def _look(side: int, source: MicrographSource, request: ConvertRequest) -> LookedAt:
    """Read a micrograph as `denoise` will show it to the network. Hot pixels stay in the founding recipe and clean partners."""
    bare = (request.pairs == "noise" and request.kind == "percentile") or (request.pairs == "clean" and side == 1)
    kind = request.kind if request.angpix is None else "none"
    return look_at(source, kind, repair=not bare, sample=request.pairs in ("clean", "halves"))


def _compared(looked: list[LookedAt], proof: PairProof, pair: PairedInput, known: PixelSize) -> list[str]:
    """Prove that two files show one exposure, and give remarks on them; none for a single file."""
    samples = [each.sample for each in looked if each.sample is not None]
    if len(samples) < 2:
        return []
    return proof.check_samples(
        (looked[0].path, looked[1].path),
        (samples[0], samples[1]),
        summed_here=isinstance(pair, MovieInput),
        pixel_size_angstrom=known.angstrom,
    )


def _bands(
    source: MicrographSource, normalization: Normalization, request: ConvertRequest
) -> Iterator[tuple[int, ImageF32]]:
    # Each row is read and normalised once; the rows that the next patches share move up in the band.
    side, stride = request.patch_px, request.stride_px
    band = np.empty((side, source.shape[1]), np.float32)
    filled = 0
    for y in range(0, source.shape[0] - side + 1, stride):
        kept = max(filled - stride, 0)
        for start in range(0, kept, stride):  # In steps that do not overlap, so that no whole copy is needed.
            stop = min(start + stride, kept)
            band[start:stop] = band[start + stride : stop + stride]
        for start in range(kept, side, _BAND_ROWS):
            stop = min(start + _BAND_ROWS, side)
            band[start:stop] = normalization.apply(source.read_rows(y + start, y + stop))
        filled = side
        yield y, band


def _make_pair(cut: list[ImageF32], window: tuple[int, int], index: int, request: ConvertRequest) -> PatchPair:
    dtype = storage_dtype(request.dtype)
    if request.pairs == "noise":
        noisy, clean = _degrade(cut[0], patch_rng(request.seed, index, *window), request.kind), cut[0]
    elif request.pairs == "single":
        noisy = clean = cut[0].astype(dtype, copy=False)
    else:
        noisy, clean = cut
    return PatchPair(window, noisy.astype(dtype, copy=False), clean.astype(dtype, copy=False))


def _make_rows(rows: list[ImageF32], y: int, opened: OpenedPair, request: ConvertRequest) -> PatchPair:
    for each, normalization in zip(rows, opened.normalizations, strict=True):
        normalization.apply_to(each)
    return _make_pair(rows, (y, 0), opened.pair.index, request)


def _degrade(clean: ImageF32, rng: np.random.Generator, kind: str) -> ImageF32:
    # Up to 1024 x 1024 in one go; larger patches in strips, because the recipe's float64 takes 40 bytes a pixel.
    rows = max(1, _STRIP_PIXELS // clean.shape[1])
    noisy = np.empty_like(clean)
    for start in range(0, len(clean), rows):
        strip = clean[start : start + rows]
        if kind != "percentile":
            unit = np.clip((strip + ZSCORE_NOISE_RANGE) / (2 * ZSCORE_NOISE_RANGE), 0.0, 1.0)
            noisy[start : start + rows] = founding_noise(unit, rng) * (2 * ZSCORE_NOISE_RANGE) - ZSCORE_NOISE_RANGE
        else:
            noisy[start : start + rows] = founding_noise(strip, rng)
    return noisy
