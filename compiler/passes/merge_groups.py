"""Groups of a convolution that are narrower than a vector become groups as wide as one.

Neighbouring groups share a vector of channels. As one group, with zeros where an output does not read an
input, they compute a few products with zero; as groups of their own they leave most lanes of a vector empty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relax

from compiler.ir.constants import array_of, constant
from compiler.ir.rewriter import Rewriter, is_call, module_pass


class _MergeGroups(Rewriter):
    name = "MergeGroups"
    lanes = 0

    def rewrite(self, expr: Any) -> Any:
        weight = array_of(expr.args[1]) if is_call(expr, "relax.nn.conv2d") else None
        if weight is None or expr.attrs.data_layout != "NCHW":
            return expr
        groups = int(expr.attrs.groups)
        together = _together(weight, groups, self.lanes)
        if together == 1:
            return expr
        return relax.op.nn.conv2d(
            expr.args[0],
            constant(merged(weight, groups, together)),
            strides=expr.attrs.strides,
            padding=expr.attrs.padding,
            dilation=expr.attrs.dilation,
            groups=groups // together,
            out_dtype=expr.attrs.out_dtype,
        )


def _together(weight: np.ndarray, groups: int, lanes: int) -> int:
    """Return how many groups fill a vector of outputs: the fewest, 1 if they do already or never do."""
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    if groups == 1 or (outputs == inputs == 1) or outputs % lanes == 0:
        return 1
    fitting = [m for m in range(2, lanes + 1) if groups % m == 0 and (m * outputs) % lanes == 0]
    return fitting[0] if fitting else 1


def merged(weight: np.ndarray, groups: int, together: int) -> np.ndarray:
    """Return grouped weights (O, I, KH, KW) for groups of `together` old ones, (O, together * I, KH, KW)."""
    outputs, inputs, *kernel = weight.shape
    own = weight.reshape(groups // together, together, outputs // groups, inputs, *kernel)
    wide = np.zeros((*own.shape[:3], together, inputs, *kernel), weight.dtype)
    for each in range(together):
        wide[:, each, :, each] = own[:, each]
    return wide.reshape(outputs, together * inputs, *kernel)


def merge_groups(lanes: int) -> Callable[[tvm.IRModule], tvm.IRModule]:
    """Return the pass for vectors of `lanes` values."""
    return module_pass(type("_MergeGroups", (_MergeGroups,), {"lanes": lanes}))
