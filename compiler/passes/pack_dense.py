"""Matrix products as calls of the blocked kernels.

A product with a constant matrix gets its weights packed into panels of one vector's width at compile time;
a product of two activations becomes the kernel that the schedule rules know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relax, tirx

from compiler.ir.constants import array_of, constant
from compiler.ir.rewriter import Rewriter, is_call, module_pass
from compiler.passes.kernels import OUT_ELEMWISE_FUSABLE
from compiler.passes.kernels import dense as kernel
from compiler.passes.kernels.narrow import BYTES, are_narrow, parts_of
from compiler.passes.kernels.narrow_matmul import narrow_matmul
from compiler.passes.quantized_products import stored_of, why_not_in_integers

_WORTH_PACKING = 4
"""Rows that share a matrix from which on packing it pays: it costs about as much as two of them."""


class _PackDense(Rewriter):
    name = "PackDense"
    lanes = 0

    def rewrite(self, expr: Any) -> Any:
        if not is_call(expr, "relax.matmul"):
            return expr
        left, right = expr.args
        weight = self._weight(right)
        if weight is not None and are_narrow(str(left.ty.dtype), str(weight.dtype)):
            return self._narrow(left, weight) if left.ty.ndim >= 2 else expr
        if weight is None and self._are_bytes(expr):
            return self._narrow_product(left, right)
        if any(str(operand.ty.dtype) != "float32" for operand in (left, right)):
            return expr
        if weight is not None and left.ty.ndim >= 2:
            packed = constant(kernel.pack_dense_weights(weight, self._panel(weight.shape[1])))
            outputs = weight.shape[1]
            return self._call(lambda x, w: kernel.dense(x, w, outputs), left, packed, name="dense")
        if left.ty.ndim < 2 or right.ty.ndim < 2 or not _known(left) or not _known(right):
            return expr
        return self._product(left, right)

    def _narrow(self, left: Any, weight: np.ndarray) -> Any:
        """Return the product of bytes or short floats; as many as fill 32 bits are taken at a time."""
        depth, outputs = weight.shape
        left = self._padded(left, -depth % parts_of(weight.dtype))
        packed = constant(kernel.pack_narrow_dense_weights(weight, self.lanes))
        return self._call(lambda x, w: kernel.dense_narrow(x, w, outputs), left, packed, name="dense")

    def _padded(self, left: Any, missing: int) -> Any:
        """Return `left` with `missing` zeros after each row."""
        if not missing:
            return left
        return self.emit(relax.op.nn.pad(left, [0] * (2 * left.ty.ndim - 1) + [missing]))

    def _are_bytes(self, call: Any) -> bool:
        """Tell whether two activations of bytes are multiplied whose depth and columns are numbers."""
        left, right = call.args
        data, weight = (str(operand.ty.dtype) for operand in (left, right))
        if str(call.attrs.out_dtype) != "int32" or data not in BYTES or not are_narrow(data, weight):
            return False
        return why_not_in_integers(call) is None

    def _narrow_product(self, left: Any, right: Any) -> Any:
        """Return the product of two activations of bytes; transpositions become part of its reads.

        All but one of the left operand that tears rows apart: four bytes of a row have to lie side by side.
        """
        (rows, order_a), (right, order_b) = stored_of(self, left), stored_of(self, right)
        if order_a[-1] != len(order_a) - 1:
            rows, order_a = left, ()
        depth = int(right.ty.shape[order_b[-2]])
        rows = self._padded(rows, -depth % parts_of("int8"))
        return self._call(
            lambda a, b: narrow_matmul(a, b, self.lanes, order_a, order_b), rows, right, name="matmul"
        )

    def _product(self, left: Any, right: Any) -> Any:
        """Return the product of two activations; transpositions of both become part of its reads."""
        (left, order_a), (right, order_b) = stored_of(self, left), stored_of(self, right)
        columns = right.ty.shape[order_b[-1]]
        rows = left.ty.shape[order_a[-2]]
        known = isinstance(columns, (int, tirx.IntImm)) and int(columns) > 1
        contiguous = order_b[-1] == len(order_b) - 1
        if known and not (contiguous and (int(columns) % self.lanes == 0 or _few(rows))):
            return self._call(
                lambda a, b: kernel.packed_matmul(a, b, self._panel(int(columns)), order_a, order_b),
                left,
                right,
                name="matmul",
            )
        return self._call(lambda a, b: kernel.matmul(a, b, order_a, order_b), left, right, name="matmul")

    def _call(self, compute: Any, *arguments: Any, name: str) -> Any:
        return self.builder.call_te(
            compute, *arguments,
            primfunc_name_hint=name, primfunc_attrs={"op_pattern": OUT_ELEMWISE_FUSABLE},
        )  # fmt: skip

    def _panel(self, outputs: int) -> int:
        """Return the panel's width: the one of fewest vectors, and of these the one of least padding."""
        widths = [lanes for lanes in (self.lanes, self.lanes // 2, self.lanes // 4) if lanes > 1]
        return min(widths, key=lambda lanes: (-(-outputs // lanes), -outputs % lanes))

    def _weight(self, expr: Any) -> np.ndarray | None:
        """Return a constant (K, N) matrix, also behind the transposition that linear layers import with."""
        call = self.definition(expr)
        if is_call(call, "relax.permute_dims") and call.args[0].ty.ndim == 2:
            stored = array_of(call.args[0])
            return None if stored is None else stored.T
        value = array_of(call)
        return value if value is not None and value.ndim == 2 else None


def _few(rows: Any) -> bool:
    """Tell whether a matrix is used too seldom to be packed first."""
    return isinstance(rows, (int, tirx.IntImm)) and int(rows) < _WORTH_PACKING


def _known(expr: Any) -> bool:
    return isinstance(expr.ty.shape, relax.ShapeExpr)


def pack_dense(lanes: int) -> Callable[[tvm.IRModule], tvm.IRModule]:
    """Return the pass for vectors of `lanes` float32 values."""
    return module_pass(type("_PackDense", (_PackDense,), {"lanes": lanes}))
