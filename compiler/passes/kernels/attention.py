"""Scaled dot-product attention in one kernel: a tile of queries meets all keys while its scores are cached.

    scores = q k^T * scale + bias;  p = exp(scores - max);  output = p v / sum(p)

(A. Vaswani and others, Attention Is All You Need, arXiv 1706.03762.) Queries are (B, S, H, D), keys
(B, T, H, D), values (B, T, H, E). Keys are packed into panels of c positions, (B, H, ceil(T / c), D, c), so
that scores are computed a vector at a time; positions past T score minus infinity. A query for which all
scores are minus infinity gets zeros, as PyTorch gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import te, tirx

from compiler.passes.kernels import RULE

_LOWEST = float(np.finfo("float32").min)
_LEAST = float(np.finfo("float32").tiny)


@dataclass(frozen=True)
class AttentionShape:
    """`scale` multiplies the scores; query s sees keys up to s + `causal`, all if it is None."""

    scale: float
    causal: int | None
    lanes: int


def attention(query: Any, key: Any, value: Any, bias: Any | None, shape: AttentionShape) -> Any:
    """Return (B, S, H, E) float32. `bias` (B or 1, H or 1, S or 1, T or 1) is added to the scores."""
    lanes = shape.lanes
    batch, queries, heads, depth = query.shape
    length = key.shape[1]
    panels = -(-int(length) // lanes)

    def packed(b: Any, h: Any, p: Any, d: Any, v: Any) -> Any:
        t = p * lanes + v
        if int(length) % lanes == 0:
            return key[b, t, h, d]
        return tirx.if_then_else(t < length, key[b, t, h, d], tirx.const(0, "float32"))

    keys = te.compute((batch, heads, panels, depth, lanes), packed, name="attention_keys")
    rd = te.reduce_axis((0, depth), "rd")
    scores = te.compute(
        (batch, heads, queries, panels, lanes),
        lambda b, h, s, p, v: te.sum(query[b, s, h, rd] * keys[b, h, p, rd, v], axis=[rd]),
        name="attention_scores",
    )

    def masked(b: Any, h: Any, s: Any, p: Any, v: Any) -> Any:
        t = p * lanes + v
        score = scores[b, h, s, p, v] * tirx.const(shape.scale, "float32")
        if bias is not None:
            place = [
                0 if int(size) == 1 else i
                for size, i in zip(bias.shape, (b, h, s, tirx.min(t, length - 1)), strict=True)
            ]
            score = score + bias[tuple(place)]
        seen = []
        if int(length) % lanes:
            seen.append(t < length)
        if shape.causal is not None:
            seen.append(t <= s + shape.causal)
        return tirx.Select(tirx.all(*seen), score, tirx.const(-np.inf, "float32")) if seen else score

    extents = (batch, heads, queries, panels, lanes)
    seen = te.compute(extents, masked, name="attention_masked")
    rp, rv = te.reduce_axis((0, panels), "rp"), te.reduce_axis((0, lanes), "rv")
    highest_lanes = te.compute(
        (batch, heads, queries, lanes),
        lambda b, h, s, v: te.max(seen[b, h, s, rp, v], axis=[rp]),
        name="attention_highest_lanes",
    )
    highest = te.compute(
        (batch, heads, queries),
        lambda b, h, s: te.max(highest_lanes[b, h, s, rv], axis=[rv]),
        name="attention_highest",
    )
    weights = te.compute(
        extents,
        lambda b, h, s, p, v: tirx.exp(
            seen[b, h, s, p, v] - tirx.max(highest[b, h, s], tirx.const(_LOWEST, "float32"))
        ),
        name="attention_weights",
    )
    rp, rv = te.reduce_axis((0, panels), "rp"), te.reduce_axis((0, lanes), "rv")
    total_lanes = te.compute(
        (batch, heads, queries, lanes),
        lambda b, h, s, v: te.sum(weights[b, h, s, rp, v], axis=[rp]),
        name="attention_total_lanes",
    )
    total = te.compute(
        (batch, heads, queries),
        lambda b, h, s: te.sum(total_lanes[b, h, s, rv], axis=[rv]),
        name="attention_total",
    )
    rt = te.reduce_axis((0, length), "rt")
    columns = int(value.shape[3])

    def valued(b: Any, t: Any, h: Any, p: Any, v: Any) -> Any:
        d = p * lanes + v
        if columns % lanes == 0:
            return value[b, t, h, d]
        return tirx.if_then_else(d < columns, value[b, t, h, d], tirx.const(0, "float32"))

    read: Callable[..., Any] = valued
    if columns % lanes:
        extents = (batch, length, heads, -(-columns // lanes), lanes)
        read = te.compute(extents, valued, name="attention_values")

    product = te.compute(
        (batch, queries, heads, -(-columns // lanes), lanes),
        lambda b, s, h, p, v: te.sum(
            weights[b, h, s, rt // lanes, rt % lanes] * read(b, rt, h, p, v), axis=[rt]
        ),
        name="attention_product",
        attrs={RULE: "attention"},
    )
    return te.compute(
        (batch, queries, heads, columns),
        lambda b, s, h, d: (
            product[b, s, h, d // lanes, d % lanes] / tirx.max(total[b, h, s], tirx.const(_LEAST, "float32"))
        ),
        name="attention_output",
    )
