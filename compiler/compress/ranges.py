"""How the range of an activation is chosen from what was observed.

A wide range rounds coarsely, a narrow one cuts values off; the methods weigh that differently. Each is a
frozen dataclass with one function, ``range(observer, linear) -> (low, high)``, in the units of the tensor.
All widen the range to hold zero, which has to be a code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from compiler.compress.histogram import Bins
from compiler.compress.numerics import grid_of_range
from compiler.compress.observers import Observer
from compiler.compress.scheme import Linear
from compiler.support.errors import InputError, UsageError, did_you_mean

Range = tuple[float, float]


class Method(Protocol):
    """A way to choose a range."""

    def range(self, observer: Observer, linear: Linear) -> Range:
        """Return the least and the greatest value that codes of `linear` should stand for."""


@dataclass(frozen=True)
class MinMax:
    """From the least to the greatest value seen: nothing is cut off (Jacob et al., CVPR 2018)."""

    def range(self, observer: Observer, linear: Linear) -> Range:
        """Return the range of all values."""
        return _with_zero(*seen(observer))

    def __str__(self) -> str:
        return "minmax"


@dataclass(frozen=True)
class MovingAverage:
    """Moving averages of the least and the greatest value of each array (Jacob et al., section 3.1)."""

    def range(self, observer: Observer, linear: Linear) -> Range:
        """Return the averaged range."""
        seen(observer)
        return _with_zero(*observer.average)

    def __str__(self) -> str:
        return "average"


@dataclass(frozen=True)
class Percentile:
    """What `percent` of all values are below, and above (Wu et al., "Integer Quantization for Deep Learning
    Inference: Principles and Empirical Evaluation", 2020).
    """

    percent: float = 99.99

    def __post_init__(self) -> None:
        if not 50 < self.percent <= 100:
            raise UsageError(f"expected a percentile above 50, up to 100, got {self.percent:g}")

    def range(self, observer: Observer, linear: Linear) -> Range:
        """Return the two quantiles."""
        seen(observer)
        high = self.percent / 100
        return _with_zero(observer.histogram.quantile(1 - high), observer.histogram.quantile(high))

    def __str__(self) -> str:
        return f"percentile:{self.percent:g}"


@dataclass(frozen=True)
class LeastSquares:
    """The range with the least mean squared error (Choukroun et al., "Low-bit Quantization of Neural
    Networks for Efficient Inference", 2019), found by trying.
    """

    def range(self, observer: Observer, linear: Linear) -> Range:
        """Return the best of some hundred ranges: both ends moved at once, then each on its own."""
        widest = best = _with_zero(*seen(observer))
        bins = observer.histogram.bins(_RESOLUTION)
        least = squared_error(bins, best, linear)
        # Twice over all of it, as the best place of one end depends on the other; then near the best.
        for factors, around in ((_COARSE, False), (_COARSE, False), (_FINE, True), (_FINEST, True)):
            for moves in ((1, 1),) if linear.symmetric else ((1, 1), (0, 1), (1, 0)):
                origin = best if around else widest
                for tried in {_moved(best, origin, moves, factor) for factor in factors} - {best}:
                    error = squared_error(bins, tried, linear)
                    if error < least and tried[0] >= widest[0] and tried[1] <= widest[1]:
                        best, least = tried, error
        return best

    def __str__(self) -> str:
        return "mse"


@dataclass(frozen=True)
class Entropy:
    """The range that loses the least information: the least Kullback-Leibler divergence of the values'
    distribution from that of their codes (Migacz, "8-bit Inference with TensorRT", GTC 2017).
    """

    def range(self, observer: Observer, linear: Linear) -> Range:
        """Return the best of about a hundred ranges; magnitudes count, so both ends are cut alike."""
        low, high = _with_zero(*seen(observer))
        bins = observer.histogram.magnitudes(_RESOLUTION)
        # Codes for the side that reaches further: all of them if there is but one side.
        side = 0.5 if linear.symmetric else max(-low, high) / (high - low or 1)
        levels = max(2, round(side * (linear.highest - linear.lowest + 1)))
        bound = _least_divergence(bins, levels) * bins.width
        return max(low, -bound), min(high, bound)

    def __str__(self) -> str:
        return "entropy"


METHODS: dict[str, Method] = {
    "minmax": MinMax(),
    "average": MovingAverage(),
    "percentile": Percentile(),
    "mse": LeastSquares(),
    "entropy": Entropy(),
}
"""Every method by its name."""

_RESOLUTION = 2048
"""How many bins with values the searches look at: Migacz's number."""

_COARSE = [2 ** (-step / 2) for step in range(21)]
_FINE = [2 ** (step / 12) for step in range(-5, 6)]
_FINEST = [2 ** (step / 64) for step in range(-4, 5)]


def method_named(text: str) -> Method:
    """Return the method that `text` names: one of `METHODS`, or ``percentile:99.9``.

    Raises:
        UsageError: there is none of that name, or the percentile is no number from 50 to 100.
    """
    name, colon, percent = text.partition(":")
    if name == "percentile" and colon:
        try:
            return Percentile(float(percent))
        except ValueError as error:
            raise UsageError(f"expected a number such as percentile:99.9, got '{text}'") from error
    if text not in METHODS:
        raise UsageError(
            f"there is no calibration method '{text}'{did_you_mean(name, METHODS)} "
            f"(methods: {', '.join(METHODS)}, or percentile:99.9)"
        )
    return METHODS[text]


def squared_error(bins: Bins, bounds: Range, linear: Linear) -> float:
    """Return the mean squared error of quantizing the values of a histogram to the range `bounds`.

    Values are taken as spread evenly over their bin, and the error is integrated over it exactly: beyond the
    outermost codes it is the square of the distance, between them that of rounding.
    """
    grid = grid_of_range(*bounds, linear)
    scale = float(grid.scale)
    lowest, highest = (float(limit) for limit in grid.limits)
    left, right = bins.left, bins.left + bins.width
    rounded = _rounding(np.clip(right, lowest, highest) / scale) - _rounding(
        np.clip(left, lowest, highest) / scale
    )
    below = np.maximum(lowest - left, 0) ** 3 - np.maximum(lowest - right, 0) ** 3
    above = np.maximum(right - highest, 0) ** 3 - np.maximum(left - highest, 0) ** 3
    errors = scale**3 * rounded + (below + above) / 3
    return float(bins.counts @ errors / bins.width / bins.counts.sum())


def _rounding(steps: np.ndarray) -> np.ndarray:
    """Return the integral of ``(t - round(t))**2`` from 0 to `steps`: 1/12 for each whole step."""
    whole = np.rint(steps)
    return np.asarray(whole / 12 + (steps - whole) ** 3 / 3)


def _least_divergence(bins: Bins, levels: int) -> int:
    """Return over how many bins of magnitudes, from zero on, the codes should be spread."""
    counts = np.zeros(int(bins.numbers.max()) + 1)
    counts[bins.numbers] = bins.counts
    if counts.size > 1:
        # Zero is exact in any range; its often many values would only drown the others.
        counts[0] = counts[1]
    # Where there is a tie, as between ranges that hold all values, the widest is the safest.
    tried = np.unique(np.geomspace(min(levels, counts.size), counts.size, 160).astype(np.int64))[::-1]
    return min(map(int, tried), key=lambda kept: _divergence(counts, kept, levels))


def _divergence(counts: np.ndarray, kept: int, levels: int) -> float:
    """Return the divergence, in nats, when `levels` codes stand for the first `kept` bins.

    What lies beyond counts as values of the last of them; the distribution of the codes spreads each code
    evenly over those of its bins that hold values. The last one is taken to hold at least one, or else a
    range that ends between the bulk and an outlier would diverge without bound.
    """
    inside = counts[:kept].copy()
    beyond = counts[kept:].sum()
    if beyond:
        inside[-1] = max(inside[-1], 1)
    reference = inside.copy()
    reference[-1] += beyond
    bounds = np.unique(np.rint(np.linspace(0, kept, levels + 1)).astype(np.int64))
    filled = (inside > 0).astype(np.float64)
    sums, sizes = (np.add.reduceat(each, bounds[:-1]) for each in (inside, filled))
    spread = np.repeat(sums / np.maximum(sizes, 1), np.diff(bounds)) * filled
    occupied = reference > 0
    reference, spread = reference[occupied] / reference.sum(), spread[occupied]
    return float(reference @ np.log(reference * (spread.sum() / spread)))


def seen(observer: Observer) -> Range:
    """Return the least and the greatest value.

    Raises:
        InputError: nothing was observed.
    """
    if not observer.updates:
        raise InputError("no range can be chosen for a tensor that was never computed; give calibration data")
    return observer.low, observer.high


def _with_zero(low: float, high: float) -> Range:
    return min(low, 0.0), max(high, 0.0)


def _moved(bounds: Range, origin: Range, moves: tuple[int, int], factor: float) -> Range:
    """Return `bounds` with each end that moves put at `factor` times where it is in `origin`."""
    low, high = (o * factor if move else b for b, o, move in zip(bounds, origin, moves, strict=True))
    return low, high
