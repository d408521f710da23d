"""Fourier transforms, with a complex tensor carried as its real and imaginary parts.

TVM has no complex numbers. The few operators that stand between a transform and a real result (a spectrogram,
a filter in the frequency domain) work on the parts; everything else refuses a complex tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import fx
from tvm import relax

from compiler.frontend.converters.registry import REGISTRY, Call, array, dtype_of, scalar, shape_of
from compiler.support.errors import ModelError

R = relax.op


@dataclass(frozen=True)
class Complex:
    """A complex tensor: two real ones of the same shape."""

    real: relax.Expr
    imag: relax.Expr


def _argument(call: Call, position: int) -> Any:
    value = call.node.args[position]
    return call.importer.env[value] if isinstance(value, fx.Node) else value


def _parts(call: Call, x: Any) -> Complex:
    if isinstance(x, Complex):
        return x
    return Complex(x, call.emit(R.zeros_like(x)))


def _matrices(size: int, keep: int, sign: int, scale: float, dtype: str) -> tuple[relax.Expr, relax.Expr]:
    """Cosine and sine of the transform's matrix ``[size, keep]``, angles reduced before rounding."""
    turns = np.outer(np.arange(size), np.arange(keep)) % size
    angles = sign * 2 * math.pi * turns / size
    return array((np.cos(angles) * scale).astype(dtype)), array((np.sin(angles) * scale).astype(dtype))


def _transform(call: Call, x: Complex, axis: int, keep: int, sign: int, scale: float) -> Complex:
    """Transform one axis by two matrices: ``sum_n x[n] * exp(sign * 2i pi n k / N)``."""
    rank = len(shape_of(x.real))
    size = shape_of(x.real)[axis]
    if not isinstance(size, int):
        raise ModelError(
            "expected a Fourier transform along an axis of fixed size; export with a fixed size there"
        )
    cosine, sine = _matrices(size, keep, sign, scale, dtype_of(x.real))
    order = [d for d in range(rank) if d != axis] + [axis]
    back = [order.index(d) for d in range(rank)]
    real, imag = (call.emit(R.permute_dims(part, order)) for part in (x.real, x.imag))
    out_real = R.subtract(R.matmul(real, cosine), R.matmul(imag, sine))
    out_imag = R.add(R.matmul(real, sine), R.matmul(imag, cosine))
    return Complex(*(call.emit(R.permute_dims(call.emit(part), back)) for part in (out_real, out_imag)))


def _scale(sizes: Sequence[Any], normalization: int) -> float:
    """Return the factor of torch's normalization modes: 0 none, 1 by the root of the size, 2 by the size."""
    total: int = math.prod(sizes)
    return {0: 1.0, 1: 1 / math.sqrt(total), 2: 1 / total}[normalization]


def _fft(node: fx.Node, importer: Any) -> Any:
    """``_fft_r2c(x, dims, normalization, onesided)`` and ``_fft_c2c(x, dims, normalization, forward)``."""
    call = Call(node, importer)
    x = _parts(call, _argument(call, 0))
    dims, normalization, flag = node.args[1:4]
    real_input = node.target.__name__.startswith("_fft_r2c")
    rank = len(shape_of(x.real))
    axes = [dim % rank for dim in dims]
    sign = -1 if real_input or flag else 1
    scale = _scale([shape_of(x.real)[axis] for axis in axes], normalization)
    # The halved axis is the last of `dims`; it goes first, while the input is still real.
    for position, axis in enumerate(reversed(axes)):
        size = shape_of(x.real)[axis]
        keep = size // 2 + 1 if real_input and flag and position == 0 else size
        x = _transform(call, x, axis, keep, sign, scale if position == 0 else 1.0)
    return x


def _inverse_real(node: fx.Node, importer: Any) -> relax.Expr:
    """``_fft_c2r(x, dims, normalization, last_size)``: the missing half is the conjugate of the given one."""
    call = Call(node, importer)
    x = _parts(call, _argument(call, 0))
    dims, normalization, last = node.args[1:4]
    rank = len(shape_of(x.real))
    axes = [dim % rank for dim in dims]
    scale = _scale([*(shape_of(x.real)[a] for a in axes[:-1]), last], normalization)
    for axis in axes[:-1]:
        x = _transform(call, x, axis, shape_of(x.real)[axis], 1, 1.0)
    return _half_to_real(call, x, axes[-1], int(last), scale)


def _half_to_real(call: Call, x: Complex, axis: int, last: int, scale: float) -> relax.Expr:
    keep, rank = last // 2 + 1, len(shape_of(x.real))
    if shape_of(x.real)[axis] != keep:
        raise ModelError(f"expected {keep} frequencies for {last} samples, got {shape_of(x.real)[axis]}")
    weights = np.full((keep, 1), 2.0)
    weights[0] = 1
    if last % 2 == 0:
        weights[-1] = 1
    turns = np.outer(np.arange(keep), np.arange(last)) % last
    angles = 2 * math.pi * turns / last
    dtype = dtype_of(x.real)
    cosine = array((np.cos(angles) * weights * scale).astype(dtype))
    sine = array((np.sin(angles) * weights * scale).astype(dtype))
    order = [d for d in range(rank) if d != axis] + [axis]
    real, imag = (call.emit(R.permute_dims(part, order)) for part in (x.real, x.imag))
    result = call.emit(R.subtract(R.matmul(real, cosine), R.matmul(imag, sine)))
    return call.emit(R.permute_dims(result, [order.index(d) for d in range(rank)]))


def _view_as_real(node: fx.Node, importer: Any) -> relax.Expr:
    call = Call(node, importer)
    x = _argument(call, 0)
    return call.emit(R.stack([x.real, x.imag], axis=len(shape_of(x.real))))


def _view_as_complex(node: fx.Node, importer: Any) -> Complex:
    call = Call(node, importer)
    x = _argument(call, 0)
    axis = len(shape_of(x)) - 1
    halves = (R.strided_slice(x, [axis], [at], [at + 1]) for at in (0, 1))
    return Complex(*(call.emit(R.squeeze(call.emit(half), axis=[axis])) for half in halves))


def _complex(node: fx.Node, importer: Any) -> Complex:
    call = Call(node, importer)
    return Complex(_argument(call, 0), _argument(call, 1))


def _magnitude(call: Call, x: Complex) -> relax.Expr:
    """Absolute value, scaled by the larger part so that squares cannot overflow."""
    real, imag = call.emit(R.abs(x.real)), call.emit(R.abs(x.imag))
    largest = call.emit(R.maximum(real, imag))
    zero = call.emit(R.equal(largest, scalar(0, dtype_of(largest))))
    unit = call.emit(R.where(zero, scalar(1, dtype_of(largest)), largest))
    a, b = call.emit(R.divide(real, unit)), call.emit(R.divide(imag, unit))
    return call.emit(R.multiply(unit, R.sqrt(R.add(R.multiply(a, a), R.multiply(b, b)))))


def _angle(node: fx.Node, importer: Any) -> relax.Expr:
    call = Call(node, importer)
    x = _argument(call, 0)
    if not isinstance(x, Complex):
        raise ModelError(
            "expected the angle of a complex tensor, got a real one; use torch.where on its sign"
        )
    return call.emit(R.atan2(x.imag, x.real))


def _product(call: Call, x: Any, y: Any) -> Complex:
    if not isinstance(y, Complex) or not isinstance(x, Complex):
        whole, factor = (x, y) if isinstance(x, Complex) else (y, x)
        if isinstance(factor, complex):
            raise ModelError(
                "expected a real factor of a complex tensor, got a complex number; use torch.complex"
            )
        number = call.tensor(factor, dtype_of(whole.real))
        return Complex(call.emit(R.multiply(whole.real, number)), call.emit(R.multiply(whole.imag, number)))
    real = R.subtract(R.multiply(x.real, y.real), R.multiply(x.imag, y.imag))
    imag = R.add(R.multiply(x.real, y.imag), R.multiply(x.imag, y.real))
    return Complex(call.emit(real), call.emit(imag))


def _sum(call: Call, x: Any, y: Any, op: Any) -> Complex:
    a, b = _parts(call, x), _parts(call, y)
    return Complex(call.emit(op(a.real, b.real)), call.emit(op(a.imag, b.imag)))


def _conjugate(node: fx.Node, importer: Any) -> Any:
    call = Call(node, importer)
    x = _argument(call, 0)
    return Complex(x.real, call.emit(R.negative(x.imag))) if isinstance(x, Complex) else x


def _on_parts(name: str) -> None:
    """Let a converter that only moves elements work on both parts of a complex first argument.

    Its result is not compared with PyTorch's type, which is the complex one.
    """
    plain = REGISTRY[name]
    unchecked = plain.__wrapped__  # type: ignore[attr-defined]

    def convert(node: fx.Node, importer: Any) -> Any:
        source = node.args[0]
        x = importer.env[source] if isinstance(source, fx.Node) else None
        if not isinstance(x, Complex):
            return plain(node, importer)
        halves = []
        for part in (x.real, x.imag):
            importer.env[source] = part
            halves.append(unchecked(node, importer))
        importer.env[source] = x
        return Complex(*halves)

    REGISTRY[name] = convert


def _pairwise(name: str, on_complex: Any) -> None:
    """Let a binary converter take complex operands."""
    plain = REGISTRY[name]

    def convert(node: fx.Node, importer: Any) -> Any:
        call = Call(node, importer)
        operands = [_argument(call, position) for position in range(min(2, len(node.args)))]
        if not any(isinstance(operand, Complex) for operand in operands):
            return plain(node, importer)
        if node.kwargs.get("alpha", 1) != 1:
            raise ModelError("expected a sum of complex tensors without alpha; multiply first")
        return on_complex(call, *operands)

    REGISTRY[name] = convert


def _abs(node: fx.Node, importer: Any) -> Any:
    call = Call(node, importer)
    x = _argument(call, 0)
    return _magnitude(call, x) if isinstance(x, Complex) else _REAL_ABS(node, importer)


_REAL_ABS = REGISTRY["abs.default"]
REGISTRY.update(
    {
        "abs.default": _abs,
        "angle.default": _angle,
        "complex.default": _complex,
        "view_as_real.default": _view_as_real,
        "view_as_complex.default": _view_as_complex,
        "_conj.default": _conjugate,
        "_conj_physical.default": _conjugate,
        "_fft_r2c.default": _fft,
        "_fft_c2c.default": _fft,
        "_fft_c2r.default": _inverse_real,
    }
)
for _name in (
    "view.default",
    "reshape.default",
    "permute.default",
    "transpose.int",
    "slice.Tensor",
    "select.int",
    "unsqueeze.default",
    "squeeze.dims",
    "expand.default",
    "clone.default",
    "alias.default",
    "roll.default",
    "neg.default",
):
    _on_parts(_name)
_pairwise("mul.Tensor", _product)
_pairwise("add.Tensor", lambda call, x, y: _sum(call, x, y, R.add))
_pairwise("sub.Tensor", lambda call, x, y: _sum(call, x, y, R.subtract))


def _kept_inside(name: str) -> None:
    """Refuse a complex tensor as an output of the model."""
    inner = REGISTRY[name]

    def convert(node: fx.Node, importer: Any) -> Any:
        result = inner(node, importer)
        if isinstance(result, Complex) and any(user.op == "output" for user in node.users):
            raise ModelError("expected real outputs, got a complex one; return torch.view_as_real of it")
        return result

    REGISTRY[name] = convert


for _name in (
    *("_fft_r2c.default", "_fft_c2c.default", "complex.default", "view_as_complex.default"),
    *("_conj.default", "_conj_physical.default", "mul.Tensor", "add.Tensor", "sub.Tensor"),
    *("view.default", "permute.default", "transpose.int", "slice.Tensor", "select.int", "clone.default"),
):
    _kept_inside(_name)
