"""Comparisons, logic, bits, choices and limits, with PyTorch's treatment of NaN."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import fx
from tvm import relax

from compiler.frontend.converters.elementwise import operands
from compiler.frontend.converters.registry import Call, converter, dtype_of, is_float, scalar, tvm_dtype

R = relax.op
Op = Callable[..., relax.Expr]


def common_dtype(call: Call) -> str:
    """Return the type in which PyTorch computes: promotion over all tensor and scalar operands."""
    return tvm_dtype(torch.result_type(*(_sample(a) for a in call.node.args[:2])))


def _sample(argument: Any) -> Any:
    value = argument.meta["val"] if isinstance(argument, fx.Node) else argument
    return 1 if isinstance(value, torch.SymInt) else value


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


def _compared(call: Call, x: Any, y: Any) -> list[relax.Expr]:
    """Bring two operands to their common type; TVM has no order on bool, so those become bytes."""
    dtype = common_dtype(call)
    both = operands(call, x, y, dtype=dtype)
    return [call.cast(o, "uint8") for o in both] if dtype == "bool" else both


@converter("ne.Tensor", "ne.Scalar")
def _not_equal(call: Call, self: Any, other: Any) -> relax.Expr:
    return differs(call, *_compared(call, self, other))


def _register_comparisons() -> None:
    table: dict[str, Op] = {
        "eq": R.equal,
        "lt": R.less,
        "le": R.less_equal,
        "gt": R.greater,
        "ge": R.greater_equal,
    }
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
            return call.emit((boolean if call.dtype == "bool" else integer)(*operands(call, self, other)))

        names = [
            f"{stem}.{kind}" for stem in (f"bitwise_{name}", f"__{name}__") for kind in ("Tensor", "Scalar")
        ]
        _binary(partial(bitwise, integer, boolean), *names)


_register_comparisons()
_register_logic()


def _shift(op: Op, call: Call, self: Any, other: Any) -> relax.Expr:
    """Shift; C leaves shifting by the width or more open, PyTorch gives 0 (or the sign, to the right)."""
    x, by = operands(call, self, other)
    bits = int("".join(c for c in call.dtype if c.isdigit()))
    out = call.emit(
        R.logical_or(R.less(by, scalar(0, call.dtype)), R.greater_equal(by, scalar(bits, call.dtype)))
    )
    shifted = call.emit(op(x, R.where(out, scalar(0, call.dtype), by)))
    right = op is R.right_shift and not call.dtype.startswith("u")
    far = call.emit(R.right_shift(x, scalar(bits - 1, call.dtype))) if right else scalar(0, call.dtype)
    return call.emit(R.where(out, far, shifted))


_binary(
    partial(_shift, R.left_shift),
    "__lshift__.Tensor",
    "__lshift__.Scalar",
    "bitwise_left_shift.Tensor",
    "bitwise_left_shift.Tensor_Scalar",
)
_binary(
    partial(_shift, R.right_shift),
    "__rshift__.Tensor",
    "__rshift__.Scalar",
    "bitwise_right_shift.Tensor",
    "bitwise_right_shift.Tensor_Scalar",
)


@converter("where.self")
def _where(call: Call, condition: relax.Expr, self: Any, other: Any) -> relax.Expr:
    return call.emit(R.where(truth(call, condition), *operands(call, self, other)))


def keep_nan(call: Call, x: relax.Expr, result: relax.Expr) -> relax.Expr:
    """Put NaN back where `x` is NaN: TVM's min and max give one of their operands there."""
    return call.emit(R.where(R.isnan(x), x, result)) if is_float(dtype_of(x)) else result


@converter("maximum.default", "minimum.default")
def _extremum(call: Call, self: Any, other: Any) -> relax.Expr:
    return extremum(call, call.node.target.__name__.split(".")[0], *operands(call, self, other))


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
