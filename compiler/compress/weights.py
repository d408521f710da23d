"""The weights of a layer as codes and scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax

from compiler.compress.grids import weight_grid
from compiler.compress.numerics import LinearGrid
from compiler.compress.scheme import Linear
from compiler.ir.constants import constant


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
    grid = weight_grid(values, linear, channel_axis=axis)
    assert isinstance(grid, LinearGrid)
    scale = grid.scale.reshape(-1) if grid.scale.size > 1 else grid.scale.reshape(())
    return QuantizedWeights(grid.encode(values), scale, axis)
