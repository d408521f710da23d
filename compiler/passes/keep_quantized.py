"""Quantized weights stay quantized while the operators on all other constants are folded.

    dequantize(weight, scale, zero)  ->  call_pure_packed("kiln.dequantize", ...)  ->  what it was

An integer layer needs the bytes. What no integer layer takes is folded after `lower_quantized`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax

from compiler.ir.constants import array_of
from compiler.ir.rewriter import Rewriter, is_call, module_pass

_HIDDEN = "kiln.dequantize"


class _Hide(Rewriter):
    name = "HideQuantized"

    def rewrite(self, expr: Any) -> Any:
        if not is_call(expr, "relax.dequantize") or any(array_of(each) is None for each in expr.args):
            return expr
        axis = relax.const(int(expr.attrs.axis), "int32")
        return relax.op.call_pure_packed(_HIDDEN, *expr.args, axis, ty_args=self.old_type)


class _Reveal(Rewriter):
    name = "RevealQuantized"

    def rewrite(self, expr: Any) -> Any:
        if not is_call(expr, "relax.call_pure_packed") or str(expr.args[0].global_symbol) != _HIDDEN:
            return expr
        _, *operands, axis = expr.args
        dtype = str(self.old_type.dtype)
        return relax.op.dequantize(*operands, axis=int(axis.value.numpy()), out_dtype=dtype)


_hide, _reveal = module_pass(_Hide), module_pass(_Reveal)


def keep_quantized(step: Callable[[tvm.IRModule], tvm.IRModule]) -> Any:
    """Return the pass `step` such that it sees no quantized weights."""
    return tvm.transform.Sequential([_hide, step, _reveal], name="KeepQuantized")
