"""Convolutions of signals become convolutions of images one row high, for which there are kernels.

nn.conv1d(x, w)  ->  squeeze(nn.conv2d(expand_dims(x, 2), expand_dims(w, 2)), 2)
"""

from __future__ import annotations

from typing import Any

from tvm import relax

from compiler.ir.constants import array_of, constant
from compiler.ir.rewriter import Rewriter, is_call, module_pass


class _LiftConv1d(Rewriter):
    name = "LiftConv1d"

    def rewrite(self, expr: Any) -> Any:
        if not is_call(expr, "relax.nn.conv1d"):
            return expr
        data, weight = expr.args[0], array_of(expr.args[1])
        attrs = expr.attrs
        if weight is None or (attrs.data_layout, attrs.kernel_layout) != ("NCW", "OIW"):
            return expr
        left, right = (int(width) for width in attrs.padding)
        image = relax.op.nn.conv2d(
            self.emit(relax.op.expand_dims(data, 2)),
            constant(weight[:, :, None]),
            strides=[1, int(attrs.strides[0])],
            padding=[0, left, 0, right],
            dilation=[1, int(attrs.dilation[0])],
            groups=int(attrs.groups),
            out_dtype=attrs.out_dtype,
        )
        return relax.op.squeeze(self.emit(image), [2])


lift_conv1d = module_pass(_LiftConv1d)
