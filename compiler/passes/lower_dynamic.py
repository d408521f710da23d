"""Matrix products whose activations are quantized at run time become integer products.

    matmul(reshape(dequantize(quantize(reshape(x), s, z), s, z)), dequantize(w, t, 0))
    ->  rescale(matmul(quantize_rows(x, levels), w): int32, levels, t)     levels = (s, 1 / s, z) of each row

The scales `s` and zero points `z` are vectors of one for each row of `x`, or of one for all. Where they are
those that span each row, one kernel computes them (`compiler.passes.kernels.dynamic`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import relax

from compiler.ir.constants import array_of, constant
from compiler.ir.rewriter import Rewriter, is_call, module_pass
from compiler.passes.kernels import ELEMENTWISE
from compiler.passes.kernels.dynamic import quantize_rows, rescale_rows, row_levels
from compiler.passes.kernels.quantize import rounding
from compiler.passes.kernels.tensors import is_one
from compiler.passes.quantized_weights import Weights, weights_of
from compiler.support.dtypes import SHIFT


@dataclass(frozen=True, eq=False)
class _Rows:
    """An activation `data` whose rows become bytes of `dtype`: `scale` times (byte - `zero`)."""

    data: Any
    flat: Any
    scale: Any
    zero: Any
    dtype: str


class _LowerDynamic(Rewriter):
    name = "LowerDynamic"
    wanted = "uint8"

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[Any, tuple[Any, Any, int]] = {}

    def rewrite(self, expr: Any) -> Any:
        if not is_call(expr, "relax.matmul"):
            return expr
        rows, weights = self._rows(expr.args[0]), weights_of(expr, self.definition)
        if rows is None or isinstance(weights, str) or weights.moved.any():
            return expr
        return self._product(expr.args[0], rows, weights)

    def _product(self, read: Any, rows: _Rows, weights: Weights) -> Any:
        if read not in self._made:
            self._made[read] = self._codes(rows)
        codes, levels, shift = self._made[read]
        sums = self.emit(relax.op.matmul(codes, constant(weights.codes), out_dtype="int32"))
        totals = constant(weights.over_outputs(weights.codes).astype("int32"))
        scale = constant(np.broadcast_to(weights.scale, weights.codes.shape[1:]).astype("float32"))

        def rescaled(each: Any, row: Any, weight_sums: Any, step: Any) -> Any:
            return rescale_rows(each, row, weight_sums, step, shift)

        return self._call("rescale_rows", rescaled, sums, levels, totals, scale)

    def _codes(self, rows: _Rows) -> tuple[Any, Any, int]:
        """Return the bytes of `rows`, their levels, and what was added to the levels' zero points."""
        spanning = self._spanning(rows)
        shift = SHIFT[rows.dtype, self.wanted]
        if spanning is not None:
            levels = self.emit(self.builder.call_te(row_levels, rows.data, *spanning))
        else:
            levels = self.emit(self._assembled(rows))

        def quantized(x: Any, each: Any) -> Any:
            return quantize_rows(x, each, self.wanted, shift, rounding(cpu=True))

        codes = self._call("quantize_rows", quantized, rows.data, levels)
        return self.emit(codes), levels, shift

    def _assembled(self, rows: _Rows) -> Any:
        """Return the levels of scales and zero points that were computed in any other way."""
        rank = rows.data.ty.ndim
        leading = list(rows.data.ty.shape)[:-1] if self._is_each(rows) else [1] * (rank - 1)
        scale, zero = (
            self.emit(relax.op.reshape(each, (*leading, 1)))
            for each in (rows.scale, self.emit(relax.op.astype(rows.zero, "float32")))
        )
        reciprocal = self.emit(relax.op.divide(constant(np.float32(1)), scale))
        return relax.op.concat([scale, reciprocal, zero], axis=rank - 1)

    def _is_each(self, rows: _Rows) -> bool:
        """Tell whether each row of the data has a scale of its own."""
        *leading, _ = rows.data.ty.shape
        return not is_one(rows.scale.ty.shape[0]) or all(map(is_one, leading))

    def _call(self, name: str, compute: Callable[..., Any], *arguments: Any) -> Any:
        return self.builder.call_te(
            compute, *arguments, primfunc_name_hint=name, primfunc_attrs={ELEMENTWISE: True}
        )

    # What is matched

    def _rows(self, read: Any) -> _Rows | None:
        """Return the rows that `read` stands for, if it is what was quantized at run time."""
        call = self.definition(read)
        turned = is_call(call, "relax.reshape")
        given = self.definition(call.args[0]) if turned else call
        if not is_call(given, "relax.dequantize") or int(given.attrs.axis) != 0:
            return None
        codes, scale, zero = given.args
        quantize = self.definition(codes)
        if not is_call(quantize, "relax.quantize") or int(quantize.attrs.axis) != 0:
            return None
        if array_of(scale) is not None or not (
            quantize.args[1].same_as(scale) and quantize.args[2].same_as(zero)
        ):
            return None
        flat, dtype = quantize.args[0], str(quantize.attrs.out_dtype)
        if (
            str(flat.ty.dtype) != "float32"
            or dtype not in ("uint8", "int8")
            or not self._fits(flat, read, scale)
        ):
            return None
        return _Rows(self._shaped(flat, read.ty.shape), flat, scale, zero, dtype)

    def _shaped(self, flat: Any, shape: Any) -> Any:
        """Return `flat` in `shape`, as what it was flattened from if that has it."""
        before = self.definition(flat)
        for each in (flat, before.args[0] if is_call(before, "relax.reshape") else flat):
            if tvm_ffi.structural_equal(each.ty.shape, shape):
                return each
        return self.emit(relax.op.reshape(flat, shape))

    def _fits(self, flat: Any, data: Any, scale: Any) -> bool:
        """Tell whether `flat` is all rows of `data`, or all of it as one row that has one scale."""
        if scale.ty.ndim == 0 or flat.ty.ndim != 2:
            return False
        last = [expr.ty.shape[expr.ty.ndim - 1] for expr in (flat, data)]
        return is_one(flat.ty.shape[0]) or bool(tvm_ffi.structural_equal(*last))

    def _spanning(self, rows: _Rows) -> tuple[float, float] | None:
        """Return the step and the least scale if scales and zero points span each row of `data`.

        Only unsigned codes from 0 on, whose zero point is no sum.
        """
        scale = self._operands(rows.scale, "relax.maximum")
        spread = self._operands(scale[0], "relax.multiply") if scale else None
        ends = self._operands(spread[0], "relax.subtract") if spread else None
        if not scale or not spread or not ends or not self._is_each(rows):
            return None
        high, low = ends
        bounds = (
            self._bound(high, "relax.maximum", "relax.max"),
            self._bound(low, "relax.minimum", "relax.min"),
        )
        if any(bound is None or not bound.same_as(rows.flat) for bound in bounds) or not self._is_point(
            rows, low
        ):
            return None
        step, least = array_of(spread[1]), array_of(scale[1])
        return None if step is None or least is None else (float(step), float(least))

    def _bound(self, expr: Any, outer: str, inner: str) -> Any | None:
        """Return what `expr` reduces, each row to its end or zero."""
        operands = self._operands(expr, outer)
        if not operands or (zero := array_of(operands[1])) is None or zero.any():
            return None
        call = self.definition(operands[0])
        axes = [int(axis) for axis in call.attrs.axis] if is_call(call, inner) and call.attrs.axis else []
        return call.args[0] if axes == [1] and not call.attrs.keepdims else None

    def _is_point(self, rows: _Rows, low: Any) -> bool:
        """Tell whether the zero point is ``round(-low / scale)``."""
        cast = self._operands(rows.zero, "relax.astype")
        whole = self._operands(cast[0], "relax.round") if cast else None
        ratio = self._operands(whole[0], "relax.divide") if whole else None
        negative = self._operands(ratio[0], "relax.negative") if ratio else None
        return bool(
            ratio and negative and negative[0].same_as(low) and ratio[1].same_as(rows.scale)
            and rows.dtype == "uint8"
        )  # fmt: skip

    def _operands(self, expr: Any, name: str) -> list[Any] | None:
        call = self.definition(expr)
        return list(call.args) if is_call(call, name) else None


def lower_dynamic(*, unsigned: bool) -> Callable[[tvm.IRModule], tvm.IRModule]:
    """Return the pass for kernels that multiply unsigned or signed bytes by signed ones."""
    wanted = "uint8" if unsigned else "int8"
    return module_pass(type("_LowerDynamic", (_LowerDynamic,), {"wanted": wanted}))
