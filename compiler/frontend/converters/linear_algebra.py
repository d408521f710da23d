"""Matrix products, in the accumulation type PyTorch uses."""

from __future__ import annotations

from typing import Any

from tvm import relax

from compiler.frontend.converters.registry import Call, converter, dtype_of, scalar, shape_of

R = relax.op


@converter("mm.default", "bmm.default")
def _mm(call: Call, self: relax.Expr, mat2: relax.Expr) -> relax.Expr:
    return call.emit(R.matmul(self, mat2))


@converter("matmul.default")
def _matmul(call: Call, self: relax.Expr, other: relax.Expr) -> relax.Expr:
    return call.emit(R.matmul(self, other))


@converter("_int_mm.default")
def _int_mm(call: Call, self: relax.Expr, mat2: relax.Expr) -> relax.Expr:
    return call.emit(R.matmul(self, mat2, out_dtype="int32"))


@converter("linear.default")
def _linear(call: Call, input: relax.Expr, weight: relax.Expr, bias: relax.Expr | None) -> relax.Expr:
    if len(shape_of(weight)) == 1:
        product = call.emit(R.matmul(input, weight))
    else:
        product = call.emit(R.matmul(input, call.emit(R.permute_dims(weight))))
    return product if bias is None else call.emit(R.add(product, bias))


@converter("addmm.default", "baddbmm.default")
def _addmm(call: Call, self: relax.Expr, beta: Any, alpha: Any) -> relax.Expr:
    first, second = (call.importer.env[node] for node in call.node.args[1:3])
    product = _times(call, call.emit(R.matmul(first, second)), alpha)
    # PyTorch ignores `self`, NaN included, when beta is zero.
    return product if beta == 0 else call.emit(R.add(_times(call, self, beta), product))


def _times(call: Call, x: relax.Expr, factor: Any) -> relax.Expr:
    return x if factor == 1 else call.emit(R.multiply(x, scalar(factor, dtype_of(x))))
