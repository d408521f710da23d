"""Matrix products as calls of the blocked kernels.

A product with a constant matrix gets its weights packed into panels of one vector's width at compile time;
a product of two activations becomes the kernel that the schedule rules know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relax

from compiler.passes.constants import array_of, constant
from compiler.passes.kernels import OUT_ELEMWISE_FUSABLE
from compiler.passes.kernels import dense as kernel
from compiler.passes.rewriter import Rewriter, is_call, module_pass


class _PackDense(Rewriter):
    name = "PackDense"
    lanes = 0

    def rewrite(self, expr: Any) -> Any:
        if not is_call(expr, "relax.matmul"):
            return expr
        left, right = expr.args
        if any(str(operand.ty.dtype) != "float32" for operand in (left, right)):
            return expr
        weight = self._weight(right)
        if weight is not None and left.ty.ndim >= 2:
            packed = constant(kernel.pack_dense_weights(weight, self._panel(weight.shape[1])))
            return self._call(kernel.dense, left, packed, weight.shape[1])
        if left.ty.ndim < 2 or right.ty.ndim < 2 or not _known(left) or not _known(right):
            return expr
        return self._call(kernel.matmul, left, right)

    def _call(self, compute: Any, *arguments: Any) -> Any:
        return self.builder.call_te(
            compute, *arguments,
            primfunc_name_hint=compute.__name__, primfunc_attrs={"op_pattern": OUT_ELEMWISE_FUSABLE},
        )  # fmt: skip

    def _panel(self, outputs: int) -> int:
        """Return the panel's width: one vector, or a half or a quarter where that leaves no padded column."""
        for lanes in (self.lanes, self.lanes // 2, self.lanes // 4):
            if lanes > 1 and outputs % lanes == 0:
                return lanes
        return self.lanes

    def _weight(self, expr: Any) -> np.ndarray | None:
        """Return a constant (K, N) matrix, also behind the transposition that linear layers import with."""
        call = self.definition(expr)
        if is_call(call, "relax.permute_dims") and call.args[0].ty.ndim == 2:
            stored = array_of(call.args[0])
            return None if stored is None else stored.T
        value = array_of(call)
        return value if value is not None and value.ndim == 2 else None


def _known(expr: Any) -> bool:
    return isinstance(expr.ty.shape, relax.ShapeExpr)


def pack_dense(lanes: int) -> Callable[[tvm.IRModule], tvm.IRModule]:
    """Return the pass for vectors of `lanes` float32 values."""
    return module_pass(type("_PackDense", (_PackDense,), {"lanes": lanes}))
