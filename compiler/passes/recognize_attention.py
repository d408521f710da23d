"""Attention written out becomes one op.

    before: y = softmax(q @ k^T * scale + mask) @ v
    after:  y = nn.attention(q, k, v, mask, scale)          (Vaswani et al., arXiv 1706.03762)

on ``[batch, heads, length, width]`` or ``[batch, length, width]`` tensors. The scale may be a product or a
quotient, on the scores or on the queries or keys; the mask may be added, or put in by ``where`` with a number
so low that no score matters beside it. The transpositions around the op cancel with the model's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm_ffi
from tvm import relax, tirx

from compiler.ir.rewriter import is_call, module_pass
from compiler.passes.recognize_match import Recognizer, dtype_of

_LOWEST = -1e30
"""A masking number at or below this swallows any score added to it."""


@dataclass(frozen=True)
class _Scores:
    """``scale * (query @ key) + bias``, with `key` as ``[..., width, length]``."""

    query: Any
    key: Any
    scale: float
    bias: Any | None


class _RecognizeAttention(Recognizer):
    name = "RecognizeAttention"

    def rewrite(self, expr: Any) -> Any:
        if not is_call(expr, "relax.matmul"):
            return expr
        weights, value = expr.args
        softmax = self.call(weights, "nn.softmax")
        rank = len(value.ty.shape.values)
        # A model that also gives out its attention weights keeps them.
        if softmax is None or rank not in (3, 4) or self.uses(weights) != 1:
            return expr
        if int(softmax.attrs.axis) not in (-1, rank - 1) or len(weights.ty.shape.values) != rank:
            return expr
        scores = self._scores(softmax.args[0])
        if scores is None or not self._fits(scores, value, rank):
            return expr
        return self._attention(scores, value, softmax.args[0], rank)

    def _scores(self, x: Any) -> _Scores | None:
        bias = None
        masked = self.call(x, "where")
        added = self.call(x, "add")
        if masked is not None:
            return self._masked(masked)
        for inside, outside in () if added is None else (tuple(added.args), tuple(added.args)[::-1]):
            found = self._product(inside)
            if found is not None:
                query, key, scale = found
                bias = outside
                return _Scores(query, key, scale, bias)
        found = self._product(x)
        return None if found is None else _Scores(*found, None)

    def _masked(self, call: Any) -> _Scores | None:
        """``where(mask, scores, low)`` or ``where(mask, low, scores)``: the mask as a bias of 0 and low."""
        mask, first, second = call.args
        for inside, outside, kept in ((first, second, True), (second, first, False)):
            low, found = self.number(outside), self._product(inside)
            if low is None or low > _LOWEST or found is None:
                continue
            dtype = dtype_of(inside)
            zero, lowest = relax.const(0.0, dtype), relax.const(low, dtype)
            bias = relax.op.where(mask, *((zero, lowest) if kept else (lowest, zero)))
            return _Scores(*found, bias)
        return None

    def _product(self, x: Any) -> tuple[Any, Any, float] | None:
        """Match a scaled ``query @ key``; give both, with the scales on them taken out."""
        scale, tensors = self.factors(x)
        product = self.call(tensors[0], "matmul") if len(tensors) == 1 else None
        if product is None:
            return None
        query, key = product.args
        for_query, query = self._unscaled(query)
        for_key, key = self._unscaled(key)
        return query, key, scale * for_query * for_key

    def _unscaled(self, x: Any) -> tuple[float, Any]:
        scale, tensors = self.factors(x)
        return (scale, tensors[0]) if len(tensors) == 1 else (1.0, x)

    def _fits(self, scores: _Scores, value: Any, rank: int) -> bool:
        """Check equal leading axes (a matrix product would also broadcast them) and one element type."""
        operands = (scores.query, scores.key, value)
        if any(len(x.ty.shape.values) != rank or dtype_of(x) != dtype_of(value) for x in operands):
            return False
        if "float" not in dtype_of(value):
            return False
        lead = [x.ty.shape.values[: rank - 2] for x in operands]
        return all(_equal(a, b) for other in lead[1:] for a, b in zip(lead[0], other, strict=True))

    def _attention(self, scores: _Scores, value: Any, raw: Any, rank: int) -> Any:
        query, key, value = (self._four_axes(x, rank) for x in (scores.query, scores.key, value))
        bias = None if scores.bias is None else self._bias(scores.bias, raw, rank)
        moved = [
            self.emit(relax.op.permute_dims(x, order))
            for x, order in ((query, [0, 2, 1, 3]), (key, [0, 3, 1, 2]), (value, [0, 2, 1, 3]))
        ]
        scale = tirx.FloatImm("float32", scores.scale)
        result = self.emit(relax.op.nn.attention(*moved, bias=bias, scale=scale))
        result = relax.op.permute_dims(result, [0, 2, 1, 3])
        return result if rank == 4 else relax.op.squeeze(self.emit(result), axis=[1])

    def _four_axes(self, x: Any, rank: int) -> Any:
        return x if rank == 4 else self.emit(relax.op.expand_dims(x, axis=1))

    def _bias(self, bias: Any, raw: Any, rank: int) -> Any:
        """Give the mask four axes, its last two those of the scores."""
        bias = self.emit(bias)
        shape = list(bias.ty.shape.values)
        full = list(raw.ty.shape.values)
        padded = [tirx.IntImm("int64", 1)] * (rank - len(shape)) + shape
        target = [*padded[:-2], *full[-2:]]
        if len(shape) != rank or not all(_equal(a, b) for a, b in zip(padded[-2:], full[-2:], strict=True)):
            bias = self.emit(relax.op.broadcast_to(bias, target))
        return self._four_axes(bias, rank)


def _equal(a: Any, b: Any) -> bool:
    return bool(tvm_ffi.structural_equal(a, b))


recognize_attention = module_pass(_RecognizeAttention)
