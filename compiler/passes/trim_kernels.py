"""Rows and columns of a convolution's kernel that only ever meet padding are cut off.

A dilated convolution (rates 12, 24 and 36 in DeepLab, arXiv 1706.05587) over a small image reads mostly
zeros: of a 3 x 3 kernel at rate 24 over 14 x 14 pixels only the middle tap reads anything else, and a 1 x 1
convolution is left.
"""

from __future__ import annotations

from typing import Any

from tvm import relax

from compiler.ir.constants import array_of, constant
from compiler.ir.rewriter import Rewriter, is_call, module_pass, static_extents, static_shape


class _TrimKernels(Rewriter):
    name = "TrimKernels"

    def rewrite(self, expr: Any) -> Any:
        weight = array_of(expr.args[1]) if is_call(expr, "relax.nn.conv2d") else None
        if weight is None or expr.attrs.data_layout != "NCHW":
            return expr
        data, output, attrs = static_shape(expr.args[0]), static_extents(self.old_type), expr.attrs
        if data is None or output is None:
            return expr
        strides, dilation = ([int(n) for n in each] for each in (attrs.strides, attrs.dilation))
        padding = [int(n) for n in attrs.padding]
        cuts = [
            _cut(weight.shape[2 + i], data[2 + i], output[2 + i], padding[i], strides[i], dilation[i])
            for i in range(2)
        ]
        (top, bottom), (left, right) = cuts
        less = [top * dilation[0], left * dilation[1], bottom * dilation[0], right * dilation[1]]
        padding = [before - cut for before, cut in zip(padding, less, strict=True)]
        if not any(less) or min(padding) < 0:
            return expr
        rows, columns = weight.shape[2:]
        return relax.op.nn.conv2d(
            expr.args[0],
            constant(weight[:, :, top : rows - bottom, left : columns - right]),
            strides=strides,
            padding=padding,
            dilation=dilation,
            groups=int(attrs.groups),
            out_dtype=attrs.out_dtype,
        )


def _cut(kernel: int, size: int, outputs: int, before: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return how many taps at the start and at the end of one axis read nothing but padding."""
    last = (outputs - 1) * stride

    def reads(tap: int) -> bool:
        first = tap * dilation - before
        return any(0 <= first + position < size for position in range(0, last + 1, stride))

    alive = [tap for tap in range(kernel) if reads(tap)]
    return (alive[0], kernel - 1 - alive[-1]) if alive else (0, 0)


trim_kernels = module_pass(_TrimKernels)
