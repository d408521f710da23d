"""Pooling in the blocked layout (N, C/c, H, W, c): a depthwise convolution without weights.

What lies outside of the image is tested in each read, as in `compiler.passes.kernels.conv2d`: a copy of the
input would cost more than the pooling itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import te, tirx

from compiler.passes.kernels import RULE
from compiler.passes.kernels.narrow import SHORT_FLOATS


@dataclass(frozen=True)
class Window:
    """A window of `size` elements that moves by `strides` over an image of `padding` (top, left, ...)."""

    size: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int] = (1, 1)


def _axes(window: Window) -> tuple[Any, Any]:
    return te.reduce_axis((0, window.size[0]), "rh"), te.reduce_axis((0, window.size[1]), "rw")


def _read(data: Any, window: Window, rows: int, columns: int, outside: float) -> Any:
    """Return a function that reads `data` at an output's row and column and a position in its window."""
    top, left = window.padding[:2]
    (sh, sw), (dh, dw) = window.strides, window.dilation
    height, width = int(data.shape[2]), int(data.shape[3])
    below = (rows - 1) * sh + (window.size[0] - 1) * dh - top >= height
    right = (columns - 1) * sw + (window.size[1] - 1) * dw - left >= width

    def read(n: Any, c: Any, h: Any, w: Any, rh: Any, rw: Any, v: Any) -> Any:
        y, x = h * sh + rh * dh, w * sw + rw * dw
        tests = [y >= top] * (top > 0) + [y < height + top] * below
        tests += [x >= left] * (left > 0) + [x < width + left] * right
        value = data[n, c, y - top, x - left, v]
        if tests:
            value = tirx.if_then_else(tirx.all(*tests), value, tirx.const(outside, data.dtype))
        # TVM knows no least 16-bit float; the maximum of float32 is the same.
        return value.astype("float32") if str(data.dtype) in SHORT_FLOATS else value

    return read


def _maximum() -> Any:
    """Return the reduction to the maximum; of nothing it is -infinity, where TVM's is the least number."""
    return te.comm_reducer(
        lambda a, b: tirx.max(a, b), lambda dtype: tirx.const(_least(dtype), dtype), name="maximum"
    )


def _least(dtype: str) -> float:
    return -math.inf if "float" in str(dtype) else int(np.iinfo(str(dtype)).min)


def max_pool2d(data: Any, window: Window, rows: int, columns: int) -> Any:
    """Return the maximum of each window, `rows` by `columns` of them; padding is the least there is.

    That of 16-bit floats is float32.
    """
    rh, rw = _axes(window)
    read, maximum = _read(data, window, rows, columns, _least(data.dtype)), _maximum()
    return te.compute(
        (*data.shape[:2], rows, columns, data.shape[4]),
        lambda n, c, h, w, v: maximum(read(n, c, h, w, rh, rw, v), axis=[rh, rw]),
        name="max_pool2d",
        attrs={RULE: "window"},
    )


def global_mean(data: Any) -> Any:
    """Return the mean of each channel's image, (N, C/c, 1, 1, c) float32, of floats or of bytes."""
    height, width = data.shape[2:4]
    rh, rw = te.reduce_axis((0, height), "rh"), te.reduce_axis((0, width), "rw")
    total = te.compute(
        (*data.shape[:2], 1, 1, data.shape[4]),
        lambda n, c, h, w, v: te.sum(data[n, c, rh, rw, v].astype("float32"), axis=[rh, rw]),
        name="sum",
    )
    count = tirx.Cast("float32", height * width)
    return te.compute(total.shape, lambda *i: total[i] / count, name="mean")


def avg_pool2d(data: Any, window: Window, rows: int, columns: int, *, count_padding: bool) -> Any:
    """Return the mean of each window, `rows` by `columns` of them.

    Zeros of the padding are counted or not; what lies past the padding never is, as in PyTorch.
    """
    rh, rw = _axes(window)
    read = _read(data, window, rows, columns, 0.0)
    total = te.compute(
        (*data.shape[:2], rows, columns, data.shape[4]),
        lambda n, c, h, w, v: te.sum(read(n, c, h, w, rh, rw, v), axis=[rh, rw]),
        name="avg_pool2d",
        attrs={RULE: "window"},
    )
    top, left, bottom, right = window.padding if count_padding else (0, 0, 0, 0)

    def counted(position: Any, axis: int, before: int, after: int) -> Any:
        """Return how many elements of a window along `axis` count."""
        size, extent = window.size[axis], int(data.shape[2 + axis])
        first = position * window.strides[axis] - window.padding[axis]
        low, high = -before, extent + after
        last = (rows, columns)[axis] - 1
        lowest, highest = -window.padding[axis], last * window.strides[axis] - window.padding[axis] + size
        if lowest >= low and highest <= high:
            return size
        return tirx.min(first + size, high) - tirx.max(first, low)

    def mean(n: Any, c: Any, h: Any, w: Any, v: Any) -> Any:
        count = counted(h, 0, top, bottom) * counted(w, 1, left, right)
        factor = (
            tirx.const(1 / count, data.dtype)
            if isinstance(count, int)
            else tirx.const(1.0, data.dtype) / tirx.Cast(data.dtype, count)
        )
        return total[n, c, h, w, v] * factor

    return te.compute(total.shape, mean, name="mean")
