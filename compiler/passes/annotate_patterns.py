"""Kinds of kernels, by what may be fused with them: TVM finds them out, some of ours say it themselves.

TVM takes a kernel's own kind of 0, elementwise, for none: such kernels carry `ELEMENTWISE` instead.
"""

from __future__ import annotations

import tvm
from tvm import relax

from compiler.passes.kernels import ELEMENTWISE


def annotate_patterns(mod: tvm.IRModule) -> tvm.IRModule:
    """Return `mod` whose kernels say of which kind they are."""
    mod = relax.transform.AnnotateTIROpPattern()(mod)
    for variable, function in mod.functions_items():
        if function.attrs and ELEMENTWISE in function.attrs:
            mod.update_func(variable, function.with_attr("op_pattern", 0))
    return mod
