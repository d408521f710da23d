"""A transposed convolution becomes a convolution that makes all outputs between two inputs at once.

With stride s, output s a + b (counted from the padding's edge) sums x[a - u] w[s u + b] over u: for each
phase b a convolution with a flipped part of the kernel. All s x s phases are output channels of one
convolution, whose outputs are interleaved and cropped:

    nn.conv2d_transpose(x, w)  ->  strided_slice(interleave(nn.conv2d(x, parts of w)))

(W. Shi and others, Is the deconvolution layer the same as a convolutional layer?, arXiv 1609.07009.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax

from compiler.ir.constants import array_of, constant
from compiler.ir.rewriter import Rewriter, is_call, module_pass, static_extents, static_shape


@dataclass(frozen=True, eq=False)
class Split:
    """A transposed convolution as a convolution with `weight` (OIHW, `phases`) and `padding` (TLBR).

    `output` is the shape that `interleaved` gives, `steps` the size of the convolution's image, `strides`
    and `before` (the padding at the top and on the left) those of the transposed convolution.
    """

    weight: np.ndarray
    padding: tuple[int, ...]
    output: tuple[int, ...]
    steps: tuple[int, ...]
    strides: tuple[int, ...]
    before: tuple[int, ...]

    def interleaved(self, emit: Callable[[Any], Any], image: Any) -> Any:
        """Return (N, O, H, W) from the phases (N, O s s, A, B)."""
        batch, channels, height, width = self.output
        (down, across), (rows, columns) = self.strides, self.steps
        split = emit(relax.op.reshape(image, (batch, channels, down, across, rows, columns)))
        woven = emit(relax.op.permute_dims(split, [0, 1, 4, 2, 5, 3]))
        whole = emit(relax.op.reshape(woven, (batch, channels, rows * down, columns * across)))
        if (rows * down, columns * across) == (height, width):
            return whole
        end = [self.before[0] + height, self.before[1] + width]
        return relax.op.strided_slice(whole, axes=[2, 3], begin=list(self.before), end=end)


def split_of(call: Any, weight: np.ndarray, result: Any) -> Split | None:
    """Return how the call of `nn.conv2d_transpose` with `weight` and the type `result` is split, or None."""
    attrs, size, output = call.attrs, static_shape(call.args[0]), static_extents(result)
    layouts = (attrs.data_layout, attrs.kernel_layout, str(attrs.out_layout or attrs.data_layout))
    plain = layouts == ("NCHW", "IOHW", "NCHW") and int(attrs.groups) == 1
    if size is None or output is None or not plain or any(int(step) != 1 for step in attrs.dilation):
        return None
    strides = [int(step) for step in attrs.strides]
    before = [int(width) for width in attrs.padding[:2]]
    # Enough steps `a` for the last output.
    steps = [-(-(o + p) // s) for o, p, s in zip(output[2:], before, strides, strict=True)]
    parts = phases(weight, strides)
    top, left = (extent - 1 for extent in parts.shape[2:])
    bottom, right = (a - extent for a, extent in zip(steps, size[2:], strict=True))
    if min(bottom, right) < 0:
        return None
    shape = (output[0], weight.shape[1], *output[2:])
    return Split(parts, (top, left, bottom, right), shape, tuple(steps), tuple(strides), tuple(before))


class _SplitConvTranspose(Rewriter):
    name = "SplitConvTranspose"

    def rewrite(self, expr: Any) -> Any:
        if not is_call(expr, "relax.nn.conv2d_transpose"):
            return expr
        weight = array_of(expr.args[1])
        split = None if weight is None else split_of(expr, weight, self.old_type)
        if split is None:
            return expr
        image = relax.op.nn.conv2d(expr.args[0], constant(split.weight), padding=split.padding)
        return split.interleaved(self.emit, self.emit(image))


def phases(weight: np.ndarray, strides: list[int]) -> np.ndarray:
    """Return (I, O, KH, KW) weights as (O s s, I, ceil(KH / s), ceil(KW / s)), one flipped part a phase."""
    inputs, outputs, *kernel = weight.shape
    down, across = strides
    rows, columns = (-(-k // s) for k, s in zip(kernel, strides, strict=True))
    pads = [(0, 0), (0, 0), (0, rows * down - kernel[0]), (0, columns * across - kernel[1])]
    split = np.pad(weight, pads).reshape(inputs, outputs, rows, down, columns, across)
    flipped = split[:, :, ::-1, :, ::-1]
    parts = flipped.transpose(1, 3, 5, 0, 2, 4)
    return np.ascontiguousarray(parts.reshape(outputs * down * across, inputs, rows, columns))


split_conv_transpose = module_pass(_SplitConvTranspose)
