"""exp, sigmoid, tanh and erf of float32 vectors, for CPUs.

LLVM has no vector code for these: it calls the C library once a lane. The rules here replace them, for
TVM's LLVM code generator, with polynomials and quotients of polynomials that stay in vector registers.

| function | error against the exact value (float32, all finite inputs) |
|---|---|
| exp | at most 4 units in the last place; 0 below -87.34, infinity above 88.72 |
| sigmoid | at most 4e-7 relative above -87, 1.2e-38 below |
| tanh | at most 2e-7 relative |
| erf | at most 4e-7 relative |

A NaN stays a NaN. Other dtypes go to the C library as before.

The coefficients are minimax fits of ours: iterated least squares on Chebyshev nodes with Lawson's weights
(C. Lawson, Contributions to the Theory of Linear Least Maximum Approximations, 1961), the quotients after
C. Sanathanan and J. Koerner, Transfer Function Synthesis as a Ratio of Two Complex Polynomials, 1963.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx
from tvm.ir import Op

_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
"""ln 2 in two parts: n * high is exact for |n| < 256 (W. Cody and W. Waite, Software Manual for the
Elementary Functions, 1980)."""
_EXP_REST = [0.00159157069, 0.0083474908, 0.0416267418, 0.166667232, 0.500001837]
"""exp(r) = 1 + r + r^2 p(r), to 3e-8 for |r| <= ln 2 / 2 and to 1e-7 up to 0.7."""
_EXP_LOWEST, _EXP_HIGHEST = -87.33654, 88.72283
_TANH_SMALL = [-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1]
"""tanh(x) = x + x^3 p(x^2) for |x| < 0.625 (S. Moshier, Cephes Mathematical Library, tanhf)."""
_ERF_LIMIT = 3.925
_ERF = (
    [1.98694275e-08, -1.9565898e-06, 0.000142172097, 0.00371921716, 0.0506313264, 0.200365986, 1.12837911],
    [0.000959976378, 0.0143900999, 0.115180334, 0.510901363, 1.0],
)
"""erf(x) = x p(x^2) / q(x^2) for |x| <= 3.925, to 6e-8; erf(3.925) differs from 1 by less."""


def _horner(x: Any, coefficients: Sequence[float]) -> Any:
    """Return the polynomial with `coefficients`, highest power first, at `x`."""
    total = _like(coefficients[0], x)
    for coefficient in coefficients[1:]:
        total = total * x + _like(coefficient, x)
    return total


def _like(value: float, x: Any) -> Any:
    return tirx.const(value, _dtype(x))


def _dtype(x: Any) -> str:
    """Return the dtype of an expression with its lanes, such as ``float32x16``."""
    return str(x.ty.dtype)


def _clamp(x: Any, lowest: float, highest: float) -> Any:
    """Return `x` between two bounds. A NaN stays: it is the second operand, which a comparison falls to."""
    return tirx.min(_like(highest, x), tirx.max(_like(lowest, x), x))


def _exp_inside(x: Any) -> Any:
    """exp(x) = 2^n exp(r) with n = round(x / ln 2) up to 127, for x where that is a normal number.

    |r| <= ln 2 / 2 save just below overflow.
    """
    n = tirx.min(tirx.nearbyint(x * _like(1 / math.log(2), x)), _like(127, x))
    r = x - n * _like(_LN2_HIGH, x) - n * _like(_LN2_LOW, x)
    bits = _dtype(x).replace("float", "int")
    power = (n.astype(bits) + tirx.const(127, bits)) << tirx.const(23, bits)
    value = (r * r) * _horner(r, _EXP_REST) + r + _like(1, x)
    return value * tirx.reinterpret(_dtype(x), power)


def _exp(x: Any) -> Any:
    value = _exp_inside(_clamp(x, _EXP_LOWEST, _EXP_HIGHEST))
    value = tirx.Select(x < _like(_EXP_LOWEST, x), _like(0, x), value)
    value = tirx.Select(x > _like(_EXP_HIGHEST, x), _like(math.inf, x), value)
    return tirx.Select(x == x, value, x)


def _sigmoid(x: Any) -> Any:
    value = _like(1, x) / (_exp_inside(_clamp(-x, _EXP_LOWEST, 88.0)) + _like(1, x))
    return tirx.Select(x == x, value, x)


def _tanh(x: Any) -> Any:
    size, square = tirx.max(x, -x), x * x
    small = x + x * square * _horner(square, _TANH_SMALL)
    large = _like(1, x) - _like(2, x) / (_exp_inside(_clamp(size + size, 0.0, 88.0)) + _like(1, x))
    large = tirx.Select(x < _like(0, x), -large, large)
    return tirx.Select(size < _like(0.625, x), small, tirx.Select(x == x, large, x))


def _erf(x: Any) -> Any:
    """erf(x) = x p(x^2) / q(x^2) between the limits, at most 1 in size."""
    inside = _clamp(x, -_ERF_LIMIT, _ERF_LIMIT)
    square = inside * inside
    above, below = (_horner(square, each) for each in _ERF)
    return _clamp(inside * above / below, -1.0, 1.0)


def _lane_by_lane(call: Any) -> Any:
    """Return `call` on a vector as one call a lane, for what the C library computes."""
    x = call.args[0]
    dtype, lanes = _dtype(x).split("x")
    scalars = [tirx.call_intrin(dtype, call.op, tirx.Shuffle([x], [lane])) for lane in range(int(lanes))]
    return tirx.Shuffle(scalars, list(range(len(scalars))))


@functools.cache
def register() -> None:
    """Make TVM's LLVM code generator use these functions."""
    for name, compute in (("exp", _exp), ("sigmoid", _sigmoid), ("tanh", _tanh), ("erf", _erf)):
        op = Op.get(f"tirx.{name}")
        op.set_attr("llvm.FLowerIntrinsic", _rule(compute, op.get_attr("llvm.FLowerIntrinsic")), 99)
        op.set_attr("TVectorizable", True, 99)


def _rule(compute: Callable[[Any], Any], other: Any) -> Callable[[Any], Any]:
    def lower(call: Any) -> Any:
        dtype = _dtype(call.args[0])
        if dtype.split("x")[0] == "float32":
            return compute(call.args[0])
        if other is not None:
            return other(call)
        return _lane_by_lane(call) if "x" in dtype else call

    return lower
