"""The least or greatest of two tensors, which TVM's ONNX importer spells as a reduction of both stacked.

    min(stack(broadcast_to(a), broadcast_to(b)), axis=0)  ->  minimum(a, b)

and the same for three and more. Stacked, they would be written to memory first.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

from tvm import relax

from compiler.ir.rewriter import Rewriter, is_call, module_pass

_PAIRWISE = {"relax.min": relax.op.minimum, "relax.max": relax.op.maximum}


class _Pairwise(Rewriter):
    name = "Pairwise"

    def rewrite(self, expr: Any) -> Any:
        if not is_call(expr, *_PAIRWISE) or expr.attrs.keepdims:
            return expr
        axes = [int(axis) for axis in expr.attrs.axis or ()]
        stacked = self.definition(expr.args[0])
        if axes != [0] or not is_call(stacked, "relax.stack") or int(stacked.attrs.axis):
            return expr
        fields = self.definition(stacked.args[0])
        if not isinstance(fields, relax.Tuple) or len(fields.fields) < 2:
            return expr
        combine = _PAIRWISE[expr.op.name]
        return reduce(lambda left, right: combine(self.emit(left), self.emit(right)), fields.fields)


pairwise = module_pass(_Pairwise)
