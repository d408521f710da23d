"""Products of two quantized activations as integer products.

    sa (a - za) times sb (b - zb)  =  sa sb (a b - za (columns of b - zb) - zb (rows of a)),

where a column of b, and a row of a, is summed along the depth: all in 32-bit integers, exactly. (B. Jacob and
others, Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, arXiv
1712.05877, section 2.3.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, te, tirx

from compiler.ir.constants import constant
from compiler.ir.rewriter import Rewriter, is_call
from compiler.passes.kernels.dense import Operand
from compiler.passes.quantized_values import Grid, Value

_DEEPEST = ((1 << 31) - 1) // (255 * 255)
"""The depth up to which sums of products of differences of bytes fit 32 bits."""


def why_not_in_integers(call: Any) -> str | None:
    """Return why a matrix product of two quantized activations has no integer form, or None if it has one."""
    left, right = (operand.ty for operand in call.args)
    if left.ndim < 2 or right.ndim < 2:
        return "one of its operands is a vector"
    sizes = [right.shape[axis] for axis in (right.ndim - 2, right.ndim - 1)]
    if not all(isinstance(size, (int, tirx.IntImm)) for size in sizes):
        return "the sizes of its right operand are known at run time only"
    if int(sizes[0]) > _DEEPEST:
        return "its sums may not fit 32 bits"
    return None


def product(rewriter: Rewriter, left: Grid, right: Grid) -> Value:
    """Return the value of the product of what the bytes `left` and `right` stand for.

    The right ones become signed: instructions for dot products take one operand of each sign, or two signed.
    """
    right = _signed(rewriter, right)
    depth = int(right.data.ty.shape[right.data.ty.ndim - 2])
    total = rewriter.emit(relax.op.matmul(left.data, right.data, out_dtype="int32"))
    corrections = [
        _summed(rewriter, right.data, -2, right.zero, left.zero),
        _summed(rewriter, left.data, -1, 0, right.zero),
    ]
    for correction in corrections:
        if correction is not None:
            total = rewriter.emit(relax.op.subtract(total, correction))
    factor = left.scale * right.scale
    none = np.zeros((), "float32")
    return Value(((total, np.array(factor, "float32")),), none, depth * 255 * 255 * factor)


def _signed(rewriter: Rewriter, grid: Grid) -> Grid:
    if str(grid.data.ty.dtype) == "int8":
        return grid
    wide = rewriter.emit(relax.op.astype(grid.data, "int32"))
    moved = rewriter.emit(relax.op.subtract(wide, constant(np.array(128, "int32"))))
    return Grid(rewriter.emit(relax.op.astype(moved, "int8")), grid.scale, grid.zero - 128)


def _summed(rewriter: Rewriter, data: Any, axis: int, zero: int, factor: int) -> Any | None:
    """Bind `factor` times the sum of `data` - `zero` along `axis`, which stays as one element, int32."""
    if not factor:
        return None
    stored, order = stored_of(rewriter, data)

    def summed(x: Any) -> Any:
        operand = Operand(x, order)
        k = te.reduce_axis((0, operand.shape[axis]), "k")
        shape = operand.shape
        shape[axis] = 1

        def value(*index: Any) -> Any:
            place = list(index)
            place[axis] = k
            code = operand.at(*place).astype("int32") - tirx.const(zero, "int32")
            return te.sum(code * tirx.const(factor, "int32"), axis=k)

        return te.compute(shape, value, name="sum_codes")

    return rewriter.emit(rewriter.builder.call_te(summed, stored, primfunc_name_hint="sum_codes"))


def stored_of(rewriter: Rewriter, expr: Any) -> tuple[Any, tuple[int, ...]]:
    """Return what `expr` is a transposition of, and the transposition."""
    call, rank = rewriter.definition(expr), expr.ty.ndim
    if not is_call(call, "relax.permute_dims"):
        return expr, tuple(range(rank))
    axes = call.attrs.axes
    order = range(rank)[::-1] if axes is None else [int(axis) % rank for axis in axes]
    return call.args[0], tuple(order)
