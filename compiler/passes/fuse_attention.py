"""Attention as one kernel of ours, for CPUs.

    nn.attention(q, k, v, bias)  ->  call_tir(attention, q, k, v, bias)

Applies where all shapes are known; the rest is left to
`compiler.passes.lower_attention`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tvm

from compiler.ir.rewriter import Rewriter, is_call, module_pass, static_shape
from compiler.passes.kernels import OUT_ELEMWISE_FUSABLE
from compiler.passes.kernels.attention import AttentionShape, attention


class _FuseAttention(Rewriter):
    name = "FuseAttention"
    lanes = 0

    def rewrite(self, expr: Any) -> Any:
        if not is_call(expr, "relax.nn.attention", "relax.nn.attention_bias"):
            return expr
        operands, attrs = list(expr.args), expr.attrs
        shapes = [shape for operand in operands if (shape := static_shape(operand)) is not None]
        known = len(shapes) == len(operands) and attrs.window_size is None
        if not known or not self._fits(operands, shapes):
            return expr
        queries, depth = shapes[0][1], shapes[0][3]
        scale = 1 / math.sqrt(depth) if attrs.scale is None else float(attrs.scale)
        causal = None
        if attrs.causal_mask is not None:
            causal = 0 if str(attrs.causal_mask) == "TopLeft" else shapes[1][1] - queries
        geometry = AttentionShape(scale, causal, self.lanes)
        return self.builder.call_te(
            lambda q, k, v, *bias: attention(q, k, v, bias[0] if bias else None, geometry), *operands,
            primfunc_name_hint="attention", primfunc_attrs={"op_pattern": OUT_ELEMWISE_FUSABLE},
        )  # fmt: skip

    def _fits(self, operands: list[Any], shapes: list[tuple[int, ...]]) -> bool:
        if any(str(operand.ty.dtype) != "float32" for operand in operands):
            return False
        query, key, value, *bias = shapes
        batch, queries, heads, depth = query
        same = key == (batch, key[1], heads, depth) and value[:3] == key[:3]
        full = (batch, heads, queries, key[1])
        broadcast = all(
            len(shape) == 4 and all(a in (1, b) for a, b in zip(shape, full, strict=True)) for shape in bias
        )
        return same and broadcast and min(*full, depth, value[3]) > 0


def fuse_attention(lanes: int) -> Callable[[tvm.IRModule], tvm.IRModule]:
    """Return the pass for vectors of `lanes` float32 values."""
    return module_pass(type("_FuseAttention", (_FuseAttention,), {"lanes": lanes}))
