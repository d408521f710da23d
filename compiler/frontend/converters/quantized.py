"""Explicit quantization: ``quantized_decomposed`` calls become ``R.quantize`` and ``R.dequantize``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tvm import relax

from compiler.frontend.converters.registry import Call, converter, dtype_of, scalar, tvm_dtype
from compiler.support.errors import ModelError

R = relax.op


def _parameter(call: Call, value: Any, dtype: str) -> relax.Expr:
    """Give a scale or zero point as a constant where it is known, of rank zero or one."""
    if isinstance(value, relax.Expr):
        value = call.cast(value, dtype)
        return call.emit(R.reshape(value, [])) if value.ty.shape.values and _size(value) == 1 else value
    return scalar(value, dtype)


def _size(x: relax.Expr) -> int:
    return int(np.prod([int(d) for d in x.ty.shape.values], dtype="int64"))


def _zero_type(dtype: str) -> str:
    return "int8" if dtype in ("int8", "uint8") else "int32"


def _limits(dtype: torch.dtype) -> tuple[int, int]:
    info = torch.iinfo(dtype)
    return info.min, info.max


def _quantize(
    call: Call,
    x: relax.Expr,
    scale: relax.Expr,
    zero: relax.Expr,
    axis: int,
    low: int,
    high: int,
    dtype: torch.dtype,
) -> relax.Expr:
    name = tvm_dtype(dtype)
    result = call.emit(R.quantize(x, scale, zero, axis=axis, out_dtype=name))
    least, most = _limits(dtype)
    if low > least:
        result = call.emit(R.maximum(result, scalar(low, name)))
    return call.emit(R.minimum(result, scalar(high, name))) if high < most else result


def _check_type(dtype: torch.dtype) -> None:
    if dtype not in (torch.int8, torch.uint8):
        raise ModelError(
            f"expected int8 or uint8 quantization, got {dtype}; choose one of those in the quantizer"
        )


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
    zero = _parameter(call, zero_point, tvm_dtype(dtype))
    return _quantize(call, input, _parameter(call, scale, "float32"), zero, -1, quant_min, quant_max, dtype)


@converter("dequantize_per_tensor.default", "dequantize_per_tensor.tensor")
def _dequantize_tensor(call: Call, input: relax.Expr, scale: Any, zero_point: Any) -> relax.Expr:
    zero = _parameter(call, zero_point, _dequantize_zero(input))
    return call.emit(R.dequantize(input, _parameter(call, scale, "float32"), zero, out_dtype=call.dtype))


def _dequantize_zero(x: relax.Expr) -> str:
    return dtype_of(x) if dtype_of(x) in ("int8", "uint8") else "int32"


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
    zeros = call.cast(zero_points, tvm_dtype(dtype))
    return _quantize(call, input, call.cast(scales, "float32"), zeros, axis, quant_min, quant_max, dtype)


@converter("dequantize_per_channel.default")
def _dequantize_channel(
    call: Call, input: relax.Expr, scales: relax.Expr, zero_points: relax.Expr | None, axis: int
) -> relax.Expr:
    kind = _dequantize_zero(input)
    scales = call.cast(scales, "float32")
    zeros = (
        call.cast(zero_points, kind) if zero_points is not None else call.emit(R.zeros(scales.ty.shape, kind))
    )
    return call.emit(R.dequantize(input, scales, zeros, axis=axis, out_dtype=call.dtype))
