"""Quantizing and dequantizing as tensor expressions that become few vector instructions.

    quantize:    clip(round_half_to_even(x / s) + z)        dequantize:  s * (q - z)

(B. Jacob and others, arXiv 1712.05877, equation 1.) TVM's own divide, round half away from zero, and are left
in scalars by the vectorizer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relax, te, tirx

from compiler.ir.constants import number_of

_FAR = float(1 << 20)
"""Further from zero than any byte, and nearer than what int32 cannot hold."""

_Legalize = Callable[[relax.BlockBuilder, Any], Any]


def legalizations(*, cpu: bool) -> dict[str, _Legalize]:
    """Return what `relax.transform.LegalizeOps` takes for both operators; `cpu` allows LLVM's intrinsics."""
    rounded = rounding(cpu=cpu)
    return {
        "relax.quantize": lambda builder, call: _legalize(builder, call, _quantized(call, rounded)),
        "relax.dequantize": lambda builder, call: _legalize(builder, call, _dequantized(call)),
    }


def rounding(*, cpu: bool) -> Callable[[Any], Any]:
    """Return what rounds a float32 expression half to even, to int32; `cpu` allows LLVM's intrinsics."""
    return _rounded_by_llvm if cpu else _rounded


def _legalize(builder: relax.BlockBuilder, call: Any, compute: Callable[..., Any]) -> Any:
    name = call.op.name.removeprefix("relax.")
    scalars = [number_of(argument) for argument in call.args[1:]]
    tensors = [a for a, number in zip(call.args[1:], scalars, strict=True) if number is None]
    return builder.call_te(
        lambda x, *rest: compute(x, *_fill(scalars, rest)), call.args[0], *tensors, primfunc_name_hint=name
    )


def _fill(scalars: list[Any], tensors: tuple[Any, ...]) -> list[Any]:
    rest = iter(tensors)
    return [next(rest) if number is None else number for number in scalars]


def _at(parameter: Any, index: tuple[Any, ...], axis: int) -> Any:
    """Return a scale or a zero point at `index`: one number, or one for each position along `axis`."""
    if isinstance(parameter, (int, float)):
        return parameter
    return parameter[()] if len(parameter.shape) == 0 else parameter[index[axis]]


def _quantized(call: Any, rounded: Callable[[Any], Any]) -> Callable[..., Any]:
    dtype, axis = str(call.attrs.out_dtype), int(call.attrs.axis)

    def compute(x: Any, scale: Any, zero: Any) -> Any:
        def value(*index: Any) -> Any:
            step, shift = _at(scale, index, axis), _at(zero, index, axis)
            given = x[index].astype("float32")
            if not isinstance(step, float):
                given = given * (tirx.const(1, "float32") / step.astype("float32"))
            elif step != 1:
                # The reciprocal in float32, as PyTorch's quantize_per_tensor takes it.
                given = given * tirx.const(float(np.float32(1) / np.float32(step)), "float32")
            if step != 1:
                # Larger ones have no integer. A step of 1 is our own lowering's, which knows its bounds.
                given = within_integers(given)
            # Rounded before the zero point is added: ties would go the other way for odd ones.
            whole = rounded(given)
            whole = whole + (shift if isinstance(shift, int) else shift.astype("int32"))
            return saturated(whole, dtype)

        return te.compute(x.shape, value, name="quantize")

    return compute


def within_integers(value: Any) -> Any:
    """Return a float32 expression, cut to what int32 can hold and no byte is."""
    return tirx.max(tirx.min(value, tirx.const(_FAR, "float32")), tirx.const(-_FAR, "float32"))


def saturated(whole: Any, dtype: str) -> Any:
    """Return an int32 expression as a byte of `dtype`, the nearest where it is none."""
    info = np.iinfo(dtype)
    most, least = tirx.const(int(info.max), "int32"), tirx.const(int(info.min), "int32")
    return tirx.min(tirx.max(whole, least), most).astype(dtype)


def _rounded_by_llvm(x: Any) -> Any:
    """Return `x` rounded half to even, int32; a call of LLVM's stays one vector, one of TVM's does not."""
    if str(tvm.target.Target.current().attrs.get("mtriple", "")).startswith("x86"):
        return tirx.call_llvm_pure_intrin("int32", "llvm.lrint", x)  # one instruction
    return tirx.call_llvm_pure_intrin("float32", "llvm.nearbyint", x).astype("int32")


def _rounded(x: Any) -> Any:
    return tirx.nearbyint(x).astype("int32")


def _dequantized(call: Any) -> Callable[..., Any]:
    dtype, axis = str(call.attrs.out_dtype), int(call.attrs.axis)

    def compute(x: Any, scale: Any, zero: Any) -> Any:
        def value(*index: Any) -> Any:
            step, shift = _at(scale, index, axis), _at(zero, index, axis)
            moved = x[index].astype("int32")
            moved = moved - (shift if isinstance(shift, int) else shift.astype("int32"))
            factor = tirx.const(step, "float32") if isinstance(step, float) else step.astype("float32")
            return (moved.astype("float32") * factor).astype(dtype)

        return te.compute(x.shape, value, name="dequantize")

    return compute
