"""Convolutions of signals become convolutions of images one row high, for which there are kernels.

nn.conv1d(x, w)  ->  squeeze(nn.conv2d(expand_dims(x, 2), expand_dims(w, 2)), 2)
"""

from __future__ import annotations

from typing import Any

from tvm import relax

from compiler.ir.constants import array_of, constant
from compiler.ir.rewriter import Rewriter, is_call, module_pass
from compiler.passes.coded_weights import coded_weights


class _LiftConv1d(Rewriter):
    name = "LiftConv1d"

    def rewrite(self, expr: Any) -> Any:
        if not is_call(expr, "relax.nn.conv1d"):
            return expr
        data, weight = expr.args
        attrs = expr.attrs
        known = array_of(weight) is not None or coded_weights(weight, self.definition) is not None
        if not known or (attrs.data_layout, attrs.kernel_layout) != ("NCW", "OIW"):
            return expr
        left, right = (int(width) for width in attrs.padding)
        image = relax.op.nn.conv2d(
            self.emit(relax.op.expand_dims(data, 2)),
            self._widened(weight),
            strides=[1, int(attrs.strides[0])],
            padding=[0, left, 0, right],
            dilation=[1, int(attrs.dilation[0])],
            groups=int(attrs.groups),
            out_dtype=attrs.out_dtype,
        )
        return relax.op.squeeze(self.emit(image), [2])

    def _widened(self, weight: Any) -> Any:
        """Return `weight` (O, I, W), a constant or coded, as (O, I, 1, W)."""
        value = array_of(weight)
        return self.emit(relax.op.expand_dims(weight, 2)) if value is None else constant(value[:, :, None])


lift_conv1d = module_pass(_LiftConv1d)
