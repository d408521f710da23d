"""Activation functions, each in the one form that later passes look for."""

from __future__ import annotations

from typing import Any

from tvm import relax

from compiler.frontend.converters.registry import Call, converter, dtype_of, is_float, scalar
from compiler.support.errors import ModelError

R = relax.op


@converter("relu.default")
def _relu(call: Call, self: relax.Expr) -> relax.Expr:
    if is_float(dtype_of(self)):
        return call.emit(R.nn.relu(self))
    return call.emit(R.maximum(self, scalar(0, dtype_of(self))))


@converter("silu.default")
def _silu(call: Call, self: relax.Expr) -> relax.Expr:
    return call.emit(R.nn.silu(self))


@converter("gelu.default")
def _gelu(call: Call, self: relax.Expr, approximate: str) -> relax.Expr:
    return call.emit((R.nn.gelu_tanh if approximate == "tanh" else R.nn.gelu)(self))


@converter("hardtanh.default")
def _hardtanh(call: Call, self: relax.Expr, min_val: Any, max_val: Any) -> relax.Expr:
    return call.emit(R.clip(self, min_val, max_val))


def hard_sigmoid(call: Call, x: relax.Expr) -> relax.Expr:
    """``R.clip(x + 3, 0, 6) / 6``, the canonical form."""
    dtype = dtype_of(x)
    clipped = call.emit(R.clip(call.emit(R.add(x, scalar(3, dtype))), 0, 6))
    return call.emit(R.divide(clipped, scalar(6, dtype)))


@converter("hardsigmoid.default")
def _hardsigmoid(call: Call, self: relax.Expr) -> relax.Expr:
    return hard_sigmoid(call, self)


@converter("hardswish.default")
def _hardswish(call: Call, self: relax.Expr) -> relax.Expr:
    return call.emit(R.multiply(self, hard_sigmoid(call, self)))


@converter("leaky_relu.default")
def _leaky_relu(call: Call, self: relax.Expr, negative_slope: float) -> relax.Expr:
    return call.emit(R.nn.leakyrelu(self, negative_slope))


@converter("elu.default")
def _elu(call: Call, self: relax.Expr, alpha: Any, scale: Any, input_scale: Any) -> relax.Expr:
    """``scale * (x if x > 0 else alpha * (exp(input_scale * x) - 1))``; SELU and CELU are cases of it."""
    dtype = dtype_of(self)
    inner = self if input_scale == 1 else call.emit(R.multiply(self, scalar(input_scale, dtype)))
    below = call.emit(R.multiply(R.subtract(R.exp(inner), scalar(1, dtype)), scalar(alpha * scale, dtype)))
    above = self if scale == 1 else call.emit(R.multiply(self, scalar(scale, dtype)))
    return call.emit(R.where(R.greater(self, scalar(0, dtype)), above, below))


@converter("_softmax.default", "_log_softmax.default")
def _softmax(call: Call, self: relax.Expr, dim: int, half_to_float: bool) -> relax.Expr:
    if half_to_float:
        raise ModelError("expected softmax in one type, got half in and float out; cast the input first")
    if not self.ty.shape.values:
        one_or_zero = scalar(1 if call.node.target.__name__ == "_softmax.default" else 0, dtype_of(self))
        return call.emit(R.full([], one_or_zero, dtype_of(self)))
    op = R.nn.softmax if call.node.target.__name__ == "_softmax.default" else R.nn.log_softmax
    return call.emit(op(self, dim))
