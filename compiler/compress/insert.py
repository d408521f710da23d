"""A planned graph becomes a quantized one: pairs of quantize and dequantize, and weights as codes.

    conv2d(x, w)  ->  conv2d(dequantize(quantize(x, s, z), s, z), dequantize(codes, t, 0))

What computes it may do so in float, as it is written, or in integers (`compiler.passes.lower_quantized`).
How values are rounded is told by `compiler.compress.activations`, weights by `compiler.compress.weights`.
Biases stay in float: they are added to sums, which are int32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tvm
from tvm import relax

from compiler.compress.activations import RunTime, StoredGrid, at_run_time, stored
from compiler.compress.plan import Plan
from compiler.compress.rounding import Rounding
from compiler.ir.constants import constant


def insert(
    mod: tvm.IRModule,
    plan: Plan,
    grids: Mapping[Any, StoredGrid],
    weights: Mapping[Any, Any],
    corrections: Mapping[Any, np.ndarray],
    dynamic: RunTime | None = None,
) -> tvm.IRModule:
    """Return `mod` quantized as `plan` says.

    Args:
        mod: the module whose graph was planned.
        plan: what is quantized.
        grids: of each grid in the plan, by the value that stands for it.
        weights: what stands for the weights of each layer in the plan, by the value that it gives.
        corrections: what to add to the outputs of layers.
        dynamic: how layers round what they read at run time; None where they do not.
    """
    return _Insert(plan, grids, weights, corrections, dynamic).run(mod)


class _Insert(Rounding):
    name = "InsertQuantization"

    def __init__(
        self,
        plan: Plan,
        grids: Mapping[Any, StoredGrid],
        weights: Mapping[Any, Any],
        corrections: Mapping[Any, np.ndarray],
        dynamic: RunTime | None,
    ) -> None:
        self._grids = {var: grids[stands] for var, stands in plan.bytes.items()}
        super().__init__(self._grids)
        self._weights, self._corrections, self._dynamic = weights, corrections, dynamic
        self._read: dict[Any, Any] = {}

    def layer(self, expr: Any) -> Any:
        if self.old_var not in self._weights:
            return expr
        weight = self.emit(self._weights[self.old_var])
        expr = relax.Call(expr.op, [self._data(expr.args[0]), weight], expr.attrs, expr.ty_args)
        if self.old_var in self._corrections:
            expr = relax.op.add(self.emit(expr), constant(self._corrections[self.old_var]))
        return expr

    def round(self, var: Any, value: Any) -> Any:
        return stored(self.emit, value, self._grids[var])

    def _data(self, value: Any) -> Any:
        """Return what a layer that is given `value` multiplies by its weights; layers share it."""
        if self._dynamic is None:
            return value
        if value not in self._read:
            self._read[value] = at_run_time(self.emit, value, self._dynamic)
        return self._read[value]
