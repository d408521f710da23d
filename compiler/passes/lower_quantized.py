"""Quantized layers become integer layers.

    conv2d(dequantize(q, s, z), dequantize(w, t))  ->  (conv2d(pad(q, z), w): int32 - z * sum(w)) * (s * t)
    quantize(relu(that + bias), u, y)              ->  clip(round(that * (s * t / u) + bias / u) + y)

Between an integer layer and the next `quantize` a value is carried as what it is made of: sums of integers
times factors, plus an offset, within bounds. Biases, residual additions, ReLUs and the scales on both sides
become one multiplication and one addition an element, in registers, at the end of the layer (B. Jacob and
others, Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, arXiv
1712.05877). Operators that only move or choose elements (max pooling, reshapes, transpositions, slices,
concatenations) work on the bytes. Products of two activations: `compiler.passes.quantized_products`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import tvm
from tvm import relax

from compiler.ir.constants import array_of, constant, scalar_of
from compiler.ir.rewriter import Rewriter, is_call, module_pass
from compiler.passes.quantized_products import product, why_not_in_integers
from compiler.passes.quantized_values import Grid, Levels, Value, on_grid
from compiler.passes.quantized_weights import LAYERS, TWO_ACTIVATIONS, Weights, weights_of
from compiler.passes.split_conv_transpose import split_of
from compiler.support.dtypes import SHIFT

_BYTES = ("int8", "uint8")
_FAR = float(1 << 30)
"""Quanta from zero up to which `quantize` of a step of 1 rounds to 32-bit integers without clipping first."""
_CHOICES = ("relax.strided_slice", "relax.nn.max_pool2d", "relax.nn.max_pool1d")
"""Operators that give fewer elements than they take."""

_MOVES = (
    "relax.reshape", "relax.permute_dims", "relax.expand_dims", "relax.squeeze", "relax.flatten", *_CHOICES,
)  # fmt: skip
_MEANS = ("relax.mean", "relax.nn.adaptive_avg_pool2d", "relax.nn.avg_pool2d")


class _LowerQuantized(Rewriter):
    name = "LowerQuantized"

    def __init__(self) -> None:
        super().__init__()
        self._values: dict[Any, Value] = {}
        self._rules: dict[str, Callable[[Any], Any | None]] = {
            "relax.dequantize": self._dequantize,
            "relax.quantize": self._quantize,
            **dict.fromkeys(LAYERS, self._layer),
            "relax.add": self._add,
            "relax.subtract": self._subtract,
            "relax.multiply": self._multiply,
            "relax.divide": self._divide,
            "relax.nn.relu": lambda call: self._clip(call, 0.0, np.inf),
            "relax.nn.relu6": lambda call: self._clip(call, 0.0, 6.0),
            "relax.clip": self._clip_between,
            "relax.concat": self._concat,
            **dict.fromkeys(_MOVES, self._move),
            **dict.fromkeys(_MEANS, self._mean),
        }

    def rewrite(self, expr: Any) -> Any:
        if isinstance(expr, relax.TupleGetItem):
            field = self._field(expr)
            return expr if field is None else field
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

    def _as(self, value: Value) -> Any:
        """Bind `value` in float32, for whoever does not know what it is made of, and remember it."""
        var = self.emit(self._sum(value.terms, value.offset, value.low, value.high))
        self._values[var] = value
        return var

    def _sum(self, terms: Any, offset: np.ndarray, low: float, high: float) -> Any:
        total = None
        for tensor, factor in terms:
            each = self._floats(tensor)
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

    def _floats(self, tensor: Any) -> Any:
        """Bind sums, or bytes that count from zero on, as float32."""
        dtype = str(tensor.ty.dtype)
        if dtype == "float32":
            return tensor
        floats = self.emit(relax.op.astype(tensor, "float32"))
        shift = SHIFT.get((dtype, "uint8"))
        return self.emit(relax.op.add(floats, _broadcast(np.array(shift)))) if shift else floats

    def _value(self, expr: Any) -> Value | None:
        return self._values.get(expr)

    def _open(self, expr: Any) -> Value:
        """Return the value of `expr` such that it can be added to another: without bounds."""
        value = self._values.get(expr)
        if value is None or value.bounded:
            return Value.unknown(expr, np.inf if value is None else value.furthest)
        return value

    # To and from bytes

    def _dequantize(self, call: Any) -> Any | None:
        data, scale, zero = call.args[0], array_of(call.args[1]), array_of(call.args[2])
        if scale is None or zero is None or array_of(data) is not None:
            return None
        if str(data.ty.dtype) not in _BYTES or scale.size != 1 or zero.size != 1:
            return None
        return self._as(on_grid(Grid(data, float(scale.reshape(())), int(zero.reshape(())))))

    def _quantize(self, call: Any) -> Any | None:
        scale, zero, dtype = array_of(call.args[1]), array_of(call.args[2]), str(call.attrs.out_dtype)
        if scale is None or zero is None or scale.size != 1 or zero.size != 1 or dtype not in _BYTES:
            return None
        return self._codes(call.args[0], Levels(float(scale.reshape(())), int(zero.reshape(())), dtype))

    def _codes(self, expr: Any, levels: Levels) -> Any | None:
        """Return `expr` rounded to `levels`, or None where all that is known of it is that it is float."""
        value = self._value(expr)
        if value is None:
            return self._codes_of_parts(expr, levels)
        if levels.is_grid_of(value):
            assert value.grid is not None
            return value.grid.data
        low, high = levels.bounds(value, _FAR)
        step = np.float32(levels.step)
        terms = [(tensor, (factor / step).astype("float32")) for tensor, factor in value.terms]
        total = self._sum(terms, (value.offset / step).astype("float32"), low, high)
        return _rounded(total, 1, levels)

    def _codes_of_parts(self, expr: Any, levels: Levels) -> Any | None:
        """Move the bytes of what `expr` only moves, chooses or joins: a layer before it rounds what it gives.

        Rounding is monotonic, so it does not matter whether the largest of some is found before or after.
        """
        call = self.definition(expr)
        if self.uses(expr) != 1:
            return None
        if is_call(call, *_MOVES):
            if is_call(call, *_CHOICES) and self._value(call.args[0]) is None:
                return None
            codes = self._bytes(call.args[0], levels)
            return relax.Call(call.op, [codes, *call.args[1:]], call.attrs, call.ty_args)
        if is_call(call, "relax.concat") and isinstance(self.definition(call.args[0]), relax.Tuple):
            fields = self.definition(call.args[0]).fields
            return relax.op.concat([self._bytes(field, levels) for field in fields], call.attrs.axis)
        return None

    def _bytes(self, expr: Any, levels: Levels) -> Any:
        codes = self._codes(expr, levels)
        return self.emit(_rounded(expr, levels.step, levels) if codes is None else codes)

    # Layers

    def _layer(self, call: Any) -> Any | None:
        """Return the integer form of a layer whose input is bytes and whose weights are."""
        value, weights = self._value(call.args[0]), weights_of(call, self.definition)
        if value is None or value.grid is None:
            return None
        if weights == TWO_ACTIVATIONS:
            return self._activations(call, value.grid)
        if isinstance(weights, str):
            return None
        factor = weights.scale.astype("float64") * value.grid.scale
        found = self._product(call, value.grid, weights, factor)
        if found is not None and weights.moved.any():
            # All outputs sum the same inputs, those of a group at least.
            ones = weights.ones(one=call.op.name == "relax.matmul" or int(call.attrs.groups) == 1)
            sums = self._product(call, value.grid, ones, factor * weights.moved)
            found = None if sums is None else found.plus(sums)
        return None if found is None else self._as(found)

    def _activations(self, call: Any, left: Grid) -> Any | None:
        """Return the integer form of a product of two activations, if the second is bytes too."""
        right = self._value(call.args[1])
        if right is None or right.grid is None or why_not_in_integers(call) is not None:
            return None
        return self._as(product(self, left, right.grid))

    def _product(self, call: Any, grid: Grid, weights: Weights, factor: np.ndarray) -> Value | None:
        """Return what a layer with the codes of `weights` gives, times a `factor` for each output."""
        correction = weights.over_outputs(weights.codes)
        if is_call(call, "relax.matmul"):
            sums = relax.op.matmul(grid.data, constant(weights.codes), out_dtype="int32")
        elif is_call(call, "relax.nn.conv2d_transpose"):
            sums = self._transposed(call, grid, weights.codes)
            correction = np.zeros_like(correction)  # made already: it depends on the phase
        else:
            padding = [int(width) for width in call.attrs.padding]
            sums = self._convolution(call, grid, weights.codes, padding)
        if sums is None:
            return None
        shape = (-1,) if is_call(call, "relax.matmul") else (-1,) + (1,) * (weights.codes.ndim - 2)
        if grid.shift and correction.any():
            moved = (grid.shift * correction).astype("int32").reshape(shape)
            sums = relax.op.add(self.emit(sums), constant(moved))
        offset = -grid.shifted_zero * correction * factor
        reach = 255 * weights.over_outputs(abs(weights.codes.astype("int32"))) * abs(factor)
        return Value(
            ((self.emit(sums), factor.reshape(shape).astype("float32")),),
            offset.reshape(shape).astype("float32"),
            float(reach.max() + abs(offset).max()),
        )

    def _convolution(
        self, call: Any, grid: Grid, codes: np.ndarray, padding: list[int], **options: Any
    ) -> Any:
        """Return the convolution of bytes; outside of the image they are the zero point."""
        data, attrs = grid.data, call.attrs
        if grid.zero and any(padding):
            rank = len(padding) // 2
            widths = [0] * 4 + [w for i in range(rank) for w in (padding[i], padding[rank + i])]
            data = self.emit(relax.op.nn.pad(data, widths, pad_value=float(grid.zero)))
            padding = [0] * len(padding)
        name = call.op.name.removeprefix("relax.nn.").removesuffix("_transpose")
        options = {
            "strides": attrs.strides,
            "dilation": attrs.dilation,
            "groups": int(attrs.groups),
        } | options
        make = getattr(relax.op.nn, name)
        return make(data, constant(codes), padding=padding, out_dtype="int32", **options)

    def _transposed(self, call: Any, grid: Grid, codes: np.ndarray) -> Any | None:
        """Return a transposed convolution of bytes, less what the zero point adds to each phase of it."""
        split = split_of(call, codes, self.old_type)
        if split is None:
            return None
        image = self.emit(self._convolution(call, grid, split.weight, list(split.padding), strides=[1, 1]))
        if grid.zero:
            added = grid.zero * split.weight.astype("int32").sum((1, 2, 3))
            image = self.emit(relax.op.subtract(image, constant(added.astype("int32").reshape(-1, 1, 1))))
        return split.interleaved(self.emit, image)

    # Operators between layers

    def _add(self, call: Any) -> Any | None:
        left, right = call.args
        for operand, other in ((left, right), (right, left)):
            added, value = array_of(other), self._value(operand)
            if added is not None and value is not None and not value.bounded:
                fits = added.ndim <= operand.ty.ndim and added.dtype == np.float32
                return self._as(value.added(added)) if fits else None
        if self._value(left) is None and self._value(right) is None:
            return None
        if array_of(left) is not None or array_of(right) is not None or left.ty.ndim != right.ty.ndim:
            return None
        return self._as(self._open(left).plus(self._open(right)))

    def _subtract(self, call: Any) -> Any | None:
        amount, value = array_of(call.args[1]), self._value(call.args[0])
        if amount is None or value is None or value.bounded or amount.ndim > call.args[0].ty.ndim:
            return None
        return self._as(value.added(-amount)) if amount.dtype == np.float32 else None

    def _multiply(self, call: Any) -> Any | None:
        for operand, other in (call.args, reversed(call.args)):
            factor, value = array_of(other), self._value(operand)
            if factor is None or value is None or value.bounded or factor.ndim > operand.ty.ndim:
                continue
            if factor.dtype == np.float32:
                return self._as(value.scaled(factor))
        return None

    def _divide(self, call: Any) -> Any | None:
        divisor, value = array_of(call.args[1]), self._value(call.args[0])
        if divisor is None or value is None or value.bounded or divisor.ndim > call.args[0].ty.ndim:
            return None
        if divisor.dtype != np.float32 or not divisor.all():
            return None
        return self._as(value.scaled(np.float32(1) / divisor))

    def _field(self, item: Any) -> Any | None:
        """Return what a batch norm, which training with fake quantization leaves, makes of a layer."""
        call = self.definition(item.tuple_value)
        if item.index or not is_call(call, "relax.nn.batch_norm"):
            return None
        value = self._value(call.args[0])
        parameters = [each for each in map(array_of, call.args[1:]) if each is not None]
        if value is None or value.bounded or len(parameters) < 4:
            return None
        axis, rank = int(call.attrs.axis), call.args[0].ty.ndim
        gamma, beta, mean, variance = (
            np.reshape(each, (-1,) + (1,) * (rank - 1 - axis % rank)) for each in parameters
        )
        factor = 1 / np.sqrt(variance + np.float32(call.attrs.epsilon))
        factor = factor * gamma if call.attrs.scale else factor
        shift = (beta if call.attrs.center else 0) - mean * factor
        return self._as(value.scaled(factor.astype("float32")).added(shift.astype("float32")))

    def _clip_between(self, call: Any) -> Any | None:
        low, high = (scalar_of(bound) for bound in call.args[1:])
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
        return self._as(on_grid(replace(value.grid, data=moved)))

    def _concat(self, call: Any) -> Any | None:
        parts = self.definition(call.args[0])
        values = [self._value(part) for part in parts.fields] if isinstance(parts, relax.Tuple) else [None]
        grids = [value.grid for value in values if value is not None and value.grid is not None]
        kinds = {(grid.scale, grid.zero, str(grid.data.ty.dtype)) for grid in grids}
        if len(grids) != len(values) or len(kinds) != 1:
            return None
        joined = self.emit(relax.op.concat([grid.data for grid in grids], call.attrs.axis))
        return self._as(on_grid(replace(grids[0], data=joined)))

    def _mean(self, call: Any) -> Any | None:
        """Take the mean of the bytes, in float32, if what is outside of the image counts as 0 or not."""
        value = self._value(call.args[0])
        if value is None or value.grid is None:
            return None
        padded = is_call(call, "relax.nn.avg_pool2d") and any(int(width) for width in call.attrs.padding)
        if padded and value.grid.shifted_zero and call.attrs.count_include_pad:
            return None
        numbers = self._floats(value.grid.data)
        mean = self.emit(relax.Call(call.op, [numbers, *call.args[1:]], call.attrs, call.ty_args))
        scale = np.float32(value.grid.scale)
        offset = np.array(-value.grid.shifted_zero * value.grid.scale, "float32")
        return self._as(Value(((mean, np.array(scale)),), offset, value.reach))


def _rounded(value: Any, step: float, levels: Levels) -> Any:
    """Return `value` divided by `step` and rounded to `levels`."""
    zero = constant(np.array(levels.zero, "int32"))
    return relax.op.quantize(value, constant(np.array(step, "float32")), zero, axis=0, out_dtype=levels.dtype)


def _broadcast(value: np.ndarray) -> Any:
    return constant(np.asarray(value, "float32"))


lower_quantized = module_pass(_LowerQuantized)
