"""Scaled dot-product attention as two matrix products around a softmax.

    attention(q, k, v, bias) -> softmax(q k^T * scale + bias) v     (Vaswani et al., arXiv 1706.03762)

Queries, keys and values come as (batch, sequence, heads, depth); the products work on
(batch, heads, sequence, depth), and the transpositions cancel with the importer's.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from tvm import relax

from compiler.ir.constants import constant
from compiler.ir.rewriter import Rewriter, is_call, module_pass


class _LowerAttention(Rewriter):
    name = "LowerAttention"

    def rewrite(self, expr: Any) -> Any:
        if (
            not is_call(expr, "relax.nn.attention", "relax.nn.attention_bias")
            or expr.attrs.window_size is not None
        ):
            return expr
        query, key, value, *bias = expr.args
        depth = int(query.ty.shape[3])
        scale = 1 / math.sqrt(depth) if expr.attrs.scale is None else float(expr.attrs.scale)
        dtype = str(query.ty.dtype)
        # The queries are the smallest operand that the scale can go into.
        scaled = self.emit(relax.op.multiply(query, constant(np.array(scale, dtype))))
        heads_first = self.emit(relax.op.permute_dims(scaled, [0, 2, 1, 3]))
        keys = self.emit(relax.op.permute_dims(key, [0, 2, 3, 1]))
        scores = self.emit(relax.op.matmul(heads_first, keys))
        if bias:
            scores = self.emit(relax.op.add(scores, bias[0]))
        if expr.attrs.causal_mask is not None:
            scores = self._causal(scores, str(expr.attrs.causal_mask), dtype)
        weights = self.emit(relax.op.nn.softmax(scores, -1))
        values = self.emit(relax.op.permute_dims(value, [0, 2, 1, 3]))
        product = self.emit(relax.op.matmul(weights, values))
        return relax.op.permute_dims(product, [0, 2, 1, 3])

    def _causal(self, scores: Any, kind: str, dtype: str) -> Any:
        """Set to -inf what lies past the diagonal that starts at the top left or ends at the bottom right."""
        queries, keys = scores.ty.shape[2], scores.ty.shape[3]
        lowest = constant(np.array(-np.inf, dtype))
        full = self.emit(relax.op.broadcast_to(lowest, [queries, keys]))
        shift = 1 if kind == "TopLeft" else keys - queries + 1
        return self.emit(relax.op.add(scores, self.emit(relax.op.triu(full, shift))))


lower_attention = module_pass(_LowerAttention)
