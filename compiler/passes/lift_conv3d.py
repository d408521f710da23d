"""Convolutions of volumes become convolutions of images, for which there are kernels.

The frames that a kernel of KD frames reads become channels of one image, frames of the output a batch:

    nn.conv3d(x, w)  ->  for each frame of the output: nn.conv2d(concat of its KD input frames, w')

with w' (O, KD * I, KH, KW). Frames are copied up to KD times; each is then multiplied O * KH * KW times.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from compiler.ir.constants import array_of, constant
from compiler.ir.rewriter import Rewriter, is_call, module_pass, static_extents, static_shape


class _LiftConv3d(Rewriter):
    name = "LiftConv3d"

    def rewrite(self, expr: Any) -> Any:
        if not is_call(expr, "relax.nn.conv3d"):
            return expr
        data, weight, attrs = expr.args[0], array_of(expr.args[1]), expr.attrs
        shape, output = static_shape(data), static_extents(self.old_type)
        plain = (attrs.data_layout, attrs.kernel_layout) == ("NCDHW", "OIDHW")
        if weight is None or shape is None or output is None or not plain:
            return expr
        groups = int(attrs.groups)
        stride, *strides = (int(n) for n in attrs.strides)
        step, *dilation = (int(n) for n in attrs.dilation)
        front, top, left, back, bottom, right = (int(n) for n in attrs.padding)
        if front or back:
            data = self.emit(relax.op.nn.pad(data, [0, 0, 0, 0, front, back, 0, 0, 0, 0]))
        images = relax.op.nn.conv2d(
            self._frames(data, weight.shape[2], stride, step, output[2], groups),
            constant(_image_weights(weight)),
            strides=strides,
            padding=[top, left, bottom, right],
            dilation=dilation,
            groups=groups,
            out_dtype=attrs.out_dtype,
        )
        batch, channels, frames, height, width = output
        split = self.emit(relax.op.reshape(self.emit(images), (batch, frames, channels, height, width)))
        return relax.op.permute_dims(split, [0, 2, 1, 3, 4])

    def _frames(self, data: Any, kernel: int, stride: int, step: int, frames: int, groups: int) -> Any:
        """Return (N * frames, C * kernel, H, W): the frames that each output frame reads, group by group."""
        batch, channels, _, height, width = static_shape(data) or ()
        last = (frames - 1) * stride + 1
        read = [
            self.emit(relax.op.strided_slice(data, [2], [tap * step], [tap * step + last], [stride]))
            for tap in range(kernel)
        ]
        split = [
            self.emit(relax.op.reshape(part, (batch, groups, 1, channels // groups, frames, height, width)))
            for part in read
        ]
        joined = self.emit(relax.op.concat(split, 2)) if kernel > 1 else split[0]
        moved = self.emit(relax.op.permute_dims(joined, [0, 4, 1, 2, 3, 5, 6]))
        return self.emit(relax.op.reshape(moved, (batch * frames, channels * kernel, height, width)))


def _image_weights(weight: np.ndarray) -> np.ndarray:
    """Return (O, I, KD, KH, KW) as (O, KD * I, KH, KW)."""
    outputs, inputs, frames, *kernel = weight.shape
    return np.ascontiguousarray(weight.swapaxes(1, 2).reshape(outputs, frames * inputs, *kernel))


lift_conv3d = module_pass(_LiftConv3d)
