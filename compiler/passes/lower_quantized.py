"""Quantized layers become integer layers.

    conv2d(dequantize(q, s, z), dequantize(w, t))  ->  (conv2d(pad(q, z), w): int32 - z * sum(w)) * (s * t)
    quantize(relu(that + bias), u, y)              ->  clip(round(that * (s * t / u) + bias / u) + y)

Between an integer layer and the next `quantize` a value is carried as what it is made of: sums of integers
times factors, plus an offset, within bounds. Biases, residual additions, ReLUs and the scales on both sides
become one multiplication and one addition an element, in registers, at the end of the layer (B. Jacob and
others, Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, arXiv
1712.05877). Operators that only move or choose elements (max pooling, reshapes, transpositions, slices,
concatenations) work on the bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tvm
from tvm import relax

from compiler.ir.constants import array_of, constant
from compiler.ir.rewriter import Rewriter, is_call, module_pass

_BYTES = ("int8", "uint8")
_FAR = float(1 << 30)
"""Quanta from zero up to which `quantize` of a step of 1 rounds to 32-bit integers without clipping first."""
_MOVES = (
    "relax.reshape", "relax.permute_dims", "relax.strided_slice", "relax.expand_dims", "relax.squeeze",
    "relax.flatten", "relax.nn.max_pool2d", "relax.nn.max_pool1d",
)  # fmt: skip
_MEANS = ("relax.mean", "relax.nn.adaptive_avg_pool2d", "relax.nn.avg_pool2d")


@dataclass(frozen=True)
class _Grid:
    """What the bytes `data` stand for: `scale` times (byte - `zero`)."""

    data: Any
    scale: float
    zero: int


@dataclass(frozen=True)
class _Value:
    """The sum of tensors times factors plus an offset, clipped to [low, high]; factors and offset broadcast.

    The sum is never further from zero than `reach`. `grid` is set where the value is that of bytes.
    """

    terms: tuple[tuple[Any, np.ndarray], ...]
    offset: np.ndarray
    reach: float
    low: float = -np.inf
    high: float = np.inf
    grid: _Grid | None = None

    @property
    def bounded(self) -> bool:
        """Tell whether the value is clipped."""
        return self.low > -np.inf or self.high < np.inf


class _LowerQuantized(Rewriter):
    name = "LowerQuantized"

    def __init__(self) -> None:
        super().__init__()
        self._values: dict[Any, _Value] = {}
        self._rules: dict[str, Callable[[Any], Any | None]] = {
            "relax.dequantize": self._dequantize,
            "relax.quantize": self._quantize,
            "relax.nn.conv1d": self._layer,
            "relax.nn.conv2d": self._layer,
            "relax.nn.conv3d": self._layer,
            "relax.matmul": self._layer,
            "relax.add": self._add,
            "relax.multiply": self._multiply,
            "relax.nn.relu": lambda call: self._clip(call, 0.0, np.inf),
            "relax.nn.relu6": lambda call: self._clip(call, 0.0, 6.0),
            "relax.clip": self._clip_between,
            "relax.concat": self._concat,
            **dict.fromkeys(_MOVES, self._move),
            **dict.fromkeys(_MEANS, self._mean),
        }

    def rewrite(self, expr: Any) -> Any:
        rule = self._rules.get(expr.op.name) if is_call(expr, *self._rules) else None
        result = rule(expr) if rule is not None else None
        return self._with_own_floats(expr) if result is None else result

    def _with_own_floats(self, expr: Any) -> Any:
        """Return `expr`, an operator in float, with the floats that bytes stand for computed for it alone.

        In one kernel with it they are never written to memory; shared with other operators they would be.
        """
        if not isinstance(expr, tvm.ir.Call):
            return expr
        arguments = []
        for argument in expr.args:
            value = self._value(argument)
            own = value is not None and value.grid is not None and self.uses(argument) > 1
            arguments.append(self._as(value) if own and value is not None else argument)
        return relax.Call(expr.op, arguments, expr.attrs, expr.ty_args)

    # Values

    def _as(self, value: _Value) -> Any:
        """Bind `value` in float32, for whoever does not know what it is made of, and remember it."""
        var = self.emit(self._sum(value.terms, value.offset, value.low, value.high))
        self._values[var] = value
        return var

    def _sum(self, terms: Any, offset: np.ndarray, low: float, high: float) -> Any:
        total = None
        for tensor, factor in terms:
            each = tensor
            if str(tensor.ty.dtype) != "float32":
                each = self.emit(relax.op.astype(tensor, "float32"))
            if not (factor == 1).all():
                each = self.emit(relax.op.multiply(each, _broadcast(factor)))
            total = each if total is None else self.emit(relax.op.add(total, each))
        if offset.any():
            total = self.emit(relax.op.add(total, _broadcast(offset)))
        if (low, high) == (0.0, np.inf):
            return self.emit(relax.op.nn.relu(total))
        if low > -np.inf or high < np.inf:
            return self.emit(relax.op.clip(total, low, high))
        return total

    def _value(self, expr: Any) -> _Value | None:
        return self._values.get(expr)

    def _open(self, expr: Any) -> _Value:
        """Return the value of `expr` such that it can be added to another: without bounds."""
        value = self._values.get(expr)
        if value is None or value.bounded:
            return _Value(((expr, _one()),), _zero(), np.inf)
        return value

    # Rules

    def _dequantize(self, call: Any) -> Any | None:
        data, scale, zero = call.args[0], array_of(call.args[1]), array_of(call.args[2])
        if scale is None or zero is None or array_of(data) is not None:
            return None
        if str(data.ty.dtype) not in _BYTES or scale.size != 1 or zero.size != 1:
            return None
        return self._as(_on_grid(_Grid(data, float(scale.reshape(())), int(zero.reshape(())))))

    def _quantize(self, call: Any) -> Any | None:
        value, scale, zero = self._value(call.args[0]), array_of(call.args[1]), array_of(call.args[2])
        if value is None or scale is None or zero is None or scale.size != 1 or zero.size != 1:
            return None
        step, shift, dtype = float(scale.reshape(())), int(zero.reshape(())), str(call.attrs.out_dtype)
        if dtype not in _BYTES:
            return None
        grid = value.grid
        if grid is not None and (grid.scale, grid.zero, str(grid.data.ty.dtype)) == (step, shift, dtype):
            return grid.data
        info = np.iinfo(dtype)
        low, high = value.low / step, value.high / step
        # Bounds that the bytes cannot leave anyway need no clipping: rounding is monotonic.
        low = low if low > info.min - shift else -np.inf
        high = high if high < info.max - shift else np.inf
        if value.reach / step > _FAR:
            low, high = max(low, info.min - shift), min(high, info.max - shift)
        terms = [(tensor, (factor / np.float32(step)).astype("float32")) for tensor, factor in value.terms]
        total = self._sum(terms, (value.offset / np.float32(step)).astype("float32"), low, high)
        return relax.op.quantize(
            total, constant(np.array(1, "float32")), call.args[2], axis=call.attrs.axis, out_dtype=dtype
        )

    def _layer(self, call: Any) -> Any | None:
        """Return the integer form of a layer whose input is bytes and whose weights are."""
        value, weight = self._value(call.args[0]), self._weight(call)
        if value is None or value.grid is None or weight is None:
            return None
        data, grid, (stored, scale) = value.grid.data, value.grid, weight
        if is_call(call, "relax.matmul"):
            sums = self.emit(relax.op.matmul(data, constant(stored), out_dtype="int32"))
            correction, largest = stored.astype("int64").sum(0), abs(stored.astype("int64")).sum(0)
        else:
            sums = self.emit(self._convolution(call, data, stored, grid.zero))
            inner = tuple(range(1, stored.ndim))
            correction, largest = (
                v.astype("int64").sum(inner) for v in (stored, abs(stored.astype("int64")))
            )
            shape = (-1,) + (1,) * (stored.ndim - 2)
            scale, correction, largest = (v.reshape(shape) for v in (scale, correction, largest))
        factor = (scale.astype("float64") * grid.scale).astype("float32")
        offset = (-grid.zero * correction * (scale.astype("float64") * grid.scale)).astype("float32")
        reach = float((255 * largest * factor).max() + abs(offset).max())
        return self._as(_Value(((sums, factor),), offset, reach))

    def _convolution(self, call: Any, data: Any, weight: np.ndarray, zero: int) -> Any:
        """Return the convolution of bytes; outside of the image they are the zero point."""
        attrs = call.attrs
        padding = [int(width) for width in attrs.padding]
        if zero and any(padding):
            rank = len(padding) // 2
            widths = [0] * 4 + [w for i in range(rank) for w in (padding[i], padding[rank + i])]
            data = self.emit(relax.op.nn.pad(data, widths, pad_value=float(zero)))
            padding = [0] * len(padding)
        make = getattr(relax.op.nn, call.op.name.removeprefix("relax.nn."))
        return make(
            data, constant(weight), strides=attrs.strides, padding=padding, dilation=attrs.dilation,
            groups=int(attrs.groups), out_dtype="int32",
        )  # fmt: skip

    def _weight(self, call: Any) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the signed bytes of a layer's weights and their scale: one, or one for each output.

        Of a matrix the outputs are the last axis, also behind the transposition that linear layers have.
        """
        source = self.definition(call.args[1])
        turned = is_call(source, "relax.permute_dims")
        given = self.definition(source.args[0]) if turned else source
        if not is_call(given, "relax.dequantize"):
            return None
        stored, scale, zero = (array_of(argument) for argument in given.args)
        if stored is None or scale is None or zero is None or zero.any() or stored.dtype != np.int8:
            return None
        axis = int(given.attrs.axis) % stored.ndim
        if turned:
            if stored.ndim != 2:
                return None
            stored, axis = np.ascontiguousarray(stored.T), 1 - axis
        outputs = stored.ndim - 1 if is_call(call, "relax.matmul") else 0
        if is_call(call, "relax.matmul") and stored.ndim != 2:
            return None
        if scale.size != 1 and (axis != outputs or scale.size != stored.shape[outputs]):
            return None
        return stored, scale.reshape(-1)

    def _add(self, call: Any) -> Any | None:
        left, right = call.args
        for operand, other in ((left, right), (right, left)):
            added, value = array_of(other), self._value(operand)
            if added is not None and value is not None and not value.bounded:
                if added.ndim > operand.ty.ndim or added.dtype != np.float32:
                    return None
                reach = value.reach + float(abs(added).max())
                return self._as(replace(value, offset=value.offset + added, reach=reach, grid=None))
        if self._value(left) is None and self._value(right) is None:
            return None
        if array_of(left) is not None or array_of(right) is not None or left.ty.ndim != right.ty.ndim:
            return None
        one, other = self._open(left), self._open(right)
        terms, reach = (*one.terms, *other.terms), one.reach + other.reach
        return self._as(_Value(terms, one.offset + other.offset, reach))

    def _multiply(self, call: Any) -> Any | None:
        for operand, other in (call.args, reversed(call.args)):
            factor, value = array_of(other), self._value(operand)
            if factor is None or value is None or value.bounded or factor.ndim > operand.ty.ndim:
                continue
            if factor.dtype == np.float32:
                terms = tuple((tensor, own * factor) for tensor, own in value.terms)
                reach = value.reach * float(abs(factor).max())
                return self._as(_Value(terms, value.offset * factor, reach))
        return None

    def _clip_between(self, call: Any) -> Any | None:
        low, high = (_number(bound) for bound in call.args[1:])
        return None if low is None or high is None else self._clip(call, low, high)

    def _clip(self, call: Any, low: float, high: float) -> Any | None:
        value = self._value(call.args[0])
        if value is None or low > high:
            return None
        inside = replace(value, low=max(low, min(value.low, high)), high=min(high, max(value.high, low)))
        if value.grid is not None:
            info = np.iinfo(str(value.grid.data.ty.dtype))
            least, most = ((n - value.grid.zero) * value.grid.scale for n in (info.min, info.max))
            if low <= least and most <= high:
                return call.args[0]
            inside = replace(inside, grid=None)
        return self._as(inside)

    def _move(self, call: Any) -> Any | None:
        """Move or choose bytes instead of what they stand for."""
        value = self._value(call.args[0])
        if value is None or value.grid is None:
            return None
        moved = self.emit(relax.Call(call.op, [value.grid.data, *call.args[1:]], call.attrs, call.ty_args))
        return self._as(_on_grid(replace(value.grid, data=moved)))

    def _concat(self, call: Any) -> Any | None:
        parts = self.definition(call.args[0])
        values = [self._value(part) for part in parts.fields] if isinstance(parts, relax.Tuple) else [None]
        grids = [value.grid for value in values if value is not None and value.grid is not None]
        kinds = {(grid.scale, grid.zero, str(grid.data.ty.dtype)) for grid in grids}
        if len(grids) != len(values) or len(kinds) != 1:
            return None
        joined = self.emit(relax.op.concat([grid.data for grid in grids], call.attrs.axis))
        return self._as(_on_grid(replace(grids[0], data=joined)))

    def _mean(self, call: Any) -> Any | None:
        """Take the mean of the bytes, in float32, where no padding takes part in it."""
        value = self._value(call.args[0])
        if value is None or value.grid is None:
            return None
        if is_call(call, "relax.nn.avg_pool2d") and any(int(width) for width in call.attrs.padding):
            return None
        numbers = self.emit(relax.op.astype(value.grid.data, "float32"))
        mean = self.emit(relax.Call(call.op, [numbers, *call.args[1:]], call.attrs, call.ty_args))
        scale = np.float32(value.grid.scale)
        offset = np.array(-value.grid.zero * value.grid.scale, "float32")
        return self._as(_Value(((mean, np.array(scale)),), offset, value.reach))


def _on_grid(grid: _Grid) -> _Value:
    scale = np.array(grid.scale, "float32")
    offset = np.array(-grid.zero * float(scale), "float32")
    return _Value(((grid.data, scale),), offset, 511 * grid.scale, grid=grid)


def _number(expr: Any) -> float | None:
    """Return the number of a constant scalar expression, or None."""
    value = getattr(expr, "value", expr)
    value = getattr(value, "value", value)
    return float(value) if isinstance(value, (int, float)) else None


def _broadcast(value: np.ndarray) -> Any:
    return constant(np.asarray(value, "float32"))


def _one() -> np.ndarray:
    return np.ones((), "float32")


def _zero() -> np.ndarray:
    return np.zeros((), "float32")


lower_quantized = module_pass(_LowerQuantized)
