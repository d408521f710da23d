"""How an activation is rounded, as Relax operators: what a model computes when it is quantized.

    Linear, from data       dequantize(quantize(x, s, z), s, z)
    Float                   astype(astype(x, bfloat16), float32)
    Linear, at run time     the same as the first, with a scale and zero point of its own for each row of x:
                            s = (max(x, 0) - min(x, 0)) / 255,  z = round(-min(x, 0) / s)
    Binary, at run time     where(x >= 0, 1, -1) * mean(|x|)

What is rounded from data or to a shorter float is a value of the graph: all that read it read what was
rounded, and it is stored so. At run time it is what one layer reads, just before it does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax

from compiler.compress.floats import FloatGrid
from compiler.compress.numerics import LEAST_SCALE, LinearGrid
from compiler.compress.scheme import Binary, Linear, PerToken
from compiler.ir.constants import constant

Emit = Callable[[Any], Any]
"""Binds an expression, and gives the variable."""

StoredGrid = LinearGrid | FloatGrid
"""The values that a stored activation can have."""

RunTime = Linear | Binary
"""How a layer can round what it reads, with scales that it computes of that."""


def stored(emit: Emit, value: Any, grid: StoredGrid) -> Any:
    """Return `value`, float32, rounded to `grid`."""
    if isinstance(grid, FloatGrid):
        short = emit(relax.op.astype(value, grid.kind.dtype))
        return emit(relax.op.astype(short, "float32"))
    scale, zero = constant(grid.scale.reshape(())), constant(grid.zero_point.astype(np.int32).reshape(()))
    codes = emit(relax.op.quantize(value, scale, zero, axis=0, out_dtype=grid.linear.storage))
    return emit(relax.op.dequantize(codes, scale, zero, axis=0, out_dtype="float32"))


def at_run_time(emit: Emit, value: Any, become: RunTime) -> Any:
    """Return `value`, float32, rounded to what it is to `become`, on a grid that is made for it."""
    return _signs(emit, value) if isinstance(become, Binary) else _spanned(emit, value, become)


def _signs(emit: Emit, value: Any) -> Any:
    """Return the signs of `value` times its mean magnitude (Rastegari et al., "XNOR-Net", equation 6)."""
    one, other = constant(np.float32(1)), constant(np.float32(-1))
    sign = emit(relax.op.where(emit(relax.op.greater_equal(value, constant(np.float32(0)))), one, other))
    return emit(relax.op.multiply(sign, emit(relax.op.mean(emit(relax.op.abs(value))))))


def _spanned(emit: Emit, value: Any, linear: Linear) -> Any:
    """Return `value` rounded to a grid that spans it, or to one for each row of its last axis.

    A row is what a token's activations are (Yao et al., "ZeroQuant", NeurIPS 2022).
    """
    shape = value.ty.shape
    rows = isinstance(linear.granularity, PerToken)
    flat = emit(relax.op.reshape(value, (-1, shape[len(shape) - 1]) if rows else (1, -1)))
    nothing = constant(np.float32(0))
    low = emit(relax.op.minimum(emit(relax.op.min(flat, axis=1)), nothing))
    high = emit(relax.op.maximum(emit(relax.op.max(flat, axis=1)), nothing))
    step = constant(np.float32(1 / (linear.highest - linear.lowest)))
    scale = emit(relax.op.multiply(emit(relax.op.subtract(high, low)), step))
    scale = emit(relax.op.maximum(scale, constant(np.float32(LEAST_SCALE))))
    from_zero = emit(relax.op.divide(emit(relax.op.negative(low)), scale))
    zero = emit(relax.op.astype(emit(relax.op.round(from_zero)), "int32"))
    if linear.lowest:
        zero = emit(relax.op.add(zero, constant(np.int32(linear.lowest))))
    codes = emit(relax.op.quantize(flat, scale, zero, axis=0, out_dtype=linear.storage))
    rounded = emit(relax.op.dequantize(codes, scale, zero, axis=0, out_dtype="float32"))
    return emit(relax.op.reshape(rounded, shape))
