"""Convolutions with weights of few bits as calls of blocked kernels, for `compiler.passes.block_layout`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax

from compiler.ir.constants import array_of, constant
from compiler.ir.rewriter import static_shape
from compiler.passes.coded_weights import CodedWeights, matrix_of
from compiler.passes.kernels import binary, codes, conv2d, winograd
from compiler.passes.kernels.dense import pack_dense_weights
from compiler.passes.lower_binary import sign_source


@dataclass(frozen=True)
class KernelCall:
    """What to compute of the data and `constants`, by `name`, and the `scale` (1, O/c, 1, 1, c) of that."""

    name: str
    compute: Callable[..., Any]
    constants: tuple[Any, ...]
    scale: Any | None = None

    def scaled(self, emit: Callable[[Any], Any], sums: Any) -> Any:
        """Return what the kernel gives, ``sums``, times its scale."""
        return sums if self.scale is None else relax.op.multiply(emit(sums), self.scale)


def shape_of(call: Any) -> conv2d.Conv2dShape:
    """Return the geometry of a convolution of one group."""
    (top, left, bottom, right), attrs = (int(width) for width in call.attrs.padding), call.attrs
    strides, dilation = ((int(first), int(last)) for first, last in (attrs.strides, attrs.dilation))
    return conv2d.Conv2dShape(strides, (top, left, bottom, right), dilation, 1)


def signs_of(call: Any, definition: Callable[[Any], Any]) -> tuple[Any, np.ndarray, tuple[int, int]] | None:
    """Return what a convolution takes the signs of, the signs it multiplies them by (OIHW), and the size.

    None if it multiplies anything else, or images of unknown size.
    """
    source, signs = sign_source(call.args[0], definition), array_of(call.args[1])
    if source is None or signs is None or int(call.attrs.groups) != 1 or not (abs(signs) == 1).all():
        return None
    extents = static_shape(source)
    return None if extents is None else (source, signs, (extents[2], extents[3]))


def sign_convolution(
    signs: np.ndarray, size: tuple[int, int], shape: conv2d.Conv2dShape, lanes: int
) -> KernelCall:
    """Return the convolution of `binary.sign_image` of images of `size` (H, W) with `signs` (OIHW)."""
    found = binary.borders(signs, size, shape, lanes)
    arrays = (binary.pack_sign_filters(signs, lanes), found.base, found.rows, found.columns)

    def compute(x: Any, *given: Any) -> Any:
        weight, base, rows, columns = given
        return binary.xnor_conv2d(x, weight, base, rows, columns, shape)

    return KernelCall("xnor_conv2d", compute, tuple(map(constant, arrays)))


def coded_convolution(
    weights: CodedWeights, shape: conv2d.Conv2dShape, lanes: int, input_lanes: int, m: int | None = None
) -> KernelCall:
    """Return the convolution with coded `weights` (OIHW) of images in blocks of `input_lanes`; 0 means NCHW.

    With `m` it is Winograd's F(m x m, 3 x 3). All that one output sums lies along one axis, as in a matrix:
    words of codes know no other.
    """
    outputs, inputs = weights.codes.shape[:2]
    # What lies past the last output is never read; past the last input, zeros must meet what lies there.
    missing = -outputs % lanes
    given = np.pad(weights.codes, ((0, missing), (0, 0), (0, 0), (0, 0)), mode="edge")
    spread = np.pad(
        np.broadcast_to(weights.scale, weights.codes.shape),
        ((0, missing), (0, -inputs % input_lanes if input_lanes else 0), (0, 0), (0, 0)),
        mode="edge",
    )
    packed = conv2d.pack_weights(given, lanes, input_lanes)
    matrix = matrix_of(_flat(packed), _flat(conv2d.pack_weights(spread, lanes, input_lanes)))
    coding = codes.coding_of(matrix.codes, matrix.group)
    arrays = [codes.pack_codes(matrix.codes, coding, lanes)]
    if matrix.group:
        arrays.append(pack_dense_weights(matrix.scale, lanes))

    if m is not None:
        arrays.append(winograd.weight_matrix(m))

    def compute(x: Any, words: Any, *others: Any) -> Any:
        decoded = codes.decode(words, coding, others[0] if matrix.group else None, matrix.group)
        weight = _Folded(decoded, packed.shape)
        if m is None:
            return conv2d.conv2d(x, weight, shape)
        return winograd.winograd_conv2d(x, winograd.moved_weights(weight, others[-1]), shape)

    scaled = matrix.group or (matrix.scale == 1).all()
    scale = None if scaled else constant(matrix.scale.reshape(1, -1, 1, 1, lanes))
    name = "coded_conv2d" if m is None else "coded_winograd_conv2d"
    return KernelCall(name, compute, tuple(map(constant, arrays)), scale)


def _flat(packed: np.ndarray) -> np.ndarray:
    """Return packed weights (O/c, ..., c) as a matrix (K, O)."""
    blocks, lanes = packed.shape[0], packed.shape[-1]
    matrix: np.ndarray = packed.reshape(blocks, -1, lanes).transpose(1, 0, 2).reshape(-1, blocks * lanes)
    return matrix


class _Folded:
    """A tensor (O/c, K, c) that is read as one of `shape` (O/c, ..., c), whose inner axes are K."""

    def __init__(self, tensor: Any, shape: tuple[int, ...]) -> None:
        self._tensor, self.shape = tensor, shape

    def __getitem__(self, position: tuple[Any, ...]) -> Any:
        block, *inner, lane = position
        k = inner[0]
        for axis, extent in zip(inner[1:], self.shape[2:-1], strict=True):
            k = k * extent + axis
        return self._tensor[block, k, lane]
