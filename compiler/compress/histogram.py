"""A histogram whose range grows with the data and whose counts stay exact.

Bins are ``[k, k + 1) * 2**exponent`` for whole k. Where the range grows beyond the bins there are, their
width doubles, and as the bins are aligned, each new one is exactly two old ones. So the result depends on
the data alone, not on its order or on how it was cut into pieces, and takes the same memory for any amount.
(Only a value so small that in units of a bin it is no float32 may lie on either side of zero.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

BINS = 1 << 14
"""How many bins there are; of these the data spans more than half, if it has as many distinct values."""

_MANTISSA = 24
_LEAST_EXPONENT = -120
_CHUNK = 1 << 16


@dataclass(frozen=True, eq=False)
class Bins:
    """Bins that hold values: their numbers, ascending, how many values each holds (int64), and their size."""

    numbers: np.ndarray
    counts: np.ndarray
    exponent: int

    @property
    def width(self) -> float:
        """The width of a bin."""
        return math.ldexp(1.0, self.exponent)

    @property
    def left(self) -> np.ndarray:
        """The lower bound of each bin, as float64."""
        return np.ldexp(self.numbers.astype(np.float64), self.exponent)

    def merged(self) -> Bins:
        """Return the same counts in bins of twice the width."""
        return _collected(self.numbers >> 1, self.counts, self.exponent + 1)


def _collected(numbers: np.ndarray, counts: np.ndarray, exponent: int) -> Bins:
    """Return bins in order, with the counts of equal `numbers` added."""
    kept, places = np.unique(numbers, return_inverse=True)
    sums = np.zeros(kept.size, np.int64)
    np.add.at(sums, places, counts)
    return Bins(kept, sums, exponent)


class Histogram:
    """Counts of float32 values in `BINS` bins, of which the first is bin number `start`.

    `low` and `high` are the least and greatest value so far, `exponent` is the logarithm of the bins' width.
    """

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf
        self.exponent, self.start = _LEAST_EXPONENT, 0
        self.counts = np.zeros(BINS, np.int64)

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    @property
    def width(self) -> float:
        """The width of a bin."""
        return math.ldexp(1.0, self.exponent)

    def add(self, values: np.ndarray, low: float, high: float) -> None:
        """Count `values` (float32, contiguous, finite), which lie between `low` and `high`."""
        self._make_room(min(low, self.low), max(high, self.high))
        inverse = np.float32(math.ldexp(1.0, -self.exponent))
        flat = values.reshape(-1)
        # In pieces that stay in the cache: each is passed over several times.
        for first in range(0, flat.size, _CHUNK):
            # Exact: the factor is a power of two, and a bin's number has no more bits than float32.
            scaled = flat[first : first + _CHUNK] * inverse
            np.floor(scaled, out=scaled)
            # By way of int32, since numpy converts float32 to int64 one by one.
            numbers = scaled.astype(np.int32).astype(np.int64)
            numbers -= self.start
            self.counts += np.bincount(numbers, minlength=BINS)

    def _make_room(self, low: float, high: float) -> None:
        """Widen and shift the bins so that they hold the range from `low` to `high`."""
        self.low, self.high = low, high
        exponent = max(self.exponent, _finest(low, high))
        while math.floor(math.ldexp(high, -exponent)) - math.floor(math.ldexp(low, -exponent)) >= BINS:
            exponent += 1
        start = math.floor(math.ldexp(low, -exponent))
        if (exponent, start) == (self.exponent, self.start):
            return
        filled = np.flatnonzero(self.counts)
        counts = np.zeros(BINS, np.int64)
        np.add.at(counts, ((filled + self.start) >> (exponent - self.exponent)) - start, self.counts[filled])
        self.exponent, self.start, self.counts = exponent, start, counts

    def bins(self, most: int = BINS) -> Bins:
        """Return the bins that hold values, neighbours merged until there are at most `most` (2 or more)."""
        filled = np.flatnonzero(self.counts)
        bins = Bins(filled + self.start, self.counts[filled], self.exponent)
        while bins.counts.size > most:
            bins = bins.merged()
        return bins

    def magnitudes(self, most: int = BINS) -> Bins:
        """Return the bins of ``|value|``, merged until at most `most` hold values and none is beyond `BINS`.

        Bin -1 - k holds the magnitudes of bin k, so that this too is exact.
        """
        signed = self.bins()
        bins = _collected(np.maximum(signed.numbers, -1 - signed.numbers), signed.counts, signed.exponent)
        while bins.counts.size > most or bins.numbers.max(initial=0) >= BINS:
            bins = bins.merged()
        return bins

    def quantile(self, part: float) -> float:
        """Return the value below which `part` (0 to 1) of all values lie, to within a bin's width."""
        wanted = part * self.total
        below = np.cumsum(self.counts)
        index = min(int(np.searchsorted(below, wanted)), BINS - 1)
        inside = (wanted - (below[index] - self.counts[index])) / max(int(self.counts[index]), 1)
        return min(max(math.ldexp(self.start + index + float(inside), self.exponent), self.low), self.high)


def _finest(low: float, high: float) -> int:
    """Return an exponent below which bins are finer than float32, or far too narrow for the range."""
    largest = max(abs(low), abs(high))
    needed = math.frexp(high - low)[1] - 1 - (BINS.bit_length() - 1) if high > low else _LEAST_EXPONENT
    finest = math.frexp(largest)[1] - _MANTISSA if largest else _LEAST_EXPONENT
    return max(needed, finest, _LEAST_EXPONENT)
