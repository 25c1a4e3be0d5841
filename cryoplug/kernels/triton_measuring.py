"""The GPU kernels that measure pixels in one pass over them: each piece by itself, then all pieces together."""

from __future__ import annotations

from cryoplug.kernels.quick_triton import tl, triton


@triton.jit(do_not_specialize=["count", "pieces", "low", "high"])
def measure_pieces(pixels, found, count, pieces, low, high, CLIPS: tl.constexpr, SIZE: tl.constexpr):
    """Write six rows of numbers, one column for each piece: see `cryoplug.kernels.measuring`; squares instead of a deviation."""
    piece = tl.program_id(0)
    at = piece.to(tl.int64) * SIZE + tl.arange(0, SIZE)
    values = tl.load(pixels + at, mask=at < count, other=float("nan"))
    # Comparing with NaN says no.
    finite = tl.abs(values) < float("inf")
    if CLIPS:
        values = tl.minimum(tl.maximum(values, low), high)
    number = tl.sum(finite.to(tl.int32), 0)
    exact = tl.where(finite, values, 0.0).to(tl.float64)
    mean = tl.sum(exact, 0) / tl.maximum(number, 1).to(tl.float64)
    deviation = tl.where(finite, exact - mean, 0.0)
    found += piece
    tl.store(found, number.to(tl.float64))
    tl.store(found + pieces, tl.sum((finite & (values > 0)).to(tl.int32), 0).to(tl.float64))
    tl.store(found + 2 * pieces, tl.min(tl.where(finite, values, float("inf")), 0).to(tl.float64))
    tl.store(found + 3 * pieces, tl.max(tl.where(finite, values, float("-inf")), 0).to(tl.float64))
    tl.store(found + 4 * pieces, mean)
    tl.store(found + 5 * pieces, tl.sum(deviation * deviation, 0))


@triton.jit(do_not_specialize=["pieces"])
def merge_pieces(found, result, pieces, SIZE: tl.constexpr):
    """Merge the pieces by the formula of Chan, Golub and LeVeque. One program."""
    at = tl.arange(0, SIZE)
    numbers = tl.zeros((SIZE,), tl.float64)
    positive = tl.zeros((SIZE,), tl.float64)
    sums = tl.zeros((SIZE,), tl.float64)
    low = tl.full((SIZE,), float("inf"), tl.float64)
    high = tl.full((SIZE,), float("-inf"), tl.float64)
    for first in range(0, pieces, SIZE):
        inside = first + at < pieces
        row = found + first + at
        number = tl.load(row, mask=inside, other=0.0)
        numbers += number
        positive += tl.load(row + pieces, mask=inside, other=0.0)
        low = tl.minimum(low, tl.load(row + 2 * pieces, mask=inside, other=float("inf")))
        high = tl.maximum(high, tl.load(row + 3 * pieces, mask=inside, other=float("-inf")))
        sums += number * tl.load(row + 4 * pieces, mask=inside, other=0.0)
    total = tl.sum(numbers, 0)
    mean = tl.sum(sums, 0) / total
    squares = tl.zeros((SIZE,), tl.float64)
    for first in range(0, pieces, SIZE):
        inside = first + at < pieces
        row = found + first + at
        shift = tl.load(row + 4 * pieces, mask=inside, other=0.0) - mean
        number = tl.load(row, mask=inside, other=0.0)
        squares += tl.load(row + 5 * pieces, mask=inside, other=0.0)
        squares += tl.where(number > 0, number * shift * shift, 0.0)
    tl.store(result, total)
    tl.store(result + 1, tl.sum(positive, 0))
    tl.store(result + 2, tl.min(low, 0))
    tl.store(result + 3, tl.max(high, 0))
    tl.store(result + 4, mean)
    tl.store(result + 5, tl.sqrt(tl.sum(squares, 0) / total))
