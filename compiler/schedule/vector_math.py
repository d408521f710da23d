"""exp, tanh and erf of float32 vectors, for CPUs.

LLVM has no vector code for these: it calls the C library once a lane. The rules here replace them, for
TVM's LLVM code generator, with polynomials that stay in vector registers.

| function | error against the exact value (float32, all finite inputs) |
|---|---|
| exp | at most 4 units in the last place; 0 below -87.34, infinity above 88.72 |
| tanh | at most 2e-7 relative |
| erf | at most 4e-7 absolute |

A NaN stays a NaN. Other dtypes go to the C library as before.
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
_EXP_TAYLOR = [1 / math.factorial(i) for i in range(8, -1, -1)]
_EXP_LOWEST, _EXP_HIGHEST = -87.33654, 88.72283
_TANH_SMALL = [-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1]
"""tanh(x) = x + x^3 p(x^2) for |x| < 0.625 (S. Moshier, Cephes Mathematical Library, tanhf)."""
_ERF_SMALL = [
    2 / math.sqrt(math.pi) * (-1) ** i / (math.factorial(i) * (2 * i + 1)) for i in range(6, -1, -1)
]
"""The Taylor series erf(x) = x p(x^2), used for |x| < 0.5; the first omitted term is below 1e-9."""
_ERF_P = 0.3275911
_ERF_LARGE = [1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592]
"""erf(x) = 1 - t p(t) exp(-x^2) with t = 1 / (1 + 0.3275911 x); M. Abramowitz and I. Stegun, Handbook of
Mathematical Functions, 7.1.26; error below 1.5e-7."""


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


def _exp(x: Any) -> Any:
    """exp(x) = 2^n exp(r) with n = round(x / ln 2) up to 127; |r| <= ln 2 / 2 save just below overflow."""
    inside = tirx.min(tirx.max(x, _like(_EXP_LOWEST, x)), _like(_EXP_HIGHEST, x))
    n = tirx.min(tirx.nearbyint(inside * _like(1 / math.log(2), x)), _like(127, x))
    r = inside - n * _like(_LN2_HIGH, x) - n * _like(_LN2_LOW, x)
    bits = _dtype(x).replace("float", "int")
    power = (n.astype(bits) + tirx.const(127, bits)) << tirx.const(23, bits)
    value = _horner(r, _EXP_TAYLOR) * tirx.reinterpret(_dtype(x), power)
    value = tirx.Select(x < _like(_EXP_LOWEST, x), _like(0, x), value)
    value = tirx.Select(x > _like(_EXP_HIGHEST, x), _like(math.inf, x), value)
    return tirx.Select(x == x, value, x)


def _tanh(x: Any) -> Any:
    size, square = tirx.max(x, -x), x * x
    small = x + x * square * _horner(square, _TANH_SMALL)
    large = _like(1, x) - _like(2, x) / (_exp(size + size) + _like(1, x))
    large = tirx.Select(x < _like(0, x), -large, large)
    return tirx.Select(size < _like(0.625, x), small, tirx.Select(x == x, large, x))


def _erf(x: Any) -> Any:
    size, square = tirx.max(x, -x), x * x
    small = x * _horner(square, _ERF_SMALL)
    t = _like(1, x) / (_like(1, x) + _like(_ERF_P, x) * size)
    large = _like(1, x) - t * _horner(t, _ERF_LARGE) * _exp(-square)
    large = tirx.Select(x < _like(0, x), -large, large)
    return tirx.Select(size < _like(0.5, x), small, tirx.Select(x == x, large, x))


def _lane_by_lane(call: Any) -> Any:
    """Return `call` on a vector as one call a lane, for what the C library computes."""
    x = call.args[0]
    dtype, lanes = _dtype(x).split("x")
    scalars = [tirx.call_intrin(dtype, call.op, tirx.Shuffle([x], [lane])) for lane in range(int(lanes))]
    return tirx.Shuffle(scalars, list(range(len(scalars))))


@functools.cache
def register() -> None:
    """Make TVM's LLVM code generator use these functions."""
    for name, compute in (("exp", _exp), ("tanh", _tanh), ("erf", _erf)):
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
