"""The weights of a layer as codes and scales.

Eight bits span all weights. With fewer, cutting the largest ones off pays: each scale is the one with the
least squared error of some that were tried (Choukroun et al., "Low-bit Quantization of Neural Networks for
Efficient Inference", 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax

from compiler.compress.blocks import Blocks
from compiler.compress.numerics import LinearGrid, grid_of_range, grid_of_values
from compiler.compress.scheme import Linear
from compiler.ir.constants import constant

_PARTS = [1 - step / 40 for step in range(1, 30)]
"""Parts of a range that are tried."""


@dataclass(frozen=True, eq=False)
class QuantizedWeights:
    """Codes (int8) in the shape of the weights, and their scale: one number, or one along `axis`."""

    codes: np.ndarray
    scale: np.ndarray
    axis: int

    @property
    def values(self) -> np.ndarray:
        """The float32 values that the codes stand for."""
        shape = [1] * self.codes.ndim
        if self.scale.size > 1:
            shape[self.axis] = -1
        return np.asarray(self.codes.astype(np.float32) * self.scale.reshape(shape))

    def expr(self) -> Any:
        """Return the values as Relax computes them from constants."""
        zero = np.zeros(self.scale.shape, np.int8)
        return relax.op.dequantize(
            constant(self.codes), constant(self.scale), constant(zero), axis=self.axis, out_dtype="float32"
        )


def quantize_weights(values: np.ndarray, linear: Linear, axis: int) -> QuantizedWeights:
    """Return the weights of a layer whose outputs lie along `axis`.

    Raises:
        InputError: a weight is NaN or infinite.
    """
    blocks = Blocks(linear.granularity, channel_axis=axis)
    grid = grid_of_values(values, linear, blocks)
    if linear.bits < 8:
        grid = _narrowed(values, grid)
    scale = grid.scale.reshape(-1) if grid.scale.size > 1 else grid.scale.reshape(())
    return QuantizedWeights(grid.encode(values), scale, axis)


def _narrowed(values: np.ndarray, grid: LinearGrid) -> LinearGrid:
    """Return the grid whose blocks each span the part of their range that has the least squared error."""
    blocks, linear = grid.blocks, grid.linear
    low, high = (blocks.reduce(function, values) for function in (np.minimum, np.maximum))
    best = np.ones(low.shape)
    least = _squared_error(values, grid)
    for part in _PARTS:
        error = _squared_error(values, grid_of_range(low * part, high * part, linear, blocks))
        best = np.where(error < least, part, best)
        least = np.minimum(error, least)
    return grid_of_range(low * best, high * best, linear, blocks)


def _squared_error(values: np.ndarray, grid: LinearGrid) -> np.ndarray:
    error = np.asarray((grid.decode(grid.encode(values)) - values) ** 2)
    return grid.blocks.reduce(np.add, error)
