"""Which elements of an array share a scale, as shapes that numpy can broadcast.

granularity   array        one parameter for                              parameters
PerTensor     (8, 16, 3)   everything                                     ()
PerChannel    (8, 16, 3)   each index of the channel axis                 (8, 1, 1)
PerGroup(4)   (8, 16, 3)   each channel and 4 indices of the group axis   (8, 4, 1)
PerToken      (8, 16, 3)   each row along the last axis                   (8, 16, 1)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compiler.compress.scheme import Granularity, PerChannel, PerGroup, PerTensor, PerToken
from compiler.support.errors import InputError


@dataclass(frozen=True)
class Blocks:
    """How `granularity` divides an array.

    `channel_axis` is the axis of output channels, `group_axis` the one that is summed over; negative axes
    count from the end.
    """

    granularity: Granularity
    channel_axis: int = 0
    group_axis: int = 1

    def reduce(self, function: np.ufunc, array: np.ndarray) -> np.ndarray:
        """Reduce each block of `array` with ``np.minimum``, ``np.add`` or the like; the dtype stays."""
        if isinstance(self.granularity, PerTensor):
            return np.asarray(function.reduce(array, axis=None))
        if isinstance(self.granularity, PerGroup):
            starts = np.arange(0, array.shape[self.group_axis], self.granularity.size)
            array = function.reduceat(array, starts, axis=self.group_axis)
        kept = self._kept(array.ndim)
        shared = tuple(axis for axis in range(array.ndim) if axis not in kept)
        return np.asarray(function.reduce(array, axis=shared, keepdims=True))

    def mean(self, array: np.ndarray) -> np.ndarray:
        """Return the mean of each block, as float64."""
        total = self.reduce(np.add, np.asarray(array, np.float64))
        return np.asarray(total / self.reduce(np.add, np.broadcast_to(1.0, array.shape)))

    def spread(self, parameters: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """Return `parameters` of the blocks of an array of `shape`, ready to broadcast against it."""
        if not isinstance(self.granularity, PerGroup):
            return parameters
        extent = shape[self.group_axis]
        wide = np.repeat(parameters, self.granularity.size, axis=self.group_axis)
        return np.take(wide, range(extent), axis=self.group_axis)

    def _kept(self, rank: int) -> set[int]:
        """Return the axes along which parameters differ."""
        if isinstance(self.granularity, PerToken):
            return set(range(rank - 1))
        if isinstance(self.granularity, PerChannel):
            return {self.channel_axis % rank}
        return {self.channel_axis % rank, self.group_axis % rank}


WHOLE = Blocks(PerTensor())
"""One block: everything."""


def finite(values: np.ndarray) -> np.ndarray:
    """Return `values` as float32, or raise what is wrong with them.

    Raises:
        InputError: there are none, or one is NaN or infinite, as float64 or as float32.
    """
    with np.errstate(over="ignore"):
        array = np.asarray(values, dtype=np.float32)
    if not array.size:
        raise InputError(f"expected at least one value to quantize, got an array of shape {array.shape}")
    wrong = ~np.isfinite(array)
    if wrong.any():
        place = tuple(int(index) for index in np.argwhere(wrong)[0])
        raise InputError(
            f"expected finite values of type float32, got {np.asarray(values)[place]} at {place} "
            f"({int(wrong.sum())} of {array.size} values are NaN or too large)"
        )
    return array
