"""Quantized activations as signed or as unsigned bytes, whichever the target multiplies faster.

    dequantize(quantize(x, s, z, uint8), s, z)  <->  dequantize(quantize(x, s, z - 128, int8), s, z - 128)

Both stand for the same numbers. x86 multiplies unsigned activations by signed weights, Arm's dot product
takes two signed ones. The right operand of a product of two activations takes the place of weights: it
becomes signed. Bytes that something else reads, such as the caller, stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax

from compiler.ir.constants import array_of, constant
from compiler.ir.graph import Graph
from compiler.ir.rewriter import Rewriter, is_call, module_pass
from compiler.target import Target

_SHIFT = {"int8": -128, "uint8": 128}
"""What the zero point moves by when bytes of the other sign become these."""
_MOVES = ("relax.reshape", "relax.permute_dims", "relax.expand_dims", "relax.squeeze", "relax.flatten")
"""Operators between quantized values and a product of them."""


def wants_unsigned(target: Target) -> bool:
    """Tell whether the dot product of `target` is faster with unsigned activations than with signed ones."""
    return target.arch in ("x86_64", "x86") or "i8mm" in target.features


class _ByteSigns(Rewriter):
    name = "ByteSigns"
    wanted = "uint8"

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        self._graph = Graph(mod)
        return super().run(mod)

    def rewrite(self, expr: Any) -> Any:
        if is_call(expr, "relax.quantize") and self._moves(self.old_var):
            data, scale, zero = expr.args
            dtype = self._wanted(self.old_var)
            return relax.op.quantize(
                data, scale, self._moved(zero, dtype), axis=expr.attrs.axis, out_dtype=dtype
            )
        if is_call(expr, "relax.dequantize"):
            source = self._graph.operands(self.old_var)[0]
            if is_call(self._graph.definition(source), "relax.quantize") and self._moves(source):
                data, scale, zero = expr.args
                moved = self._moved(zero, self._wanted(source))
                return relax.op.dequantize(
                    data, scale, moved, axis=expr.attrs.axis, out_dtype=expr.attrs.out_dtype
                )
        return expr

    def _moves(self, var: Any) -> bool:
        """Tell whether the quantized `var` changes its sign: whether all readers only make floats of it."""
        call = self._graph.definition(var)
        if str(var.ty.dtype) not in _SHIFT or str(var.ty.dtype) == self._wanted(var):
            return False
        readers = self._graph.readers(var)
        known = array_of(call.args[2]) is not None and var not in self._graph.outputs
        return known and all(self._is_float(reader) for reader in readers)

    def _wanted(self, var: Any) -> str:
        """Return the dtype that the quantized `var` should have."""
        readers = self._graph.readers(var)
        weights = bool(readers) and all(self._is_float(each) and self._is_right(each) for each in readers)
        return "int8" if weights else self.wanted

    def _is_right(self, var: Any) -> bool:
        """Tell whether all that reads `var`, which may be moved before, is products with it on the right."""
        for reader in (readers := self._graph.readers(var)):
            call = self._graph.definition(reader)
            if is_call(call, *_MOVES) and self._is_right(reader):
                continue
            left, right = call.args if is_call(call, "relax.matmul") else (var, None)
            if left.same_as(var) or right is None:
                return False
        return bool(readers) and var not in self._graph.outputs

    def _is_float(self, var: Any) -> bool:
        call = self._graph.definition(var)
        return is_call(call, "relax.dequantize") and array_of(call.args[2]) is not None

    def _moved(self, zero: Any, dtype: str) -> Any:
        value = array_of(zero)
        assert value is not None, "only bytes with a constant zero point move"
        return constant(value.astype("int32") + _SHIFT[dtype])


def byte_signs(*, unsigned: bool) -> Callable[[tvm.IRModule], tvm.IRModule]:
    """Return the pass that makes activations unsigned or signed bytes."""
    wanted = "uint8" if unsigned else "int8"
    return module_pass(type("_ByteSigns", (_ByteSigns,), {"wanted": wanted}))
