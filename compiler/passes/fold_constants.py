"""Operators on constants are computed now.

Relax's own FoldConstant compiles a kernel for every operator that it folds, some 40 ms each, and models write
hundreds of them: transposed weights, tables of positions, masks of windows. Numpy computes the common ones
here, and FoldConstant the rest.

Weights that are dequantized stay so, for the integer layers; `fold_weights` folds those that no layer took.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relax

from compiler.ir.constants import array_of, constant, scalar_of
from compiler.ir.rewriter import Rewriter, is_call, module_pass, static_extents
from compiler.passes.keep_quantized import keep_quantized

_LARGEST = 1 << 28
"""Bytes above which a result is not made a constant: it would be larger than what it is made of."""

_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "relax.add": np.add,
    "relax.subtract": np.subtract,
    "relax.multiply": np.multiply,
    "relax.divide": np.divide,
    "relax.sqrt": np.sqrt,
    "relax.equal": np.equal,
    "relax.not_equal": np.not_equal,
    "relax.less": np.less,
    "relax.less_equal": np.less_equal,
    "relax.greater": np.greater,
    "relax.greater_equal": np.greater_equal,
    "relax.logical_not": np.logical_not,
    "relax.logical_and": np.logical_and,
    "relax.logical_or": np.logical_or,
    "relax.maximum": np.maximum,
    "relax.minimum": np.minimum,
    "relax.negative": np.negative,
    "relax.where": np.where,
}
"""Operators that numpy computes to the same bits."""


class _FoldConstants(Rewriter):
    name = "FoldConstants"

    def __init__(self) -> None:
        super().__init__()
        self._shaped: dict[str, Callable[[Any, np.ndarray], np.ndarray | None]] = {
            "relax.reshape": lambda call, x: x.reshape(self._extents()),
            "relax.expand_dims": lambda call, x: x.reshape(self._extents()),
            "relax.squeeze": lambda call, x: x.reshape(self._extents()),
            "relax.broadcast_to": lambda call, x: np.broadcast_to(x, self._extents()),
            "relax.full": lambda call, x: np.full(self._extents(), x),
            "relax.permute_dims": permuted,
            "relax.strided_slice": sliced,
            "relax.flip": lambda call, x: np.flip(x, int(call.attrs.axis)),
        }

    def rewrite(self, expr: Any) -> Any:
        extents = static_extents(self.old_type)
        if extents is None or not isinstance(expr, tvm.ir.Call):
            return expr
        if np.prod(extents, initial=1.0) * 8 > _LARGEST:
            return expr
        value = self._value(expr)
        if value is None or value.shape != extents:
            return expr
        return constant(value.astype(str(self.old_type.dtype), copy=False))

    def _extents(self) -> tuple[int, ...]:
        return static_extents(self.old_type) or ()

    def _value(self, call: Any) -> np.ndarray | None:
        """Return the value of `call` if its operands are constants and it is an operator known here."""
        if is_call(call, "relax.concat"):
            return self._concat(call)
        if is_call(call, "relax.quantize"):
            return _quantized(call)
        if is_call(call, "relax.dequantize") and str(call.args[0].ty.dtype) == "int32":
            return _dequantized(call)  # a bias, which no layer takes as integers
        operands = [array_of(operand) for operand in call.args if not _is_static(operand)]
        if any(operand is None for operand in operands) or not operands:
            return None
        arrays = [operand for operand in operands if operand is not None]
        if is_call(call, *_ELEMENTWISE):
            return np.asarray(_ELEMENTWISE[call.op.name](*arrays))
        if is_call(call, *self._shaped):
            return self._shaped[call.op.name](call, arrays[0])
        if is_call(call, "relax.astype"):
            return _cast(arrays[0], str(self.old_type.dtype))
        if is_call(call, "relax.take"):
            return _take(call, *arrays)
        if is_call(call, "relax.clip"):
            return _clip(call, arrays[0])
        return None

    def _concat(self, call: Any) -> np.ndarray | None:
        parts = self.definition(call.args[0])
        fields = [array_of(part) for part in parts.fields] if isinstance(parts, relax.Tuple) else [None]
        arrays = [field for field in fields if field is not None]
        if len(arrays) != len(fields) or call.attrs.axis is None:
            return None
        return np.concatenate(arrays, int(call.attrs.axis))


def _is_static(operand: Any) -> bool:
    """Tell whether `operand` is a shape, or a tuple of numbers, and no tensor."""
    return isinstance(operand, (relax.ShapeExpr, relax.Tuple)) or type(operand).__name__ == "PrimValue"


def permuted(call: Any, x: np.ndarray) -> np.ndarray:
    """Return what the `permute_dims` of `call` makes of `x`."""
    axes = call.attrs.axes
    return np.transpose(x, None if axes is None else [int(axis) for axis in axes])


def sliced(call: Any, x: np.ndarray) -> np.ndarray | None:
    """Return a slice with positive strides and bounds that are numbers; the bounds follow numpy's rules."""
    _, axes, begin, end, *rest = call.args
    strides = [_number(s) for s in rest[0].fields] if rest else [1] * len(axes.fields)
    bounds = [[_number(n) for n in each.fields] for each in (axes, begin, end)]
    if any(n is None for each in (*bounds, strides) for n in each) or min(strides, default=1) < 1:
        return None
    index = [slice(None)] * x.ndim
    for axis, first, last, step in zip(*bounds, strides, strict=True):
        index[axis] = slice(first, last, step)
    return x[tuple(index)]


def _number(expr: Any) -> Any:
    """Return the integer of a constant scalar expression, or None."""
    value = getattr(expr, "value", expr)
    value = getattr(value, "value", value)
    return int(value) if isinstance(value, (int, np.integer)) else None


def _cast(x: np.ndarray, dtype: str) -> np.ndarray | None:
    """Return `x` as `dtype`; None where C leaves open what a float becomes, or numpy has no such type."""
    if dtype not in ("bool", "int32", "int64", "float32", "float64"):
        return None
    if x.dtype.kind == "f" and np.dtype(dtype).kind in "iu" and not np.isfinite(x).all():
        return None
    return x.astype(dtype)


def _take(call: Any, x: np.ndarray, indices: np.ndarray) -> np.ndarray | None:
    axis = call.attrs.axis
    inside = indices.size and indices.min() >= 0 and indices.max() < x.shape[0 if axis is None else int(axis)]
    return None if axis is None or not inside else np.take(x, indices, int(axis))


def _clip(call: Any, x: np.ndarray) -> np.ndarray | None:
    low, high = (scalar_of(each) for each in call.args[1:])
    if low is None or high is None or x.dtype != np.float32:
        return None
    return np.asarray(np.clip(x, np.float32(low), np.float32(high)))


class _FoldWeights(_FoldConstants):
    name = "FoldWeights"

    def _value(self, call: Any) -> np.ndarray | None:
        return _dequantized(call) if is_call(call, "relax.dequantize") else super()._value(call)


def _dequantized(call: Any) -> np.ndarray | None:
    data, scale, zero = (array_of(operand) for operand in call.args)
    if data is None or scale is None or zero is None:
        return None
    shape = [1] * data.ndim
    if scale.size > 1:
        shape[int(call.attrs.axis)] = -1
    whole = data.astype("int32") - zero.astype("int32").reshape(shape if zero.size > 1 else ())
    return np.asarray(whole.astype("float32") * scale.reshape(shape if scale.size > 1 else ()))


def _quantized(call: Any) -> np.ndarray | None:
    """Return the bytes of a constant, rounded as `compiler.passes.kernels.quantize` does."""
    data, scale, zero = (array_of(operand) for operand in call.args)
    if data is None or scale is None or zero is None or data.dtype != np.float32:
        return None
    shape = [1] * data.ndim
    if max(scale.size, zero.size) > 1:
        shape[int(call.attrs.axis)] = -1
    inverse = np.float32(1) / scale.astype("float32").reshape(shape if scale.size > 1 else ())
    info = np.iinfo(str(call.attrs.out_dtype))
    shift = zero.astype("float64").reshape(shape if zero.size > 1 else ())
    whole = np.rint(data * inverse).astype("float64") + shift
    return np.asarray(np.clip(whole, info.min, info.max).astype(str(call.attrs.out_dtype)))


_by_numpy = module_pass(_FoldConstants)
_by_tvm = keep_quantized(relax.transform.FoldConstant())
fold_constants = tvm.transform.Sequential([_by_numpy, _by_tvm], name="FoldConstants")
fold_weights = module_pass(_FoldWeights)
