"""Products of signs: XNOR and population count (Rastegari et al., "XNOR-Net", ECCV 2016, section 3.2).

Signs lie in the bits of 32-bit words, a set bit is -1. Of K products of signs, as many are -1 as bits differ:

    sum of x * w  =  K - 2 * popcount(x ^ w)

Bits past K are clear on both sides and differ nowhere. Of rows, a vector of words is made of 32 vectors of
floats: bit j of lane l of vector b is the sign of element ``32 * L * b + L * j + l``, for L lanes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import te, tirx

from compiler.passes.kernels import GROUPS, RULE
from compiler.passes.kernels.conv2d import Conv2dShape, output_size, with_border
from compiler.passes.kernels.tensors import at

WORD = 32
LANES = "kiln.lanes"
"""The attribute of a block that packs signs: how many words make a vector."""


def sign_lanes(depth: int, lanes: int) -> int:
    """Return the L that leaves the fewest bits of rows of `depth` signs unused, at most `lanes`."""
    widths = [1 << power for power in range(lanes.bit_length()) if 1 << power <= lanes]
    return min(widths, key=lambda width: (-depth % (WORD * width), -width))


def sign_words(x: Any, lanes: int) -> Any:
    """Return the signs of the rows of `x` (..., K), K a multiple of 32 `lanes`, as uint32 (..., K / 32)."""
    j = te.reduce_axis((0, WORD), "j")

    def word(*i: Any) -> Any:
        *row, place = i
        element = (place // lanes * WORD + j) * lanes + place % lanes
        return te.sum(_bit(at(x, *row, element), j), axis=[j])

    return te.compute(
        (*x.shape[:-1], x.shape[-1] // WORD), word, name="signs", attrs={RULE: "signs", LANES: lanes}
    )


def _bit(value: Any, place: Any) -> Any:
    """Return a word in which bit `place` is set if `value` is negative (or no number)."""
    bit = tirx.shift_left(tirx.const(1, "uint32"), place.astype("uint32"))
    return tirx.Select(value >= tirx.const(0, "float32"), tirx.const(0, "uint32"), bit)


def xnor_dense(words: Any, weight: Any, depth: int, outputs: int) -> Any:
    """Return the products of signs, float32 (..., N): rows of `words` (..., W), `weight` (ceil(N / c), W, c).

    `depth` is the number of signs in a row.
    """
    panels, count, lanes = weight.shape
    w = te.reduce_axis((0, count), "w")
    differ = te.compute(
        (*words.shape[:-1], panels, lanes),
        lambda *i: te.sum(_differ(at(words, *i[:-2], w), weight[i[-2], w, i[-1]]), axis=[w]),
        name="dense",
        attrs={RULE: "dense"},
    )
    return te.compute(
        (*words.shape[:-1], outputs),
        lambda *i: (depth - 2 * at(differ, *i[:-1], i[-1] // lanes, i[-1] % lanes)).astype("float32"),
        name="unpack",
    )


def _differ(one: Any, other: Any) -> Any:
    """Return how many bits of two words differ; LLVM's population count stays a vector, TVM's does not."""
    count = tirx.call_llvm_pure_intrin("uint32", "llvm.ctpop", tirx.bitwise_xor(one, other))
    return count.astype("int32")


def pack_sign_matrix(signs: np.ndarray, lanes: int, panel: int) -> np.ndarray:
    """Return `signs` (K, N), -1 and 1, as words (ceil(N / panel), W, panel) for `sign_words` of `lanes`."""
    depth, outputs = signs.shape
    step = WORD * lanes
    bits = np.pad(signs < 0, ((0, -depth % step), (0, -outputs % panel))).astype(np.uint32)
    vectors = bits.reshape(-1, WORD, lanes, bits.shape[1])
    places = np.arange(WORD, dtype=np.uint32)[:, None, None]
    words: np.ndarray = np.bitwise_or.reduce(vectors << places, axis=1)
    panels = words.reshape(-1, bits.shape[1] // panel, panel).transpose(1, 0, 2)
    return np.ascontiguousarray(panels)


def whole_mean(x: Any) -> Any:
    """Return the mean of all elements of `x`, float32, as a scalar."""
    axes = [te.reduce_axis((0, extent), f"k{number}") for number, extent in enumerate(x.shape)]
    count = 1
    for extent in x.shape:
        count = count * extent
    total = te.compute((), lambda: te.sum(at(x, *axes), axis=axes), name="total")
    return te.compute((), lambda: total[()] / tirx.Cast("float32", count), name="mean")


def sign_image(x: Any, channels: int) -> Any:
    """Return the signs of `x`, NCHW or blocked, as uint32 (N, ceil(channels / 32), H, W, 1).

    Bit j of word i is the sign of channel ``32 * i + j``; bits past `channels` are clear.
    """
    n, _, height, width, *inner = x.shape
    lanes = int(inner[0]) if inner else 1
    j = te.reduce_axis((0, min(WORD, channels)), "j")

    def word(image: Any, place: Any, h: Any, w: Any, _: Any) -> Any:
        channel = place * WORD + j
        position = (image, channel // lanes, h, w, channel % lanes) if inner else (image, channel, h, w)
        if channels <= WORD or channels % WORD == 0:
            return te.sum(_bit(x[position], j), axis=[j])
        inside = tirx.if_then_else(channel < channels, _bit(x[position], j), tirx.const(0, "uint32"))
        return te.sum(inside, axis=[j])

    return te.compute((n, -(-channels // WORD), height, width, 1), word, name="signs")


def xnor_conv2d(
    words: Any, weight: Any, base: Any, row_kinds: Any, column_kinds: Any, shape: Conv2dShape
) -> Any:
    """Return the blocked sums, float32, of products of signs.

    `words` are those of `sign_image`, `weight` (O/c, ceil(I / 32), KH, KW, 1, c) of `pack_sign_filters`.

    Around the image all bits are clear, which counts its values as 1. `base` (R, C, O/c, c), int32, is the
    number of signs less what these ones would add, for each of the `row_kinds` (H) and `column_kinds` (W) of
    the output's pixels (int32): see `borders`.
    """
    (sh, sw), (dh, dw) = shape.strides, shape.dilation
    blocks, depth, kernel_h, kernel_w, _, lanes = weight.shape
    height, width = output_size(words, (int(kernel_h), int(kernel_w)), shape)
    padded = with_border(words, shape)
    rc, rh, rw = (te.reduce_axis((0, n), a) for n, a in ((depth, "rc"), (kernel_h, "rh"), (kernel_w, "rw")))
    one = te.reduce_axis((0, 1), "one")

    def differ(n: Any, co: Any, h: Any, w: Any, v: Any) -> Any:
        value = padded[n, rc, h * sh + rh * dh, w * sw + rw * dw, one]
        return te.sum(_differ(value, weight[co, rc, rh, rw, one, v]), axis=[rc, rh, rw, one])

    extents = (words.shape[0], blocks, height, width, lanes)
    counted = te.compute(extents, differ, name="conv2d", attrs={RULE: "conv2d", GROUPS: 1})

    def total(n: Any, co: Any, h: Any, w: Any, v: Any) -> Any:
        least = base[row_kinds[h], column_kinds[w], co, v]
        return (least - 2 * counted[n, co, h, w, v]).astype("float32")

    return te.compute(extents, total, name="total")


def pack_sign_filters(signs: np.ndarray, lanes: int) -> np.ndarray:
    """Return `signs` OIHW, -1 and 1, as words (O/lanes, ceil(I / 32), KH, KW, 1, lanes)."""
    outputs, inputs, *kernel = signs.shape
    bits = np.pad(signs < 0, ((0, -outputs % lanes), (0, -inputs % WORD), (0, 0), (0, 0))).astype(np.uint32)
    apart = bits.reshape(-1, lanes, bits.shape[1] // WORD, WORD, *kernel)
    places = np.arange(WORD, dtype=np.uint32)[:, None, None]
    words: np.ndarray = np.bitwise_or.reduce(apart << places, axis=3)
    return np.ascontiguousarray(words.transpose(0, 2, 3, 4, 1))[..., None, :]


@dataclass(frozen=True)
class Borders:
    """What `xnor_conv2d` starts from: `base`, and which part of it each row and column of the output has."""

    base: np.ndarray
    rows: np.ndarray
    columns: np.ndarray


def borders(signs: np.ndarray, size: tuple[int, int], shape: Conv2dShape, lanes: int) -> Borders:
    """Return the borders of a convolution of images of `size` (H, W) with `signs` (OIHW)."""
    outputs, inputs, kernel_h, kernel_w = signs.shape
    top, left, bottom, right = shape.padding
    rows, row_kinds = _inside(size[0], kernel_h, top, bottom, shape.strides[0], shape.dilation[0])
    columns, column_kinds = _inside(size[1], kernel_w, left, right, shape.strides[1], shape.dilation[1])
    inside = rows[:, None, :, None] & columns[None, :, None, :]
    sums = signs.astype(np.int32).sum(1)
    outside = np.einsum("rcyx,oyx->rco", (~inside).astype(np.int32), sums)
    base = inputs * kernel_h * kernel_w - outside
    padded = np.pad(base, ((0, 0), (0, 0), (0, -outputs % lanes)))
    return Borders(padded.reshape(*base.shape[:2], -1, lanes).astype(np.int32), row_kinds, column_kinds)


def _inside(
    size: int, kernel: int, before: int, after: int, stride: int, dilation: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the different sets of taps that lie in an image (kinds, kernel), and the kind of each output."""
    count = (size + before + after - dilation * (kernel - 1) - 1) // stride + 1
    place = np.arange(count)[:, None] * stride + np.arange(kernel) * dilation - before
    kinds, which = np.unique((place >= 0) & (place < size), axis=0, return_inverse=True)
    return kinds, which.reshape(-1).astype(np.int32)
