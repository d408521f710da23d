"""Convolution in the blocked layout: dense, grouped and depthwise.

Activations are (N, C/c, H, W, c). Weights are (O/c, I, KH, KW, c) with c output channels side by side, or
(O/c, I/c, KH, KW, c, c) where the input is blocked too. The innermost axis of output, weights and
epilogue is one vector; an input element is broadcast over it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import te, tirx

from compiler.passes.kernels import GROUPS, RULE
from compiler.passes.kernels.narrow import bits_of, dtype_of, parts_of, widened

QUAD = 4
"""Input channels of a picture that are one block: a pixel of bytes is one dot product, of floats two."""


@dataclass(frozen=True)
class Conv2dShape:
    """Geometry of a convolution; `padding` is (top, left, bottom, right), in elements."""

    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    groups: int


def _extent(size: Any, kernel: int, stride: int, before: int, after: int, dilation: int) -> Any:
    return (size + before + after - dilation * (kernel - 1) - 1) // stride + 1


def _zero_outside(
    data: Any, shape: Conv2dShape, *, rows: bool = True, columns: bool = True, outside: int = 0
) -> Callable[..., Any]:
    """Return a function that reads `data` at (n, c, y, x, ...), where y and x count from the padding's edge.

    Outside of the image it gives `outside`. `rows` and `columns` say which of the two are tested.
    """
    top, left, _, _ = shape.padding
    height, width = data.shape[2], data.shape[3]
    top, left = (top if rows else 0), (left if columns else 0)

    def read(n: Any, c: Any, y: Any, x: Any, *rest: Any) -> Any:
        tests = [y >= top, y < height + top] * rows + [x >= left, x < width + left] * columns
        source = (n, c, y - top, x - left, *rest)
        value = bits_of(data[source])
        return tirx.if_then_else(tirx.all(*tests), value, tirx.const(outside, dtype_of(value)))

    return read


def with_border(data: Any, shape: Conv2dShape, outside: int = 0) -> Any:
    """Return `data` with `outside` around its axes 2 and 3, made once before the convolution reads it."""
    top, left, bottom, right = shape.padding
    if not any(shape.padding):
        return data
    rows, columns = data.shape[2] + top + bottom, data.shape[3] + left + right
    extents = (*data.shape[:2], rows, columns, *data.shape[4:])
    return te.compute(extents, _zero_outside(data, shape, outside=outside), name="pad")


def _padded_columns(data: Any, shape: Conv2dShape) -> Callable[..., Any]:
    """Return a function that reads `data` as if it were padded, of which only columns are a copy.

    Each read tests whether its row lies inside: `compiler.build.skip_padding` makes of that one branch a row
    of the kernel, and so sums over rows of zeros are not computed at all.
    """
    _, left, _, right = shape.padding
    if left or right:
        extents = (*data.shape[:3], data.shape[3] + left + right, *data.shape[4:])
        data = te.compute(extents, _zero_outside(data, shape, rows=False), name="pad")
    return _zero_outside(data, shape, columns=False)


def _read_padded(data: Any, shape: Conv2dShape, outside: int = 0) -> Callable[..., Any]:
    """Return a function that reads `data` as if padded: by tests, or, of unknown size, from a copy."""
    if any(shape.padding) and _is_static(data):
        return _zero_outside(data, shape, outside=outside)
    padded = with_border(data, shape, outside)

    def read(*index: Any) -> Any:
        return padded[index]

    return read


def _is_static(data: Any) -> bool:
    return all(isinstance(size, (int, tirx.IntImm)) for size in data.shape[2:4])


def output_size(data: Any, kernel: tuple[int, int], shape: Conv2dShape) -> tuple[Any, Any]:
    """Return the rows and columns of the output for `data` (N, C, H, W, ...)."""
    (sh, sw), (dh, dw), (top, left, bottom, right) = shape.strides, shape.dilation, shape.padding
    return (
        _extent(data.shape[2], kernel[0], sh, top, bottom, dh),
        _extent(data.shape[3], kernel[1], sw, left, right, dw),
    )


def conv2d(data: Any, weight: Any, shape: Conv2dShape) -> Any:
    """Return the blocked output of a dense or grouped convolution, which reads a copy with padded columns.

    `data` is (N, C, H, W) or blocked; `weight` as in the module's text. For groups, a block of output
    channels must lie inside one group.
    """
    (sh, sw), (dh, dw) = shape.strides, shape.dilation
    blocks, kernel_h, kernel_w, lanes = (
        weight.shape[0],
        int(weight.shape[2]),
        int(weight.shape[3]),
        weight.shape[-1],
    )
    height, width = output_size(data, (kernel_h, kernel_w), shape)
    blocks_per_group = int(blocks) // shape.groups
    skips_rows = len(weight.shape) == 6 and kernel_h > 1 and _is_static(data)
    if skips_rows and (shape.padding[0] or shape.padding[2]):
        read = _padded_columns(data, shape)
    else:
        padded = with_border(data, shape)

        def read(*index: Any) -> Any:
            return padded[index]

    rc = te.reduce_axis((0, weight.shape[1]), "rc")
    rh, rw = te.reduce_axis((0, kernel_h), "rh"), te.reduce_axis((0, kernel_w), "rw")
    inner = [te.reduce_axis((0, weight.shape[4]), "rv")] if len(weight.shape) == 6 else []

    def product(n: Any, co: Any, h: Any, w: Any, v: Any) -> Any:
        y, x = h * sh + rh * dh, w * sw + rw * dw
        first = 0 if shape.groups == 1 else co // blocks_per_group * weight.shape[1]
        if inner:
            value = read(n, first + rc, y, x, inner[0])
        elif len(data.shape) == 5:
            channel = first + rc
            value = read(n, channel // data.shape[4], y, x, channel % data.shape[4])
        else:
            value = read(n, first + rc, y, x)
        position = (co, rc, rh, rw, *inner, v)
        return te.sum(value * weight[position], axis=[rc, rh, rw, *inner])

    return te.compute(
        (data.shape[0], blocks, height, width, lanes), product, name="conv2d",
        attrs={RULE: "conv2d", GROUPS: shape.groups},
    )  # fmt: skip


def conv2d_narrow(data: Any, weight: Any, shape: Conv2dShape, outside: int) -> Any:
    """Return the sums of a convolution of bytes (int32) or of 16-bit floats (float32).

    Padding is `outside`, the zero point of bytes. `data` is blocked, of p g channels a block; `weight` is
    (O/c, I / (p g), KH, KW, g, c, p): as many input channels of one output as fill 32 bits, p, lie side by
    side, as dot products take them.
    """
    (sh, sw), (dh, dw) = shape.strides, shape.dilation
    blocks, depth, kernel_h, kernel_w, words, lanes, parts = weight.shape
    height, width = output_size(data, (int(kernel_h), int(kernel_w)), shape)
    padded = with_border(data, shape, outside)
    blocks_per_group = int(blocks) // shape.groups
    rc, rh, rw = (te.reduce_axis((0, n), a) for n, a in ((depth, "rc"), (kernel_h, "rh"), (kernel_w, "rw")))
    rq, rb = te.reduce_axis((0, words), "rq"), te.reduce_axis((0, parts), "rb")

    def product(n: Any, co: Any, h: Any, w: Any, v: Any) -> Any:
        first = 0 if shape.groups == 1 else co // blocks_per_group * depth
        value = padded[n, first + rc, h * sh + rh * dh, w * sw + rw * dw, rq * parts + rb]
        taken = widened(value) * widened(weight[co, rc, rh, rw, rq, v, rb])
        return te.sum(taken, axis=[rc, rh, rw, rq, rb])

    return te.compute(
        (data.shape[0], blocks, height, width, lanes), product, name="conv2d",
        attrs={RULE: "conv2d", GROUPS: shape.groups},
    )  # fmt: skip


def depthwise_conv2d(data: Any, weight: Any, shape: Conv2dShape) -> Any:
    """Return the blocked output, float32, of a depthwise convolution; `weight` is (C/c, KH, KW, c), float32.

    A copy of the input would cost as much as the convolution: where the image's size is known, each read
    tests whether it lies inside; loop partitioning and `compiler.build.skip_padding` remove the tests.
    """
    (sh, sw), (dh, dw) = shape.strides, shape.dilation
    blocks, kernel_h, kernel_w, lanes = weight.shape
    height, width = output_size(data, (int(kernel_h), int(kernel_w)), shape)
    read = _read_padded(data, shape)
    rh, rw = te.reduce_axis((0, kernel_h), "rh"), te.reduce_axis((0, kernel_w), "rw")
    return te.compute(
        (data.shape[0], blocks, height, width, lanes),
        lambda n, c, h, w, v: te.sum(
            _float32(read(n, c, h * sh + rh * dh, w * sw + rw * dw, v)) * weight[c, rh, rw, v], axis=[rh, rw]
        ),
        name="depthwise_conv2d",
        attrs={RULE: "window"},
    )


def _float32(value: Any) -> Any:
    return value if dtype_of(value) == "float32" else widened(value)


def depthwise_integer(data: Any, weight: Any, shape: Conv2dShape, outside: int) -> Any:
    """Return the sums, int32, of a depthwise convolution of bytes; padding is `outside`.

    `weight` is (C/c, KH, KW, c), signed bytes.
    """
    (sh, sw), (dh, dw) = shape.strides, shape.dilation
    blocks, kernel_h, kernel_w, lanes = weight.shape
    height, width = output_size(data, (int(kernel_h), int(kernel_w)), shape)
    read = _read_padded(data, shape, outside)
    rh, rw = te.reduce_axis((0, kernel_h), "rh"), te.reduce_axis((0, kernel_w), "rw")

    def product(n: Any, c: Any, h: Any, w: Any, v: Any) -> Any:
        value = read(n, c, h * sh + rh * dh, w * sw + rw * dw, v)
        return te.sum(value.astype("int32") * weight[c, rh, rw, v].astype("int32"), axis=[rh, rw])

    return te.compute(
        (data.shape[0], blocks, height, width, lanes), product, name="depthwise_conv2d",
        attrs={RULE: "window"},
    )  # fmt: skip


def pack_weights(weight: np.ndarray, lanes: int, input_lanes: int) -> np.ndarray:
    """Return OIHW weights as (O/lanes, I, KH, KW, lanes), or, blocked by `input_lanes`, with six axes.

    Channels are padded with zeros. `input_lanes` is 0 where the input is not blocked, or where its blocks
    do not line up with the groups.
    """
    outputs, inputs, kernel_h, kernel_w = weight.shape
    pad_o = -outputs % lanes
    pad_i = -inputs % input_lanes if input_lanes else 0
    padded = np.pad(weight, ((0, pad_o), (0, pad_i), (0, 0), (0, 0)))
    split = padded.reshape((outputs + pad_o) // lanes, lanes, inputs + pad_i, kernel_h, kernel_w)
    if not input_lanes:
        return np.ascontiguousarray(split.transpose(0, 2, 3, 4, 1))
    blocked = split.reshape(split.shape[0], lanes, -1, input_lanes, kernel_h, kernel_w)
    return np.ascontiguousarray(blocked.transpose(0, 2, 4, 5, 3, 1))


def pack_depthwise_weights(weight: np.ndarray, lanes: int) -> np.ndarray:
    """Return (C, 1, KH, KW) weights as (C/lanes, KH, KW, lanes), padded with zeros."""
    channels, _, kernel_h, kernel_w = weight.shape
    padded = np.pad(weight[:, 0], ((0, -channels % lanes), (0, 0), (0, 0)))
    return np.ascontiguousarray(padded.reshape(-1, lanes, kernel_h, kernel_w).transpose(0, 2, 3, 1))


def pack_narrow_weights(weight: np.ndarray, lanes: int, input_lanes: int) -> np.ndarray:
    """Return OIHW weights as `conv2d_narrow` takes them: (O/c, I/i, KH, KW, i/p, c, p), zeros added."""
    packed, parts = pack_weights(weight, lanes, input_lanes), parts_of(weight.dtype)
    words = packed.reshape(*packed.shape[:4], input_lanes // parts, parts, lanes)
    return np.ascontiguousarray(words.swapaxes(-1, -2))
