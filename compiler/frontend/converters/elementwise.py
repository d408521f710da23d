"""Elementwise arithmetic with PyTorch's type promotion and its treatment of NaN and integer edge cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import relax

from compiler.frontend.converters.registry import Call, converter, dtype_of, is_float, scalar
from compiler.support.errors import ModelError

R = relax.op
Op = Callable[..., relax.Expr]


def _register_float_unary() -> None:
    """Functions whose result is a floating-point number also for integer input."""
    table: dict[str, Op] = {
        "acos": R.acos,
        "acosh": R.acosh,
        "asin": R.asin,
        "asinh": R.asinh,
        "atan": R.atan,
        "atanh": R.atanh,
        "cos": R.cos,
        "cosh": R.cosh,
        "erf": R.erf,
        "exp": R.exp,
        "log": R.log,
        "rsqrt": R.rsqrt,
        "sigmoid": R.sigmoid,
        "sin": R.sin,
        "sinh": R.sinh,
        "sqrt": R.sqrt,
        "tan": R.tan,
        "tanh": R.tanh,
    }
    for name, op in table.items():

        def convert(call: Call, self: relax.Expr, op: Op = op) -> relax.Expr:
            return call.emit(op(call.cast(self, call.dtype)))

        _named(f"{name}.default", convert)


def _named(name: str, convert: Callable[..., Any]) -> None:
    """Register `convert`, whose trailing parameters with defaults are not schema arguments."""
    converter(name)(lambda call, self: convert(call, self))


def _register_rounding() -> None:
    """Functions that leave integers alone."""
    for name, op in {"ceil": R.ceil, "floor": R.floor, "trunc": R.trunc}.items():

        def convert(call: Call, self: relax.Expr, op: Op = op) -> relax.Expr:
            return call.emit(op(self)) if is_float(dtype_of(self)) else self

        _named(f"{name}.default", convert)


_register_float_unary()
_register_rounding()


@converter("abs.default")
def _abs(call: Call, self: relax.Expr) -> relax.Expr:
    return self if dtype_of(self).startswith(("uint", "bool")) else call.emit(R.abs(self))


@converter("neg.default")
def _neg(call: Call, self: relax.Expr) -> relax.Expr:
    return call.emit(R.negative(self))


@converter("sign.default")
def _sign(call: Call, self: relax.Expr) -> relax.Expr:
    return self if dtype_of(self) == "bool" else call.emit(R.sign(self))


@converter("square.default")
def _square(call: Call, self: relax.Expr) -> relax.Expr:
    return call.emit(R.multiply(self, self))


@converter("reciprocal.default")
def _reciprocal(call: Call, self: relax.Expr) -> relax.Expr:
    return call.emit(R.divide(scalar(1, call.dtype), call.cast(self, call.dtype)))


@converter("round.default")
def _round(call: Call, self: relax.Expr) -> relax.Expr:
    return round_half_even(call, self) if is_float(dtype_of(self)) else self


@converter("round.decimals")
def _round_decimals(call: Call, self: relax.Expr, decimals: int) -> relax.Expr:
    if not is_float(dtype_of(self)):
        raise ModelError("expected a floating-point tensor in round(decimals=...), got integers")
    ten = scalar(10.0 ** abs(decimals), dtype_of(self))
    forth, back = (R.multiply, R.divide) if decimals > 0 else (R.divide, R.multiply)
    return call.emit(back(round_half_even(call, call.emit(forth(self, ten))), ten))


def round_half_even(call: Call, x: relax.Expr) -> relax.Expr:
    """Round to the nearest integer, ties to even, whichever way ``R.round`` breaks ties."""
    half, one = scalar(0.5, dtype_of(x)), scalar(1, dtype_of(x))
    below = call.emit(R.floor(x))
    rest = call.emit(R.subtract(x, below))
    halved = call.emit(R.multiply(below, half))
    odd = call.emit(R.less(R.floor(halved), halved))
    up = call.emit(R.logical_or(R.greater(rest, half), R.logical_and(R.equal(rest, half), odd)))
    return call.emit(R.where(up, R.add(below, one), below))


@converter("exp2.default")
def _exp2(call: Call, self: relax.Expr) -> relax.Expr:
    return call.emit(R.power(scalar(2, call.dtype), call.cast(self, call.dtype)))


@converter("log2.default", "log10.default")
def _log_base(call: Call, self: relax.Expr) -> relax.Expr:
    natural = {"log2.default": 0.6931471805599453, "log10.default": 2.302585092994046}
    base = scalar(natural[call.node.target.__name__], call.dtype)
    return call.emit(R.divide(R.log(call.cast(self, call.dtype)), base))


@converter("log1p.default")
def _log1p(call: Call, self: relax.Expr) -> relax.Expr:
    """``log(u) * x / (u - 1)`` with ``u = 1 + x`` (Kahan), which is accurate near zero."""
    x, one = call.cast(self, call.dtype), scalar(1, call.dtype)
    u = call.emit(R.add(x, one))
    rounded = call.emit(R.subtract(u, one))
    tiny = call.emit(R.equal(rounded, scalar(0, call.dtype)))
    safe = call.emit(R.where(tiny, one, rounded))
    accurate = call.emit(R.multiply(R.log(u), R.divide(x, safe)))
    infinite = call.emit(R.isinf(x))
    return call.emit(R.where(tiny, x, R.where(infinite, R.log(u), accurate)))


@converter("expm1.default")
def _expm1(call: Call, self: relax.Expr) -> relax.Expr:
    """Taylor's series near zero, ``exp(x) - 1`` elsewhere."""
    x, dtype = call.cast(self, call.dtype), call.dtype
    plain = call.emit(R.subtract(R.exp(x), scalar(1, dtype)))
    series = scalar(1 / 40320, dtype)
    for factor in (1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0):
        series = call.emit(R.add(R.multiply(series, x), scalar(factor, dtype)))
    small = call.emit(R.less(R.abs(x), scalar(0.1, dtype)))
    return call.emit(R.where(small, R.multiply(series, x), plain))


def operands(call: Call, *values: Any, dtype: str | None = None) -> list[relax.Expr]:
    """Give values as tensors of one type, by default the output's."""
    return [call.tensor(v, dtype or call.dtype) for v in values]


@converter("mul.Tensor", "mul.Scalar")
def _mul(call: Call, self: Any, other: Any) -> relax.Expr:
    if isinstance(other, (int, float)) and other == 1 and call.dtype != "bool":
        return call.tensor(self, call.dtype)  # what 1 / x leaves behind
    op = R.logical_and if call.dtype == "bool" else R.multiply
    return call.emit(op(*operands(call, self, other)))


@converter("add.Tensor", "add.Scalar")
def _add(call: Call, self: Any, other: Any, alpha: Any) -> relax.Expr:
    return _add_scaled(call, self, other, alpha)


@converter("sub.Tensor", "sub.Scalar")
def _sub(call: Call, self: Any, other: Any, alpha: Any) -> relax.Expr:
    x, y = operands(call, self, other)
    return call.emit(R.subtract(x, _scaled(call, y, alpha)))


@converter("rsub.Tensor", "rsub.Scalar")
def _rsub(call: Call, self: Any, other: Any, alpha: Any) -> relax.Expr:
    x, y = operands(call, self, other)
    return call.emit(R.subtract(y, _scaled(call, x, alpha)))


def _scaled(call: Call, x: relax.Expr, alpha: Any) -> relax.Expr:
    return (
        x
        if isinstance(alpha, (int, float)) and alpha == 1
        else call.emit(R.multiply(x, call.tensor(alpha, call.dtype)))
    )


def _add_scaled(call: Call, self: Any, other: Any, alpha: Any) -> relax.Expr:
    x, y = operands(call, self, other)
    if call.dtype == "bool":
        return call.emit(R.logical_or(x, y)) if alpha else x
    return call.emit(R.add(x, _scaled(call, y, alpha)))


@converter("div.Tensor", "div.Scalar")
def _div(call: Call, self: Any, other: Any) -> relax.Expr:
    return call.emit(R.divide(*operands(call, self, other)))


@converter("div.Tensor_mode", "div.Scalar_mode")
def _div_mode(call: Call, self: Any, other: Any, rounding_mode: str | None) -> relax.Expr:
    x, y = operands(call, self, other)
    if rounding_mode is None:
        return call.emit(R.divide(x, y))
    if rounding_mode == "floor":
        return floor_divide(call, x, y)
    quotient = call.emit(R.divide(x, y))
    return call.emit(R.trunc(quotient)) if is_float(call.dtype) else quotient


@converter("floor_divide.default", "floor_divide.Scalar")
def _floor_divide(call: Call, self: Any, other: Any) -> relax.Expr:
    return floor_divide(call, *operands(call, self, other))


def floor_divide(call: Call, x: relax.Expr, y: relax.Expr) -> relax.Expr:
    """Floor division; for floats from the exact remainder, as Python does (1.0 // 0.1 is 9)."""
    dtype = dtype_of(x)
    if not is_float(dtype):
        return call.emit(R.floor_divide(x, y))
    remainder = python_mod(call, x, y)
    quotient = call.emit(R.divide(R.subtract(x, remainder), y))
    by_zero = call.emit(R.equal(y, scalar(0, dtype)))
    return call.emit(R.where(by_zero, R.divide(x, y), round_half_even(call, quotient)))


def python_mod(call: Call, x: relax.Expr, y: relax.Expr) -> relax.Expr:
    """Remainder with the sign of the divisor."""
    dtype = dtype_of(x)
    if not is_float(dtype):
        return call.emit(R.floor_mod(x, y))
    zero = scalar(0, dtype)
    rest = float_mod(call, x, y)
    other_sign = call.emit(R.logical_xor(R.less(rest, zero), R.less(y, zero)))
    wrong = call.emit(R.logical_and(R.not_equal(rest, zero), other_sign))
    return call.emit(R.where(wrong, R.add(rest, y), rest))


def float_mod(call: Call, x: relax.Expr, y: relax.Expr) -> relax.Expr:
    """C's ``fmod``."""
    return call.emit(R.mod(x, y))


@converter("remainder.Tensor", "remainder.Scalar", "remainder.Scalar_Tensor")
def _remainder(call: Call, self: Any, other: Any) -> relax.Expr:
    return python_mod(call, *operands(call, self, other))


@converter("fmod.Tensor", "fmod.Scalar")
def _fmod(call: Call, self: Any, other: Any) -> relax.Expr:
    return call.emit(R.mod(*operands(call, self, other)))


@converter("atan2.default")
def _atan2(call: Call, self: Any, other: Any) -> relax.Expr:
    return call.emit(R.atan2(*operands(call, self, other)))


@converter("pow.Tensor_Scalar")
def _pow_scalar(call: Call, self: relax.Expr, exponent: Any) -> relax.Expr:
    x = call.cast(self, call.dtype)
    if isinstance(exponent, (int, float)) and float(exponent) in (0.5, -0.5) and is_float(call.dtype):
        return call.emit(R.sqrt(x) if exponent > 0 else R.divide(scalar(1, call.dtype), R.sqrt(x)))
    if not is_float(call.dtype):
        if not isinstance(exponent, int) or exponent < 0:
            raise ModelError(f"expected a fixed non-negative exponent of an integer tensor, got {exponent}")
        return _integer_power(call, x, exponent)
    if isinstance(exponent, (int, float)) and float(exponent).is_integer() and abs(exponent) <= 4:
        return _small_power(call, x, int(exponent))
    return call.emit(R.power(x, call.tensor(exponent, call.dtype)))


def _small_power(call: Call, x: relax.Expr, exponent: int) -> relax.Expr:
    result = _integer_power(call, x, abs(exponent))
    return result if exponent >= 0 else call.emit(R.divide(scalar(1, call.dtype), result))


def _integer_power(call: Call, x: relax.Expr, exponent: int) -> relax.Expr:
    """Square and multiply, wrapping as integers do."""
    result: relax.Expr | None = None
    while exponent:
        if exponent & 1:
            result = x if result is None else call.emit(R.multiply(result, x))
        exponent >>= 1
        if exponent:
            x = call.emit(R.multiply(x, x))
    return call.emit(R.ones_like(x)) if result is None else result


@converter("pow.Tensor_Tensor")
def _pow(call: Call, self: relax.Expr, exponent: relax.Expr) -> relax.Expr:
    return _float_power(call, self, exponent)


@converter("pow.Scalar")
def _pow_base(call: Call, self: Any, exponent: relax.Expr) -> relax.Expr:
    return _float_power(call, self, exponent)


def _float_power(call: Call, base: Any, exponent: Any) -> relax.Expr:
    if not is_float(call.dtype):
        raise ModelError(
            "expected a floating-point base or exponent in pow of tensors, got integers; cast one of them"
        )
    return call.emit(R.power(*operands(call, base, exponent)))
