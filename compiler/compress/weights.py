"""The weights of a layer as codes, and as Relax computes them from these.

    Linear, per tensor or channel    dequantize(codes, scale, 0)
    Linear, per group                reshape(dequantize(codes (outputs * groups, size), scale, 0))
    Log2                             dequantize(sign * 2**(|code| - 1), 2**(exponent + 1), 0)
    Binary                           dequantize(sign, scale, 0)
    Float                            astype(short, float32)

Eight bits span all weights. With fewer, cutting the largest ones off pays: each scale is the one with the
least squared error of some that were tried (Choukroun et al., "Low-bit Quantization of Neural Networks for
Efficient Inference", 2019). Weights are rounded such that the sums of kernels stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax

from compiler.compress.adaptive import round_adaptively
from compiler.compress.floats import FloatGrid
from compiler.compress.grids import Grid, weight_grid
from compiler.compress.numerics import LinearGrid, grid_of_range
from compiler.compress.powers import PowerGrid
from compiler.compress.scheme import PerGroup, Quantizer
from compiler.compress.signs import SignGrid
from compiler.ir.constants import constant

_PARTS = [1 - step / 40 for step in range(1, 30)]
"""Parts of a range that are tried."""


@dataclass(frozen=True, eq=False)
class QuantizedWeights:
    """Codes in the shape of the weights, and the grid that says what they stand for.

    Outputs lie along `axis`; what is summed over, along `group_axis`.
    """

    codes: np.ndarray
    grid: Grid
    axis: int
    group_axis: int

    @property
    def values(self) -> np.ndarray:
        """The float32 values that the codes stand for."""
        return self.grid.decode(self.codes)

    def expr(self) -> Any:
        """Return the values as Relax computes them from constants."""
        grid = self.grid
        if isinstance(grid, FloatGrid):
            return relax.op.astype(constant(self.codes), "float32")
        if isinstance(grid, PowerGrid):
            return self._scaled(*_powers(self.codes, grid))
        assert isinstance(grid, (LinearGrid, SignGrid))
        if isinstance(grid.blocks.granularity, PerGroup):
            return self._grouped(self.codes, grid.scale, grid.blocks.granularity.size)
        return self._scaled(self.codes, grid.scale)

    def _scaled(self, codes: np.ndarray, scale: np.ndarray) -> Any:
        """Return codes times one scale, or one along the axis of outputs."""
        steps = scale.reshape(-1 if scale.size > 1 else ())
        if codes.dtype != np.int8:  # of which Relax' dequantize has none
            return relax.op.multiply(relax.op.astype(constant(codes), "float32"), constant(scale))
        zero = np.zeros(steps.shape, np.int8)
        return relax.op.dequantize(
            constant(codes), constant(steps), constant(zero), axis=self.axis, out_dtype="float32"
        )

    def _grouped(self, codes: np.ndarray, scale: np.ndarray, size: int) -> Any:
        """Return codes times the scales of groups of `size` along the axis that is summed over.

        A group is one index of the axis along which scales differ: the last one is filled up for that.
        """
        order = (self.axis, self.group_axis, *(a for a in range(codes.ndim) if a not in self._axes))
        turned, inputs = codes.transpose(order), codes.shape[self.group_axis]
        missing = -inputs % size
        filled = np.pad(turned, [(0, 0), (0, missing), *[(0, 0)] * (codes.ndim - 2)])
        apart = filled.reshape(-1, size, *filled.shape[2:])
        steps = scale.transpose(order).reshape(-1)
        values = relax.op.dequantize(
            constant(apart), constant(steps), constant(np.zeros(steps.shape, np.int8)), axis=0,
            out_dtype="float32",
        )  # fmt: skip
        together = relax.op.reshape(values, filled.shape)
        if missing:
            together = relax.op.strided_slice(together, [1], [0], [inputs])
        back = [order.index(axis) for axis in range(codes.ndim)]
        return together if back == sorted(back) else relax.op.permute_dims(together, back)

    @property
    def _axes(self) -> tuple[int, int]:
        return self.axis, self.group_axis


def quantize_weights(
    values: np.ndarray,
    quantizer: Quantizer,
    axis: int,
    group_axis: int = 1,
    moments: np.ndarray | None = None,
) -> QuantizedWeights:
    """Return the weights of a layer whose outputs lie along `axis`, and which sums along `group_axis`.

    With second `moments` of what the layer reads (`compiler.compress.moments`) linear codes are rounded
    adaptively.

    Raises:
        InputError: a weight is NaN or infinite.
    """
    grid = weight_grid(values, quantizer, axis, group_axis)
    if isinstance(grid, LinearGrid) and grid.linear.bits < 8:
        grid = _narrowed(values, grid)
    codes = grid.encode(values)
    if isinstance(grid, LinearGrid) and values.ndim > 2:
        codes = _with_true_sums(codes, values, grid)
    if isinstance(grid, LinearGrid) and moments is not None:
        codes = round_adaptively(values, codes, grid, moments, axis)
    return QuantizedWeights(codes, grid, axis, group_axis)


def _powers(codes: np.ndarray, grid: PowerGrid) -> tuple[np.ndarray, np.ndarray]:
    """Return signed powers of two from 1 on, the least that integers have, and their scale."""
    size = np.abs(codes.astype(np.int32))
    powers = np.where(size > 0, np.sign(codes) * (1 << np.maximum(size - 1, 0)), 0)
    narrow = np.int8 if powers.size == 0 or abs(powers).max() <= 127 else np.int16
    return powers.astype(narrow), np.ldexp(np.float32(1), grid.exponent + 1)


def _with_true_sums(codes: np.ndarray, values: np.ndarray, grid: LinearGrid) -> np.ndarray:
    """Return `codes` with some rounded the other way, so that each kernel's sum is right to half a step.

    Neighbours in an image are alike: what a kernel makes of it depends on its sum more than on each weight.
    Those move that were nearest to being rounded so (Guo et al., "SQuant", ICLR 2022, section 3.2).
    """
    scale = grid.blocks.spread(grid.scale, values.shape)
    steps = (codes - values / scale).reshape(*values.shape[:2], -1)
    steps[np.abs(steps) > 0.5] = 0  # cut off, not rounded
    sums = steps.sum(-1, keepdims=True)
    towards = np.sign(sums)
    rank = np.argsort(np.argsort(-steps * towards, -1), -1)
    moves = np.where(rank < np.rint(np.abs(sums)), towards, 0).reshape(values.shape)
    moved = np.clip(codes - moves, grid.linear.lowest, grid.linear.highest)
    return np.asarray(moved, codes.dtype)


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
