"""What is known of one tensor after some data: collected once, in constant memory, for every method.

An observer does not choose a range; it keeps what all methods of `compiler.compress.ranges` need, so that
saved statistics can be used with another method without another pass over the data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from compiler.compress.histogram import BINS, Histogram
from compiler.support.errors import InputError

_MOMENTUM = 0.01
"""The least weight of a new update in the moving average of Jacob et al., CVPR 2018, section 3.1."""

_ROOT = np.float32(1e15)
"""Squares of greater values, and sums of many, would be infinite as float32."""

Arrays = Mapping[str, np.ndarray]


class Observer:
    """Statistics of one tensor, gathered over any number of updates.

    Attributes:
        histogram: counts of all values, with the least and the greatest one.
        average: moving averages of the least and the greatest value of an update.
        updates: how many arrays were seen.
        channels: statistics for each index of `channel_axis`, None where that is None.
    """

    def __init__(self, channel_axis: int | None = None) -> None:
        """Observe the whole tensor and, along `channel_axis`, each channel (some methods balance them)."""
        self.channel_axis = channel_axis
        self.histogram = Histogram()
        self.average = (0.0, 0.0)
        self.updates = 0
        self.channels = None if channel_axis is None else Channels(channel_axis)

    def update(self, values: np.ndarray) -> None:
        """Take in one array; any number type, compared as float32.

        Raises:
            InputError: a value is NaN or infinite, or the number of channels changed.
        """
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(values, np.float32)
        if not array.size:
            return
        # NaN passes through both; no third pass over the data is needed.
        low, high = float(array.min()), float(array.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise InputError(_not_finite(array))
        if self.channels is not None:
            self.channels.update(array)
        self.histogram.add(array, low, high)
        self.updates += 1
        # The plain average of the first updates: else the first one would outweigh them all.
        weight = max(1 / self.updates, _MOMENTUM)
        self.average = (
            self.average[0] + weight * (low - self.average[0]),
            self.average[1] + weight * (high - self.average[1]),
        )

    @property
    def low(self) -> float:
        """The least value seen; infinity before the first."""
        return self.histogram.low

    @property
    def high(self) -> float:
        """The greatest value seen; minus infinity before the first."""
        return self.histogram.high

    @property
    def mean_magnitude(self) -> float:
        """The mean of ``|value|``, to within half a bin of the histogram."""
        bins = self.histogram.magnitudes()
        return float(bins.counts @ (bins.left + bins.width / 2) / max(int(bins.counts.sum()), 1))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return all there is as plain arrays; `from_arrays` reads them."""
        histogram = self.histogram
        arrays = {
            "range": np.array([histogram.low, histogram.high]),
            "average": np.array(self.average),
            "updates": np.array(self.updates),
            "bins": np.array([histogram.exponent, histogram.start]),
            "counts": histogram.counts,
        }
        return arrays if self.channels is None else arrays | self.channels.to_arrays()

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Observer:
        """Return the observer that `to_arrays` wrote; it may go on observing.

        Raises:
            InputError: an array is missing or cannot be what it should be.
        """
        observer = cls()
        histogram = observer.histogram
        histogram.low, histogram.high = map(float, _read(arrays, "range", (2,), "f"))
        low, high = map(float, _read(arrays, "average", (2,), "f"))
        observer.average = (low, high)
        observer.updates = int(_read(arrays, "updates", (), "i"))
        histogram.exponent, histogram.start = map(int, _read(arrays, "bins", (2,), "i"))
        histogram.counts = _read(arrays, "counts", (BINS,), "i").astype(np.int64)
        if "channel_axis" in arrays:
            observer.channels = Channels.from_arrays(arrays)
            observer.channel_axis = observer.channels.axis
        return observer


class Channels:
    """The least and greatest value and the mean of each channel.

    Attributes:
        axis: the axis of channels.
        low: float32, one a channel.
        high: float32, one a channel.
        total: the sum of the values, float64, one a channel.
        squares: the sum of their squares, float64, one a channel.
        count: how many values a channel had.
    """

    def __init__(self, axis: int) -> None:
        self.axis = axis
        self.low = self.high = self.total = self.squares = np.zeros(0)
        self.count = 0

    @property
    def mean(self) -> np.ndarray:
        """The mean of each channel, float64."""
        return self.total / max(self.count, 1)

    @property
    def power(self) -> np.ndarray:
        """The mean square of each channel, float64."""
        return self.squares / max(self.count, 1)

    def update(self, array: np.ndarray) -> None:
        """Take in one float32 array.

        Raises:
            InputError: the number of channels changed, or there is no such axis.
        """
        if not -array.ndim <= self.axis < array.ndim:
            raise InputError(f"expected channels along axis {self.axis}, got an array of rank {array.ndim}")
        others = tuple(axis for axis in range(array.ndim) if axis != self.axis % array.ndim)
        low, high, total = array.min(axis=others), array.max(axis=others), _sum(array, others)
        squares = _sum(np.square(np.clip(array, -_ROOT, _ROOT)), others)
        if self.count and low.shape != self.low.shape:
            raise InputError(f"expected {self.low.size} channels as before, got {low.size}")
        if self.count:
            low, high = np.minimum(low, self.low), np.maximum(high, self.high)
            total, squares = total + self.total, squares + self.squares
        self.low, self.high, self.total, self.squares = low, high, total, squares
        self.count += array.size // low.size

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return all there is as plain arrays."""
        return {
            "channel_axis": np.array(self.axis),
            "channel_low": self.low,
            "channel_high": self.high,
            "channel_total": self.total,
            "channel_squares": self.squares,
            "channel_count": np.array(self.count),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Channels:
        """Return what `to_arrays` wrote.

        Raises:
            InputError: an array is missing or cannot be what it should be.
        """
        channels = cls(int(_read(arrays, "channel_axis", (), "i")))
        channels.low = _read(arrays, "channel_low", None, "f")
        channels.high = _read(arrays, "channel_high", channels.low.shape, "f")
        channels.total = _read(arrays, "channel_total", channels.low.shape, "f")
        channels.squares = _read(arrays, "channel_squares", channels.low.shape, "f")
        channels.count = int(_read(arrays, "channel_count", (), "i"))
        return channels


def _sum(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Sum float32 over `axes`: within the last axis in float32, pairwise, across in float64."""
    if axes and axes[-1] == array.ndim - 1:
        array, axes = array.sum(axis=-1), axes[:-1]
    return np.asarray(array.sum(axis=axes, dtype=np.float64))


def _read(arrays: Arrays, name: str, shape: tuple[int, ...] | None, kind: str) -> np.ndarray:
    """Return an array of the statistics after a look at its shape and the kind of its numbers."""
    array = arrays.get(name)
    if array is None or array.dtype.kind != kind or (shape is not None and array.shape != shape):
        got = "nothing" if array is None else f"{array.dtype} of shape {array.shape}"
        raise InputError(f"expected '{name}' of shape {shape}, got {got}")
    return array


def _not_finite(array: np.ndarray) -> str:
    wrong = ~np.isfinite(array)
    place = tuple(int(index) for index in np.argwhere(wrong)[0])
    return f"got {array[place]} at {place}; {int(wrong.sum())} of {array.size} values are NaN or infinite"
