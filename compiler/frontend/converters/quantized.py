"""Explicit quantization: ``quantized_decomposed`` calls become ``R.quantize`` and ``R.dequantize``.

    scales known       quantize(clip(x), s, z)            the clip only where levels are fewer than the type's
    computed           reshape(quantize(reshape(x, (rows, k)), s, z, axis=0), shape)

Computed scales and zero points are vectors: of one element, or of one a row of the last axis (a token).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tvm import relax

from compiler.frontend.converters.elementwise import round_half_even
from compiler.frontend.converters.registry import Call, array, converter, dtype_of, scalar, tvm_dtype
from compiler.ir.constants import array_of
from compiler.ir.rewriter import is_call
from compiler.support.errors import ModelError

R = relax.op

_BYTES = (torch.int8, torch.uint8)


def _parameter(call: Call, value: Any, dtype: str) -> relax.Expr:
    """Give a scale or zero point: a constant where it is known, else a vector."""
    if not isinstance(value, relax.Expr):
        return scalar(value, dtype)
    known = array_of(value)
    if known is not None:
        return array(known.reshape(-1 if known.size > 1 else ()), dtype)
    source = _definition(call, value)
    if is_call(source, "relax.astype") and dtype_of(source.args[0]) == dtype:
        value = source.args[0]  # cast only for the type that PyTorch gives it
    # One vector for all that read it: so it can be seen that they round alike.
    made = call.importer.__dict__.setdefault("_vectors", {})
    if (value, dtype) not in made:
        made[value, dtype] = call.emit(R.reshape(call.cast(value, dtype), [-1]))
    return made[value, dtype]


def _definition(call: Call, value: relax.Expr) -> Any:
    return call.importer.block_builder.lookup_binding(value) if isinstance(value, relax.Var) else value


def _is_known(*parameters: relax.Expr) -> bool:
    return all(array_of(each) is not None for each in parameters)


def _limits(dtype: torch.dtype) -> tuple[int, int]:
    info = torch.iinfo(dtype)
    return info.min, info.max


def _check_type(dtype: torch.dtype) -> None:
    if dtype not in _BYTES:
        raise ModelError(
            f"expected int8 or uint8 quantization, got {dtype}; choose one of those in the quantizer"
        )


# Known scales


def _quantize(
    call: Call, x: relax.Expr, scale: relax.Expr, zero: relax.Expr, axis: int, levels: tuple[int, int],
    dtype: torch.dtype,
) -> relax.Expr:  # fmt: skip
    """Quantize to `levels`, which may be fewer than the type's: then what is rounded is clipped before."""
    known = _is_known(scale, zero)
    if known and levels != _limits(dtype):
        x = _clipped(call, x, scale, zero, axis, *levels)
    codes = call.emit(R.quantize(x, scale, zero, axis=axis, out_dtype=tvm_dtype(dtype)))
    return codes if known else _within(call, codes, levels, dtype)


def _within(call: Call, codes: relax.Expr, levels: tuple[int, int], dtype: torch.dtype) -> relax.Expr:
    name, (least, most) = tvm_dtype(dtype), _limits(dtype)
    if levels[0] > least:
        codes = call.emit(R.maximum(codes, scalar(levels[0], name)))
    return call.emit(R.minimum(codes, scalar(levels[1], name))) if levels[1] < most else codes


def _clipped(
    call: Call, x: relax.Expr, scale: relax.Expr, zero: relax.Expr, axis: int, low: int, high: int
) -> relax.Expr:
    """Clip to what `low` and `high` stand for: as rounding is monotonic, the same as clipping levels."""
    step, shift = array_of(scale), array_of(zero)
    assert step is not None
    assert shift is not None
    least, most = ((level - shift.astype("float64")) * step.astype("float64") for level in (low, high))
    if least.size == 1:
        return call.emit(R.clip(x, float(least.reshape(())), float(most.reshape(()))))
    shape = [-1 if dim == axis % x.ty.ndim else 1 for dim in range(x.ty.ndim)]
    x = call.emit(R.maximum(x, array(least.reshape(shape), "float32")))
    return call.emit(R.minimum(x, array(most.reshape(shape), "float32")))


# Computed scales


def _rows(call: Call, x: relax.Expr, scale: relax.Expr) -> relax.Expr:
    """Return `x` with one row for each scale."""
    shape = x.ty.shape
    if scale.ty.shape is not None and list(scale.ty.shape) == [1]:
        return call.emit(R.reshape(x, (1, -1)))
    return call.emit(R.reshape(x, (-1, shape[len(shape) - 1])))


def _quantize_rows(
    call: Call, x: relax.Expr, scale: relax.Expr, zero: relax.Expr, levels: tuple[int, int],
    dtype: torch.dtype,
) -> relax.Expr:  # fmt: skip
    rows, (least, most) = _rows(call, x, scale), _limits(dtype)
    if levels[0] > least:
        rows = call.emit(R.maximum(rows, _bound(call, scale, zero, levels[0])))
    if levels[1] < most:
        rows = call.emit(R.minimum(rows, _bound(call, scale, zero, levels[1])))
    codes = call.emit(R.quantize(rows, scale, zero, axis=0, out_dtype=tvm_dtype(dtype)))
    return call.emit(R.reshape(codes, x.ty.shape))


def _bound(call: Call, scale: relax.Expr, zero: relax.Expr, level: int) -> relax.Expr:
    """Return what `level` stands for in each row, as a column."""
    steps = call.emit(R.subtract(scalar(level, "float32"), call.cast(zero, "float32")))
    return call.emit(R.reshape(call.emit(R.multiply(steps, scale)), (-1, 1)))


def _dequantize_rows(
    call: Call, codes: relax.Expr, scale: relax.Expr, zero: relax.Expr, dtype: str
) -> relax.Expr:
    shape, made = codes.ty.shape, _definition(call, codes)
    apart = is_call(made, "relax.reshape") and is_call(_definition(call, made.args[0]), "relax.quantize")
    rows = made.args[0] if apart else _rows(call, codes, scale)
    return call.emit(R.reshape(call.emit(R.dequantize(rows, scale, zero, axis=0, out_dtype=dtype)), shape))


# Operators


@converter("quantize_per_tensor.default", "quantize_per_tensor.tensor")
def _quantize_tensor(
    call: Call,
    input: relax.Expr,
    scale: Any,
    zero_point: Any,
    quant_min: int,
    quant_max: int,
    dtype: torch.dtype,
) -> relax.Expr:
    _check_type(dtype)
    step, zero = _parameter(call, scale, "float32"), _parameter(call, zero_point, "int32")
    if _is_known(step, zero):
        return _quantize(call, input, step, zero, 0, (quant_min, quant_max), dtype)
    return _quantize_rows(call, input, step, zero, (quant_min, quant_max), dtype)


@converter("dequantize_per_tensor.default", "dequantize_per_tensor.tensor")
def _dequantize_tensor(call: Call, input: relax.Expr, scale: Any, zero_point: Any) -> relax.Expr:
    step, zero = _parameter(call, scale, "float32"), _parameter(call, zero_point, "int32")
    if _is_known(step, zero):
        return call.emit(R.dequantize(input, step, zero, axis=0, out_dtype=call.dtype))
    return _dequantize_rows(call, input, step, zero, call.dtype)


@converter("quantize_per_channel.default")
def _quantize_channel(
    call: Call,
    input: relax.Expr,
    scales: relax.Expr,
    zero_points: relax.Expr,
    axis: int,
    quant_min: int,
    quant_max: int,
    dtype: torch.dtype,
) -> relax.Expr:
    _check_type(dtype)
    steps, zeros = _parameter(call, scales, "float32"), _parameter(call, zero_points, "int32")
    return _quantize(call, input, steps, zeros, axis, (quant_min, quant_max), dtype)


@converter("dequantize_per_channel.default")
def _dequantize_channel(
    call: Call, input: relax.Expr, scales: relax.Expr, zero_points: relax.Expr | None, axis: int
) -> relax.Expr:
    steps = _parameter(call, scales, "float32")
    if zero_points is None:
        zeros = array(np.zeros([int(extent) for extent in steps.ty.shape], "int32"))
    else:
        zeros = _parameter(call, zero_points, "int32")
    return call.emit(R.dequantize(input, steps, zeros, axis=axis, out_dtype=call.dtype))


@converter("quantize_per_token.default")
def _quantize_token(
    call: Call,
    input: relax.Expr,
    scales: relax.Expr,
    zero_points: relax.Expr,
    quant_min: int,
    quant_max: int,
    dtype: torch.dtype,
) -> relax.Expr:
    _check_type(dtype)
    step, zero = _parameter(call, scales, "float32"), _parameter(call, zero_points, "int32")
    return _quantize_rows(call, input, step, zero, (quant_min, quant_max), dtype)


@converter("dequantize_per_token.default")
def _dequantize_token(
    call: Call, input: relax.Expr, scales: relax.Expr, zero_points: relax.Expr
) -> relax.Expr:
    step, zero = _parameter(call, scales, "float32"), _parameter(call, zero_points, "int32")
    return _dequantize_rows(call, input, step, zero, call.dtype)


# Scales from the values at hand


@converter("choose_qparams.tensor")
def _choose(call: Call, input: relax.Expr, quant_min: int, quant_max: int, eps: float) -> list[relax.Expr]:
    low, high = _range(call, input)
    spread = call.emit(R.subtract(high, low))
    step = _at_least(call, call.emit(R.divide(spread, scalar(float(quant_max - quant_min), "float32"))), eps)
    from_zero = round_half_even(call, call.emit(R.divide(low, step)))
    zero = call.emit(R.subtract(scalar(quant_min, "int32"), call.cast(from_zero, "int32")))
    zero = call.emit(R.maximum(zero, scalar(quant_min, "int32")))
    zero = call.emit(R.minimum(zero, scalar(quant_max, "int32")))
    return [call.cast(step, "float64"), call.cast(zero, "int64")]


@converter("choose_qparams_symmetric.tensor")
def _choose_symmetric(
    call: Call, input: relax.Expr, quant_min: int, quant_max: int, eps: float, dtype: torch.dtype
) -> list[relax.Expr]:
    low, high = _range(call, input)
    largest = call.emit(R.maximum(call.emit(R.negative(low)), high))
    step = call.emit(R.divide(largest, scalar(float(quant_max - quant_min) / 2, "float32")))
    zero = array(np.array([128 if dtype == torch.uint8 else 0], "int64"))
    return [call.cast(_at_least(call, step, eps), "float64"), zero]


def _range(call: Call, x: relax.Expr) -> tuple[relax.Expr, relax.Expr]:
    """Return the least and the greatest of the elements of `x` and zero, as vectors of one."""
    flat, nothing = call.emit(R.reshape(x, (1, -1))), scalar(0, "float32")
    low = call.emit(R.minimum(call.emit(R.min(flat, axis=1)), nothing))
    return low, call.emit(R.maximum(call.emit(R.max(flat, axis=1)), nothing))


def _at_least(call: Call, step: relax.Expr, eps: float) -> relax.Expr:
    return call.emit(R.maximum(step, scalar(eps, "float32")))


@converter("choose_qparams_per_token.default")
def _choose_token(call: Call, input: relax.Expr) -> list[relax.Expr]:
    largest = call.emit(R.max(call.emit(R.abs(input)), axis=-1, keepdims=True))
    step = call.emit(R.divide(_at_least(call, largest, 1e-5), scalar(127, "float32")))
    return [call.cast(step, "float64"), call.emit(R.zeros(step.ty.shape, "int64"))]


# Fake quantization: both at once


@converter("fake_quantize_per_tensor_affine_cachemask.default")
def _fake_quantize(
    call: Call, self: relax.Expr, scale: float, zero_point: int, quant_min: int, quant_max: int
) -> list[relax.Expr]:
    return _faked(call, self, scale, zero_point, None, (quant_min, quant_max))


@converter("fake_quantize_per_channel_affine_cachemask.default")
def _fake_quantize_channel(
    call: Call,
    self: relax.Expr,
    scale: relax.Expr,
    zero_point: relax.Expr,
    axis: int,
    quant_min: int,
    quant_max: int,
) -> list[relax.Expr]:
    return _faked(call, self, scale, zero_point, axis, (quant_min, quant_max))


@converter("_fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default")
def _fake_quantize_if_enabled(
    call: Call,
    self: relax.Expr,
    scale: relax.Expr,
    zero_point: relax.Expr,
    fake_quant_enabled: relax.Expr,
    quant_min: int,
    quant_max: int,
) -> list[relax.Expr]:
    switch = _definition(call, fake_quant_enabled)
    enabled = array_of(switch.args[1] if is_call(switch, "relax.full") else switch)
    if enabled is not None and not enabled.any():
        return [self, _inside(call)]
    result, inside = _faked(call, self, scale, zero_point, None, (quant_min, quant_max))
    if enabled is not None:
        return [result, inside]
    chosen = call.emit(R.greater(fake_quant_enabled, scalar(0, dtype_of(fake_quant_enabled))))
    return [call.emit(R.where(chosen, result, self)), inside]


def _faked(
    call: Call, x: relax.Expr, scale: Any, zero_point: Any, axis: int | None, levels: tuple[int, int]
) -> list[relax.Expr]:
    """Quantize and dequantize, by channels along `axis` if there is one; more levels than bytes in float."""
    step, zero = _parameter(call, scale, "float32"), _parameter(call, zero_point, "int32")
    dtype = next((kind for kind in _BYTES if _holds(kind, levels)), None)
    if dtype is None:
        return [_rounded(call, x, step, zero, axis or 0, levels), _inside(call)]
    if axis is not None or _is_known(step, zero):
        codes = _quantize(call, x, step, zero, axis or 0, levels, dtype)
        result = call.emit(R.dequantize(codes, step, zero, axis=axis or 0, out_dtype=call.dtype))
    else:
        codes = _quantize_rows(call, x, step, zero, levels, dtype)
        result = _dequantize_rows(call, codes, step, zero, call.dtype)
    return [result, _inside(call)]


def _holds(dtype: torch.dtype, levels: tuple[int, int]) -> bool:
    least, most = _limits(dtype)
    return least <= levels[0] and levels[1] <= most


def _rounded(
    call: Call, x: relax.Expr, step: relax.Expr, zero: relax.Expr, axis: int, levels: tuple[int, int]
) -> relax.Expr:
    if int(np.prod([int(extent) for extent in step.ty.shape], initial=1)) > 1:
        shape = [-1 if dim == axis % x.ty.ndim else 1 for dim in range(x.ty.ndim)]
        step, zero = call.emit(R.reshape(step, shape)), call.emit(R.reshape(zero, shape))
    shift = call.cast(zero, "float32")
    scaled = call.emit(R.multiply(x, call.emit(R.divide(scalar(1, "float32"), step))))
    level = call.emit(R.add(round_half_even(call, scaled), shift))
    level = call.emit(R.clip(level, float(levels[0]), float(levels[1])))
    return call.emit(R.multiply(call.emit(R.subtract(level, shift)), step))


def _inside(call: Call) -> relax.Expr:
    """Stand for the mask of what was not clipped, which only a gradient reads."""
    return call.emit(R.full(call.shape, scalar(True, "bool"), "bool"))
