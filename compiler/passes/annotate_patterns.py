"""Kinds of kernels, by what may be fused with them: TVM finds them out, some of ours say it themselves.

TVM takes a kernel's own kind of 0, elementwise, for none: such kernels carry `ELEMENTWISE` instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax, tirx

from compiler.passes.kernels import ELEMENTWISE, INJECTIVE


def annotate_patterns(*, residuals: bool = True) -> Callable[[tvm.IRModule], tvm.IRModule]:
    """Return the pass after which kernels say of which kind they are.

    Without `residuals` an elementwise kernel of two activations begins a kernel of its own.
    """

    def annotate(mod: tvm.IRModule) -> tvm.IRModule:
        mod = relax.transform.AnnotateTIROpPattern()(mod)
        for variable, function in mod.functions_items():
            if function.attrs and ELEMENTWISE in function.attrs:
                mod.update_func(variable, function.with_attr("op_pattern", 0))
            elif not residuals and _is_residual(function):
                mod.update_func(variable, function.with_attr("op_pattern", INJECTIVE))
        return mod

    return annotate


def _is_residual(function: Any) -> bool:
    """Tell whether a kernel computes each element from those of two tensors of the same shape."""
    if not isinstance(function, tirx.PrimFunc) or int(function.attrs.get("op_pattern", 8)) > 1:
        return False
    shapes = [list(map(str, each.ty.shape)) for each in function.params if hasattr(each.ty, "shape")]
    return len(shapes) == 3 and shapes[0] == shapes[1] == shapes[2]
