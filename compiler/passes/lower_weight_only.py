"""Layers of floats whose weights are codes become kernels that read the codes.

    matmul(x, dequantize(codes, scale, 0))  ->  coded_dense(x, words) * scale
    the same with a scale for each group    ->  coded_dense(x, words, scales)
    matmul(x, weights of 16-bit floats)     ->  coded_dense(x, weights)

The codes stay as small in the library as their bits make them; `compiler.passes.kernels.codes` says how they
are packed. The value is that of the graph: codes are decoded to float32 before they are multiplied. What
limits a product of few rows is reading its weights (Frantar et al., "GPTQ", 2022, section 5).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relax

from compiler.ir.constants import constant
from compiler.ir.rewriter import Rewriter, is_call, module_pass
from compiler.passes.coded_weights import CodedMatrix, coded_weights, hidden, matrix_of
from compiler.passes.kernels import OUT_ELEMWISE_FUSABLE
from compiler.passes.kernels.coded_dense import coded_dense
from compiler.passes.kernels.codes import Coding, coding_of, pack_codes
from compiler.passes.kernels.dense import pack_dense_weights
from compiler.passes.kernels.narrow import SHORT_FLOATS


class _LowerWeightOnly(Rewriter):
    name = "LowerWeightOnly"
    lanes = 0

    def rewrite(self, expr: Any) -> Any:
        if is_call(expr, "relax.nn.conv1d", "relax.nn.conv2d"):
            return self._convolution(expr)
        if not is_call(expr, "relax.matmul") or str(expr.args[0].ty.dtype) != "float32":
            return expr
        data, weights = expr.args[0], coded_weights(expr.args[1], self.definition)
        if weights is None or weights.codes.ndim != 2 or data.ty.ndim < 2:
            return expr
        matrix = matrix_of(weights.codes, np.broadcast_to(weights.scale, weights.codes.shape))
        coding = coding_of(matrix.codes, matrix.group)
        split = coding.per == 1 and coding.kind not in SHORT_FLOATS  # a group ends inside of each word
        return expr if split else self._dense(data, matrix, coding)

    def _convolution(self, call: Any) -> Any:
        """Return a convolution with codes kept for the blocked layout, where that has a kernel for them."""
        data, weight = call.args
        layouts = (str(call.attrs.data_layout), str(call.attrs.kernel_layout))
        weights = coded_weights(weight, self.definition)
        if weights is None or str(data.ty.dtype) != "float32" or int(call.attrs.groups) != 1:
            return call
        if layouts not in (("NCHW", "OIHW"), ("NCW", "OIW")):
            return call
        kept = self.emit(hidden(weights, weight.ty))
        return relax.Call(call.op, [data, kept], call.attrs, call.ty_args)

    def _dense(self, data: Any, matrix: CodedMatrix, coding: Coding) -> Any:
        depth, outputs = matrix.codes.shape
        if depth % coding.per:
            widths = [0] * (2 * data.ty.ndim - 1) + [-depth % coding.per]
            data = self.emit(relax.op.nn.pad(data, widths))
        words = constant(pack_codes(matrix.codes, coding, self.lanes))
        if matrix.group:
            scales = constant(pack_dense_weights(matrix.scale, self.lanes))
            return self._call(
                lambda x, w, s: coded_dense(x, w, outputs, coding, s, matrix.group), data, words, scales
            )
        made = self._call(lambda x, w: coded_dense(x, w, outputs, coding), data, words)
        if (matrix.scale == 1).all():
            return made
        return relax.op.multiply(self.emit(made), constant(matrix.scale.reshape(-1)))

    def _call(self, compute: Any, *arguments: Any) -> Any:
        return self.builder.call_te(
            compute, *arguments,
            primfunc_name_hint="coded_dense", primfunc_attrs={"op_pattern": OUT_ELEMWISE_FUSABLE},
        )  # fmt: skip


def lower_weight_only(lanes: int) -> Callable[[tvm.IRModule], tvm.IRModule]:
    """Return the pass for vectors of `lanes` float32 values."""
    return module_pass(type("_LowerWeightOnly", (_LowerWeightOnly,), {"lanes": lanes}))
