"""Layers whose operands were rounded to 16-bit floats multiply these.

    conv2d(astype(x, float32), w)  ->  conv2d(x, astype(w, bfloat16)), summed in float32        x is bfloat16

where `w` is a constant that rounding to the type of `x` does not change. Sums, biases and activations are
float32, in registers; between layers values lie in memory as 16-bit floats (Kalamkar et al., "A Study of
BFLOAT16 for Deep Learning Training", 2019). Operators that only move values move the short ones.

That is for a CPU with dot products of the type. Any other would widen both operands again for each product:

    conv2d(astype(x, float32), w)  ->  conv2d(astype(x, float32), codes of w)                   x is float16

Its layers multiply float32, as those of a model in float do. Values are rounded in registers, where they are
computed, and lie in memory as float32; weights lie there as 16-bit floats and are widened in registers, or
once for many rows (`compiler.passes.lower_weight_only`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relax

from compiler.ir.constants import array_of, constant
from compiler.ir.rewriter import Rewriter, is_call, module_pass
from compiler.passes.coded_weights import CodedWeights, hidden
from compiler.passes.kernels.narrow import SHORT_FLOATS
from compiler.support.dtypes import numpy_dtype
from compiler.target import Target

_CONVOLUTIONS = ("relax.nn.conv1d", "relax.nn.conv2d")
_MOVES = (
    "relax.reshape", "relax.permute_dims", "relax.strided_slice", "relax.expand_dims", "relax.squeeze",
    "relax.flatten",
)  # fmt: skip


class _LowerShortFloats(Rewriter):
    name = "LowerShortFloats"
    multiplied: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self._short: dict[Any, Any] = {}

    def rewrite(self, expr: Any) -> Any:
        if is_call(expr, "relax.astype"):
            return self._cast(expr)
        if is_call(expr, *_CONVOLUTIONS, "relax.matmul"):
            product = self._product(expr)
            return self._with_short_weights(expr) if product is None else product
        if is_call(expr, *_MOVES) and expr.args[0] in self._short:
            short = self._short[expr.args[0]]
            moved = self.emit(relax.Call(expr.op, [short, *expr.args[1:]], expr.attrs, expr.ty_args))
            return self._wide(moved)
        if is_call(expr, "relax.concat") and (joined := self._concat(expr)) is not None:
            return joined
        if is_call(expr, "relax.nn.max_pool2d") and expr.args[0] in self._short:
            dtype = str(self._short[expr.args[0]].ty.dtype)
            pooled = self.emit(self._with_own_floats(expr))
            return self._wide(self.emit(relax.op.astype(pooled, dtype)))  # one of what it was chosen from
        return self._with_own_floats(expr)

    def _cast(self, call: Any) -> Any:
        source, dtype = call.args[0], str(call.attrs.dtype)
        if dtype == "float32" and str(source.ty.dtype) in self.multiplied:
            return self._wide(source)
        short = self._short.get(source)
        return short if short is not None and str(short.ty.dtype) == dtype else call

    def _wide(self, short: Any) -> Any:
        """Bind the float32 form of `short`, and remember what it is of."""
        var = self.emit(relax.op.astype(short, "float32"))
        self._short[var] = short
        return var

    def _concat(self, call: Any) -> Any | None:
        parts = self.definition(call.args[0])
        if not isinstance(parts, relax.Tuple) or any(part not in self._short for part in parts.fields):
            return None
        shorts = [self._short[part] for part in parts.fields]
        if len({str(short.ty.dtype) for short in shorts}) != 1:
            return None
        return self._wide(self.emit(relax.op.concat(shorts, call.attrs.axis)))

    def _product(self, call: Any) -> Any | None:
        data, weight = self._short.get(call.args[0]), array_of(call.args[1])
        if data is None or weight is None or weight.dtype != np.float32:
            return None
        short = _exactly(weight, str(data.ty.dtype))
        if short is None:
            return None
        narrow = constant(short)
        if is_call(call, "relax.matmul"):
            return relax.op.matmul(data, narrow, out_dtype="float32") if weight.ndim == 2 else None
        attrs = call.attrs
        make = getattr(relax.op.nn, call.op.name.removeprefix("relax.nn."))
        return make(
            data, narrow, strides=attrs.strides, padding=attrs.padding, dilation=attrs.dilation,
            groups=int(attrs.groups), out_dtype="float32",
        )  # fmt: skip

    def _with_short_weights(self, call: Any) -> Any:
        """Return a product of float32, its weights kept as the short floats that its data was rounded to."""
        data, weight = call.args[0], array_of(call.args[1])
        dtype = self._rounded_to(data)
        if dtype is None or weight is None or weight.dtype != np.float32:
            return self._with_own_floats(call)
        is_matmul = is_call(call, "relax.matmul")
        known = weight.ndim == 2 <= data.ty.ndim if is_matmul else int(call.attrs.groups) == 1
        short = _exactly(weight, dtype) if known else None
        if short is None:
            return call
        kept = hidden(CodedWeights(short, np.ones((1,) * weight.ndim, np.float32)), call.args[1].ty)
        return relax.Call(call.op, [data, self.emit(kept)], call.attrs, call.ty_args)

    def _rounded_to(self, data: Any) -> str | None:
        """Return the short type that all values of `data`, float32, were rounded to, or None."""
        call = self.definition(data)
        if is_call(call, "relax.astype"):
            dtype = str(call.args[0].ty.dtype)
            return dtype if dtype in SHORT_FLOATS and dtype not in self.multiplied else None
        if is_call(call, *_MOVES, "relax.nn.max_pool2d"):
            return self._rounded_to(call.args[0])
        if is_call(call, "relax.concat"):
            parts = self.definition(call.args[0])
            fields = parts.fields if isinstance(parts, relax.Tuple) else ()
            found = {self._rounded_to(part) for part in fields}
            return found.pop() if len(found) == 1 else None
        return None

    def _with_own_floats(self, expr: Any) -> Any:
        """Return `expr` with float32 forms of short values made for it alone: in one kernel with it, none is
        written to memory.
        """
        if not isinstance(expr, tvm.ir.Call):
            return expr
        arguments = [
            self._wide(self._short[a]) if a in self._short and self.uses(a) > 1 else a for a in expr.args
        ]
        return relax.Call(expr.op, arguments, expr.attrs, expr.ty_args)


def _exactly(weight: np.ndarray, dtype: str) -> np.ndarray | None:
    """Return `weight` in the type `dtype`, or None if it holds other numbers."""
    with np.errstate(over="ignore"):
        short: np.ndarray = weight.astype(numpy_dtype(dtype))
    return short if np.array_equal(short.astype(np.float32), weight) else None


def with_dot_products(target: Target) -> tuple[str, ...]:
    """Return the short floats of which `target` has dot products, `compiler.schedule.dot_product`'s."""
    lanes, features = target.lanes("float32"), target.features
    x86 = target.arch == "x86_64" and lanes == 16 and "avx512bf16" in features
    arm = target.arch == "aarch64" and lanes == 4 and "bf16" in features
    return ("bfloat16",) if x86 or arm else ()


def lower_short_floats(multiplied: tuple[str, ...]) -> Callable[[tvm.IRModule], tvm.IRModule]:
    """Return the pass for a CPU that has dot products of the types `multiplied`."""
    return module_pass(type("_LowerShortFloats", (_LowerShortFloats,), {"multiplied": multiplied}))
