"""A product and a sum of floats are rounded once: the same floats, and so the same bytes, on every CPU.

    a * b + c  ->  fma(a, b, c)

LLVM makes one instruction of these where it holds that to be faster, and elsewhere two with a rounding
between them (ARMv7's vectors, x86 without FMA). A byte of a quantized network may then differ, others after
it, and a board's outputs from those of the machine that checked them. So it is stated, in kernels that read
or give bytes. Where a CPU has no such instruction they compute in float64, which holds every product of two
float32 exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm_ffi
from tvm import tirx
from tvm.target import codegen

from compiler.build.statements import function_pass
from compiler.passes.kernels.narrow import BYTES
from compiler.target_isa import arch_of


@function_pass("FusedSums")
def fused_sums(function: Any) -> Any:
    """Return `function` with what is summed in float32 after a product of floats rounded once."""
    if not any(str(getattr(parameter.ty, "dtype", "")) in BYTES for parameter in function.params):
        return function
    once = _in_one_step if has_fma(function.attrs["target"]) else _in_float64

    def fused(total: Any) -> Any:
        if str(total.ty.dtype) != "float32":
            return total
        for product, other in ((total.a, total.b), (total.b, total.a)):
            if isinstance(product, tirx.Mul):
                return once(product.a, product.b, other)
        return total

    return function.with_body(tvm_ffi.structural_map(function.body, [(tirx.Add, fused)]))


def has_fma(target: Any) -> bool:
    """Tell whether the CPU of TVM's `target` has such an instruction; 64-bit ones but x86 all have."""
    feature = {"x86_64": "fma", "arm": "vfp4"}.get(arch_of(str(target.attrs["mtriple"])))
    return feature is None or bool(codegen.target_has_features(feature, target))


def _in_one_step(a: Any, b: Any, c: Any) -> Any:
    return tirx.call_llvm_pure_intrin("float32", "llvm.fma", a, b, c)


def _in_float64(a: Any, b: Any, c: Any) -> Any:
    a, b, c = map(_wide, (a, b, c))
    return (a * b + c).astype("float32")


def _wide(expr: Any) -> Any:
    """Return the float64 of a float32 expression; TVM keeps the digits of a constant that float32 has not."""
    if isinstance(expr, tirx.FloatImm):
        return tirx.const(float(np.float32(expr.value)), "float64")
    return expr.astype("float64")
