"""Elementwise arithmetic with PyTorch's type promotion and its treatment of NaN and integer edge cases."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import fx
from tvm import relax

from compiler.frontend.converters.registry import Call, converter, dtype_of, is_float, scalar, tvm_dtype
from compiler.support.errors import ModelError

R = relax.op
Op = Callable[..., relax.Expr]


def common_dtype(call: Call) -> str:
    """Return the type in which PyTorch computes: promotion over all tensor and scalar operands."""
    operands = [_sample(a) for a in call.node.args[:2]]
    return tvm_dtype(torch.result_type(*operands))


def _sample(argument: Any) -> Any:
    value = argument.meta["val"] if isinstance(argument, fx.Node) else argument
    return 1 if isinstance(value, torch.SymInt) else value


def _register_float_unary() -> None:
    """Functions whose result is a floating-point number also for integer input."""
    table: dict[str, Op] = {
        "acos": R.acos, "acosh": R.acosh, "asin": R.asin, "asinh": R.asinh, "atan": R.atan, "atanh": R.atanh,
        "cos": R.cos, "cosh": R.cosh, "erf": R.erf, "exp": R.exp, "log": R.log, "rsqrt": R.rsqrt,
        "sigmoid": R.sigmoid, "sin": R.sin, "sinh": R.sinh, "sqrt": R.sqrt, "tan": R.tan, "tanh": R.tanh,
    }  # fmt: skip
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


@converter("bitwise_not.default")
def _bitwise_not(call: Call, self: relax.Expr) -> relax.Expr:
    return call.emit(R.logical_not(self) if dtype_of(self) == "bool" else R.bitwise_not(self))


@converter("logical_not.default")
def _logical_not(call: Call, self: relax.Expr) -> relax.Expr:
    return call.emit(R.logical_not(truth(call, self)))


def truth(call: Call, x: relax.Expr) -> relax.Expr:
    """Give `x` as bool: true where it differs from zero (NaN is true)."""
    return x if dtype_of(x) == "bool" else differs(call, x, scalar(0, dtype_of(x)))


def differs(call: Call, x: relax.Expr, y: relax.Expr) -> relax.Expr:
    """``x != y`` with NaN different from everything; LLVM's comparison for ``R.not_equal`` says otherwise."""
    if is_float(dtype_of(x)):
        return call.emit(R.logical_not(call.emit(R.equal(x, y))))
    return call.emit(R.not_equal(x, y))


@converter("isnan.default")
def _isnan(call: Call, self: relax.Expr) -> relax.Expr:
    return call.emit(R.isnan(self) if is_float(dtype_of(self)) else R.not_equal(self, self))


@converter("isinf.default")
def _isinf(call: Call, self: relax.Expr) -> relax.Expr:
    return call.emit(R.isinf(self) if is_float(dtype_of(self)) else R.not_equal(self, self))


@converter("isfinite.default")
def _isfinite(call: Call, self: relax.Expr) -> relax.Expr:
    return call.emit(R.isfinite(self) if is_float(dtype_of(self)) else R.equal(self, self))


def _operands(call: Call, *values: Any, dtype: str | None = None) -> list[relax.Expr]:
    return [call.tensor(v, dtype or call.dtype) for v in values]


@converter("mul.Tensor", "mul.Scalar")
def _mul(call: Call, self: Any, other: Any) -> relax.Expr:
    if isinstance(other, (int, float)) and other == 1 and call.dtype != "bool":
        return call.tensor(self, call.dtype)  # what 1 / x leaves behind
    op = R.logical_and if call.dtype == "bool" else R.multiply
    return call.emit(op(*_operands(call, self, other)))


@converter("add.Tensor", "add.Scalar")
def _add(call: Call, self: Any, other: Any, alpha: Any) -> relax.Expr:
    return _add_scaled(call, self, other, alpha)


@converter("sub.Tensor", "sub.Scalar")
def _sub(call: Call, self: Any, other: Any, alpha: Any) -> relax.Expr:
    x, y = _operands(call, self, other)
    return call.emit(R.subtract(x, _scaled(call, y, alpha)))


@converter("rsub.Tensor", "rsub.Scalar")
def _rsub(call: Call, self: Any, other: Any, alpha: Any) -> relax.Expr:
    x, y = _operands(call, self, other)
    return call.emit(R.subtract(y, _scaled(call, x, alpha)))


def _scaled(call: Call, x: relax.Expr, alpha: Any) -> relax.Expr:
    return (
        x
        if isinstance(alpha, (int, float)) and alpha == 1
        else call.emit(R.multiply(x, call.tensor(alpha, call.dtype)))
    )


def _add_scaled(call: Call, self: Any, other: Any, alpha: Any) -> relax.Expr:
    x, y = _operands(call, self, other)
    if call.dtype == "bool":
        return call.emit(R.logical_or(x, y)) if alpha else x
    return call.emit(R.add(x, _scaled(call, y, alpha)))


@converter("div.Tensor", "div.Scalar")
def _div(call: Call, self: Any, other: Any) -> relax.Expr:
    return call.emit(R.divide(*_operands(call, self, other)))


@converter("div.Tensor_mode", "div.Scalar_mode")
def _div_mode(call: Call, self: Any, other: Any, rounding_mode: str | None) -> relax.Expr:
    x, y = _operands(call, self, other)
    if rounding_mode is None:
        return call.emit(R.divide(x, y))
    if rounding_mode == "floor":
        return floor_divide(call, x, y)
    quotient = call.emit(R.divide(x, y))
    return call.emit(R.trunc(quotient)) if is_float(call.dtype) else quotient


@converter("floor_divide.default", "floor_divide.Scalar")
def _floor_divide(call: Call, self: Any, other: Any) -> relax.Expr:
    return floor_divide(call, *_operands(call, self, other))


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
    return python_mod(call, *_operands(call, self, other))


@converter("fmod.Tensor", "fmod.Scalar")
def _fmod(call: Call, self: Any, other: Any) -> relax.Expr:
    return call.emit(R.mod(*_operands(call, self, other)))


@converter("atan2.default")
def _atan2(call: Call, self: Any, other: Any) -> relax.Expr:
    return call.emit(R.atan2(*_operands(call, self, other)))


def _compared(call: Call, x: Any, y: Any) -> list[relax.Expr]:
    """Bring two operands to their common type; TVM has no order on bool, so those become bytes."""
    dtype = common_dtype(call)
    operands = _operands(call, x, y, dtype=dtype)
    return [call.cast(o, "uint8") for o in operands] if dtype == "bool" else operands


@converter("ne.Tensor", "ne.Scalar")
def _not_equal(call: Call, self: Any, other: Any) -> relax.Expr:
    return differs(call, *_compared(call, self, other))


def _register_comparisons() -> None:
    table: dict[str, Op] = {
        "eq": R.equal, "lt": R.less, "le": R.less_equal, "gt": R.greater, "ge": R.greater_equal,
    }  # fmt: skip
    for name, op in table.items():

        def compare(op: Op, call: Call, self: Any, other: Any) -> relax.Expr:
            return call.emit(op(*_compared(call, self, other)))

        _binary(partial(compare, op), f"{name}.Tensor", f"{name}.Scalar")


def _binary(convert: Callable[..., Any], *names: str) -> None:
    converter(*names)(lambda call, self, other: convert(call, self, other))


def _register_logic() -> None:
    for name, op in {"and": R.logical_and, "or": R.logical_or, "xor": R.logical_xor}.items():

        def logical(op: Op, call: Call, self: Any, other: Any) -> relax.Expr:
            return call.emit(op(truth(call, self), truth(call, other)))

        _binary(partial(logical, op), f"logical_{name}.default")
    pairs = {
        "and": (R.bitwise_and, R.logical_and),
        "or": (R.bitwise_or, R.logical_or),
        "xor": (R.bitwise_xor, R.logical_xor),
    }
    for name, (integer, boolean) in pairs.items():

        def bitwise(integer: Op, boolean: Op, call: Call, self: Any, other: Any) -> relax.Expr:
            return call.emit((boolean if call.dtype == "bool" else integer)(*_operands(call, self, other)))

        names = [
            f"{stem}.{kind}" for stem in (f"bitwise_{name}", f"__{name}__") for kind in ("Tensor", "Scalar")
        ]
        _binary(partial(bitwise, integer, boolean), *names)


_register_comparisons()
_register_logic()


def _shift(op: Op, call: Call, self: Any, other: Any) -> relax.Expr:
    """Shift; C leaves shifting by the width or more open, PyTorch gives 0 (or the sign, to the right)."""
    x, by = _operands(call, self, other)
    bits = int("".join(c for c in call.dtype if c.isdigit()))
    out = call.emit(
        R.logical_or(R.less(by, scalar(0, call.dtype)), R.greater_equal(by, scalar(bits, call.dtype)))
    )
    shifted = call.emit(op(x, R.where(out, scalar(0, call.dtype), by)))
    right = op is R.right_shift and not call.dtype.startswith("u")
    far = call.emit(R.right_shift(x, scalar(bits - 1, call.dtype))) if right else scalar(0, call.dtype)
    return call.emit(R.where(out, far, shifted))


_binary(partial(_shift, R.left_shift), "__lshift__.Tensor", "__lshift__.Scalar",
        "bitwise_left_shift.Tensor", "bitwise_left_shift.Tensor_Scalar")  # fmt: skip
_binary(partial(_shift, R.right_shift), "__rshift__.Tensor", "__rshift__.Scalar",
        "bitwise_right_shift.Tensor", "bitwise_right_shift.Tensor_Scalar")  # fmt: skip


@converter("where.self")
def _where(call: Call, condition: relax.Expr, self: Any, other: Any) -> relax.Expr:
    return call.emit(R.where(truth(call, condition), *_operands(call, self, other)))


def keep_nan(call: Call, x: relax.Expr, result: relax.Expr) -> relax.Expr:
    """Put NaN back where `x` is NaN: TVM's min and max give one of their operands there."""
    return call.emit(R.where(R.isnan(x), x, result)) if is_float(dtype_of(x)) else result


@converter("maximum.default", "minimum.default")
def _extremum(call: Call, self: Any, other: Any) -> relax.Expr:
    return extremum(call, call.node.target.__name__.split(".")[0], *_operands(call, self, other))


def extremum(call: Call, name: str, x: relax.Expr, y: relax.Expr) -> relax.Expr:
    """Elementwise maximum or minimum that gives NaN where either operand is NaN."""
    if call.dtype == "bool":
        return call.emit((R.logical_or if name == "maximum" else R.logical_and)(x, y))
    plain = call.emit((R.maximum if name == "maximum" else R.minimum)(x, y))
    if not is_float(call.dtype):
        return plain
    return call.emit(R.where(R.logical_or(R.isnan(x), R.isnan(y)), R.add(x, y), plain))


@converter("clamp.default")
def _clamp(call: Call, self: relax.Expr, min: Any, max: Any) -> relax.Expr:
    """Clamp between Python numbers: one ``R.clip``, with NaN kept."""
    x = call.cast(self, call.dtype)
    if not is_float(call.dtype):
        for name, bound in (("maximum", min), ("minimum", max)):
            x = x if bound is None else call.emit(getattr(R, name)(x, call.tensor(bound, call.dtype)))
        return x
    if not all(b is None or isinstance(b, (int, float)) for b in (min, max)):
        return clamp_tensors(call, x, min, max)
    low, high = (-float("inf") if min is None else float(min), float("inf") if max is None else float(max))
    return keep_nan(call, x, call.emit(R.clip(x, low, high)))


@converter("clamp.Tensor")
def _clamp_tensor(call: Call, self: relax.Expr, min: Any, max: Any) -> relax.Expr:
    return clamp_tensors(call, call.cast(self, call.dtype), min, max)


def clamp_tensors(call: Call, x: relax.Expr, low: Any, high: Any) -> relax.Expr:
    """Clamp between tensors that broadcast with `x`."""
    if low is not None:
        x = extremum(call, "maximum", x, call.tensor(low, call.dtype))
    return x if high is None else extremum(call, "minimum", x, call.tensor(high, call.dtype))


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
    return call.emit(R.power(*_operands(call, base, exponent)))
