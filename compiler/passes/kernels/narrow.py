"""Narrow numbers, bytes and 16-bit floats, of which dot products sum as many as fill 32 bits.

TVM makes every local buffer of bfloat16 one of float32 (`BF16ComputeLegalize`). Kernels that need it narrow
copy its bits, as uint16.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx

BYTES = ("uint8", "int8")

SHORT_FLOATS = ("bfloat16", "float16")


def parts_of(dtype: Any) -> int:
    """Return how many numbers of `dtype`, by its name, fill 32 bits: 4 bytes or 2 short floats."""
    return 4 if str(dtype) in BYTES else 2


def sum_dtype(dtype: Any) -> str:
    """Return the dtype in which products of numbers of `dtype` are summed."""
    return "int32" if str(dtype) in BYTES else "float32"


def are_narrow(data: str, weight: str) -> bool:
    """Tell whether numbers of dtype `data` times numbers of dtype `weight` have kernels."""
    return (data in BYTES and weight == "int8") or data == weight in SHORT_FLOATS


def _element(value: Any) -> Any:
    return value.asobject() if hasattr(value, "asobject") else value


def dtype_of(value: Any) -> str:
    """Return the dtype of an expression, or of an element of a tensor, by its name."""
    return str(value.ty.dtype) if hasattr(value, "ty") else str(value.dtype)


def bits_of(value: Any) -> Any:
    """Return `value` as what a local buffer can hold of it: of bfloat16 the bits."""
    return tirx.reinterpret("uint16", _element(value)) if dtype_of(value) == "bfloat16" else value


def widened(value: Any) -> Any:
    """Return a narrow number, or the bits of a bfloat16, as what products of it are summed in."""
    value = bits_of(value)
    if dtype_of(value) != "uint16":
        return value.astype(sum_dtype(dtype_of(value)))
    return tirx.reinterpret("float32", tirx.shift_left(value.astype("uint32"), tirx.const(16, "uint32")))
