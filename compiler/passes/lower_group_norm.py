"""Group and instance norm in two passes over the data.

    group_norm(x)  ->  d * rsqrt(mean(d * d) + epsilon) * gamma + beta,   d = x - mean(x)

over the channels of a group and all of the image (Wu and He, arXiv 1803.08494; an instance is a group of one
channel). TVM's own lowering takes the variance as mean(x * x) - mean(x) ** 2 in one pass, which loses all
digits where the mean is large against the deviation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from compiler.ir.constants import constant
from compiler.ir.rewriter import Rewriter, is_call, module_pass


class _LowerGroupNorm(Rewriter):
    name = "LowerGroupNorm"

    def rewrite(self, expr: Any) -> Any:
        if not is_call(expr, "relax.nn.group_norm", "relax.nn.instance_norm"):
            return expr
        x, attrs = expr.args[0], expr.attrs
        rank = x.ty.ndim
        if not isinstance(x.ty.shape, relax.ShapeExpr) or str(x.ty.dtype) not in ("float32", "float64"):
            return expr
        if int(attrs.channel_axis) % rank != 1 or [int(a) % rank for a in attrs.axes] != list(range(2, rank)):
            return expr
        groups = int(attrs.num_groups) if is_call(expr, "relax.nn.group_norm") else x.ty.shape[1]
        normalized = self._normalize(x, groups, float(attrs.epsilon))
        if not attrs.scale and not attrs.center:
            return normalized
        parameters = [
            self.emit(relax.op.reshape(p, [1, x.ty.shape[1], *[1] * (rank - 2)])) for p in expr.args[1:3]
        ]
        if attrs.scale:
            normalized = self.emit(relax.op.multiply(self.emit(normalized), parameters[0]))
        return relax.op.add(self.emit(normalized), parameters[1]) if attrs.center else normalized

    def _normalize(self, x: Any, groups: Any, epsilon: float) -> Any:
        batch, channels, *image = x.ty.shape
        size = channels // groups
        for extent in image:
            size = size * extent
        rows = self.emit(relax.op.reshape(x, [batch, groups, size]))
        centred = self.emit(relax.op.subtract(rows, self.emit(relax.op.mean(rows, [2], keepdims=True))))
        square = self.emit(relax.op.multiply(centred, centred))
        variance = self.emit(relax.op.mean(square, [2], keepdims=True))
        stable = self.emit(relax.op.add(variance, constant(np.array(epsilon, str(x.ty.dtype)))))
        scaled = self.emit(relax.op.multiply(centred, self.emit(relax.op.rsqrt(stable))))
        return relax.op.reshape(scaled, x.ty.shape)


lower_group_norm = module_pass(_LowerGroupNorm)
