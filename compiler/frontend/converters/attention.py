"""Scaled dot-product attention, kept as one op."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from tvm import relax, tirx

from compiler.frontend.converters.logic import truth
from compiler.frontend.converters.registry import Call, converter, dtype_of, is_float, scalar, shape_of
from compiler.frontend.converters.shapes import reshape, tirx_equal
from compiler.frontend.converters.symbols import Dim, simplify
from compiler.support.errors import ModelError

R = relax.op


@dataclass(frozen=True)
class Mask:
    """An additive bias, and where a query may look at any key at all (None: every query may)."""

    bias: relax.Expr
    reachable: relax.Expr | None


_MASKS: WeakKeyDictionary[Any, dict[tuple[Any, str], Mask]] = WeakKeyDictionary()


@converter("scaled_dot_product_attention.default")
def _attention(
    call: Call,
    query: relax.Expr,
    key: relax.Expr,
    value: relax.Expr,
    attn_mask: relax.Expr | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> relax.Expr:
    """Attend over ``[..., heads, length, width]`` tensors (``R.nn.attention`` has the heads third).

    A query that may look at no key gets zeros, as in PyTorch.
    """
    if dropout_p:
        raise ModelError("expected attention without dropout, got dropout_p > 0; call model.eval() first")
    heads = shape_of(query)[-3] if len(shape_of(query)) > 2 else 1
    key, value = (_repeat_heads(call, x, heads) if enable_gqa else x for x in (key, value))
    q, k, v = (_four_axes(call, x, query) for x in (query, key, value))
    mask = None if attn_mask is None else _mask(call, attn_mask, dtype_of(query), q, k)
    moved = [call.emit(R.permute_dims(x, [0, 2, 1, 3])) for x in (q, k, v)]
    result = call.emit(
        R.nn.attention(
            *moved,
            bias=None if mask is None else mask.bias,
            scale=None if scale is None else tirx.FloatImm("float32", scale),
            causal_mask="TopLeft" if is_causal else None,
        )
    )
    result = call.emit(R.permute_dims(result, [0, 2, 1, 3]))
    if mask is not None and mask.reachable is not None:
        result = call.emit(R.where(mask.reachable, result, scalar(0, dtype_of(result))))
    return result if len(call.shape) == 4 else reshape(call, result, call.shape)


def _repeat_heads(call: Call, x: relax.Expr, heads: Dim) -> relax.Expr:
    """Repeat each key/value head for the query heads that share it."""
    batch, have, length, width = shape_of(x)
    groups = simplify(heads // have)
    if isinstance(groups, int) and groups == 1:
        return x
    spread = call.emit(R.broadcast_to(R.expand_dims(x, axis=2), [batch, have, groups, length, width]))
    return reshape(call, spread, [batch, heads, length, width])


def _four_axes(call: Call, x: relax.Expr, query: relax.Expr) -> relax.Expr:
    """Give `x` exactly two leading axes, broadcast to those of the query."""
    lead, shape = shape_of(query)[:-2], shape_of(x)
    if len(shape) == 4 and all(tirx_equal(a, b) for a, b in zip(shape[:-2], lead, strict=True)):
        return x
    if len(shape) - 2 != len(lead) or not all(
        tirx_equal(a, b) for a, b in zip(shape[:-2], lead, strict=True)
    ):
        x = call.emit(R.broadcast_to(x, [*lead, *shape[-2:]]))
    batch: Dim = 1
    for size in lead[:-1]:
        batch = batch * size
    return reshape(call, x, [simplify(batch), lead[-1] if lead else 1, *shape[-2:]])


def _mask(call: Call, mask: relax.Expr, dtype: str, q: relax.Expr, k: relax.Expr) -> Mask:
    """Turn a bool or float mask into an additive bias of rank four; one mask serves many layers."""
    known = _MASKS.setdefault(call.importer, {})
    node = call.node.args[3] if len(call.node.args) > 3 else call.node.kwargs["attn_mask"]
    key = (node, f"{dtype}{shape_of(q)}{shape_of(k)}")
    if key not in known:
        known[key] = _make_mask(call, mask, dtype, [*shape_of(q)[:3], shape_of(k)[2]])
    return known[key]


def _make_mask(call: Call, mask: relax.Expr, dtype: str, full: list[Dim]) -> Mask:
    shape = shape_of(mask)
    if len(shape) > 4:
        raise ModelError(f"expected an attention mask of up to four axes, got {len(shape)}; reshape it")
    padded = [1] * (4 - len(shape)) + shape
    # R.nn.attention broadcasts batch and heads of the bias, not its last two axes.
    mask = reshape(call, mask, padded)
    target = [*padded[:2], *full[2:]]
    if not all(tirx_equal(a, b) for a, b in zip(padded[2:], target[2:], strict=True)):
        mask = call.emit(R.broadcast_to(mask, target))
    if not is_float(dtype_of(mask)):
        allowed = truth(call, mask)
        low = scalar(float(np.finfo(np.float32).min), dtype)
        bias = call.emit(R.where(allowed, scalar(0, dtype), low))
    else:
        bias = call.cast(mask, dtype)
        allowed = call.emit(R.greater(bias, scalar(-np.inf, dtype)))
    reachable = call.cast(call.emit(R.max(call.cast(allowed, "int8"), [-1], True)), "bool")
    if is_float(dtype_of(mask)):
        # A row of -inf would make softmax divide zero by zero.
        bias = call.emit(R.where(reachable, bias, scalar(0, dtype)))
    return Mask(bias, reachable)
