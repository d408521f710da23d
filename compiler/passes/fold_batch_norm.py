"""Batch norm with constant statistics becomes one multiply and one add per channel.

    batch_norm(x, gamma, beta, mean, var)[0]  ->  x * scale + shift
    scale = gamma / sqrt(var + epsilon),  shift = beta - mean * scale

(Ioffe and Szegedy, https://arxiv.org/abs/1502.03167, in the form used for inference.) `FoldScale` then
moves both into the convolution or dense layer before it, where there is one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from compiler.ir.constants import array_of, constant
from compiler.ir.rewriter import Rewriter, is_call, module_pass


class _FoldBatchNorm(Rewriter):
    name = "FoldBatchNorm"

    def rewrite(self, expr: Any) -> Any:
        if not isinstance(expr, relax.TupleGetItem) or expr.index != 0:
            return expr
        call = self.definition(expr.tuple_value)
        if not is_call(call, "relax.nn.batch_norm"):
            return expr
        parameters = [array_of(argument) for argument in call.args[1:5]]
        if any(parameter is None for parameter in parameters):
            return expr
        # In float64: the subtraction loses digits where the mean is large against the deviation.
        gamma, beta, mean, var = (np.asarray(parameter, "float64") for parameter in parameters)
        scale = (gamma if call.attrs.scale else 1.0) / np.sqrt(var + float(call.attrs.epsilon))
        shift = (beta if call.attrs.center else 0.0) - mean * scale
        x = call.args[0]
        rank, axis = x.ty.ndim, int(call.attrs.axis)
        shape = [-1 if i == axis % rank else 1 for i in range(rank)]
        dtype = str(x.ty.dtype)
        scaled = self.emit(relax.op.multiply(x, constant(scale.reshape(shape).astype(dtype))))
        return relax.op.add(scaled, constant(shift.reshape(shape).astype(dtype)))


fold_batch_norm = module_pass(_FoldBatchNorm)
