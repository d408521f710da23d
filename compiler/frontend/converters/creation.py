"""Tensors made from nothing but numbers and sizes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from tvm import relax

from compiler.frontend.converters.registry import Call, array, converter, is_float
from compiler.support.errors import ModelError

R = relax.op


def full(call: Call, value: Any) -> relax.Expr:
    """Fill the output with one number (or rank-zero tensor)."""
    filler = call.tensor(value, call.dtype)
    if isinstance(value, float) and not math.isfinite(value):
        # TVM 0.27 cannot legalize R.full of an infinity.
        return call.emit(R.broadcast_to(filler, call.shape))
    return call.emit(R.full(relax.ShapeExpr(call.shape), filler, call.dtype))


@converter("full.default", "full_like.default", "new_full.default", "fill.Scalar", "fill.Tensor")
def _full(call: Call) -> relax.Expr:
    name = call.node.target.__name__
    value = call.node.args[2 if name == "new_full.default" else 1]
    return full(call, call.importer.env[value] if hasattr(value, "meta") else value)


@converter(
    "zeros.default",
    "zeros_like.default",
    "new_zeros.default",
    "empty.memory_format",
    "empty_like.default",
    "new_empty.default",
    "empty_permuted.default",
    "empty_strided.default",
    "new_empty_strided.default",
)
def _zeros(call: Call) -> relax.Expr:
    return full(call, 0)


@converter("ones.default", "ones_like.default", "new_ones.default")
def _ones(call: Call) -> relax.Expr:
    return full(call, 1)


@converter("scalar_tensor.default")
def _scalar_tensor(call: Call, s: Any) -> relax.Expr:
    return call.emit(call.tensor(s, call.dtype))


@converter("arange.default", "arange.start", "arange.start_step")
def _arange(call: Call, start: Any = 0, end: Any = None, step: Any = 1) -> relax.Expr:
    """``start + step * i``; the length is PyTorch's, so that floating-point steps end where PyTorch's do."""
    (length,) = call.shape
    start, step = (0 if start is None else start), (1 if step is None else step)
    numbers = (start, step)
    if isinstance(length, int) and all(isinstance(n, (int, float)) for n in numbers):
        # PyTorch computes in double (or int64), then rounds once.
        return call.emit(array((start + step * np.arange(length)).astype(call.dtype)))
    index = call.emit(R.arange(0, length, 1, "int64"))
    if numbers == (0, 1):
        return call.cast(index, call.dtype)
    kind = "float64" if any(isinstance(n, float) for n in numbers) else "int64"
    scaled = call.emit(R.multiply(call.cast(index, kind), call.tensor(step, kind)))
    return call.cast(call.emit(R.add(scaled, call.tensor(start, kind))), call.dtype)


@converter("eye.default", "eye.m")
def _eye(call: Call) -> relax.Expr:
    rows, cols = call.shape
    if not isinstance(rows, int) or not isinstance(cols, int):
        raise ModelError("expected eye with fixed sizes, got symbolic ones; export with fixed sizes")
    return call.emit(array(np.eye(rows, cols).astype(call.dtype)))


@converter("linspace.default")
def _linspace(call: Call, start: float, end: float, steps: int) -> relax.Expr:
    import torch

    values = torch.linspace(start, end, steps, dtype=torch.float32 if is_float(call.dtype) else torch.int64)
    return call.emit(array(values.numpy().astype(call.dtype)))
