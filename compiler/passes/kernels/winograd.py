"""Winograd's convolution F(m x m, 3 x 3) in the blocked layout: stride 1, one group.

    V = B^T d B     each tile of (m + 2) x (m + 2) inputs, tiles overlap by 2
    M = U V         one matrix product for each of the (m + 2)^2 positions, U = G g G^T made at compile time;
                    of small weights g, which U would multiply in size, by the kernel itself
    y = A^T M A     each tile of m x m outputs

A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks, arXiv 1509.09308. Products fall from
9 m^2 to (m + 2)^2 a tile: 2.25 times for m = 2, 4 times for m = 4.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import te, tirx

from compiler.passes.kernels import RULE
from compiler.passes.kernels.conv2d import Conv2dShape, output_size, pack_weights

_POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))}
"""The finite points of interpolation by m; infinity is one more. For m = 4 these lose fewer digits than the
paper's 0, 1, -1, 2, -2: the largest factor is 2.8 instead of 8 (B. Barabasz and others, Error Analysis and
Improving the Accuracy of Winograd Convolution for Deep Neural Networks, arXiv 1803.10986)."""

SIZES = tuple(_POINTS)
"""The output tiles m that there are."""


@dataclass(frozen=True)
class Matrices:
    """A^T (m, m + 2), G (m + 2, 3) and B^T (m + 2, m + 2), float64."""

    output: np.ndarray
    weight: np.ndarray
    input: np.ndarray


@functools.cache
def matrices(m: int) -> Matrices:
    """Return the matrices of F(m, 3) after A. Toom and S. Cook, for the points of interpolation of `m`.

    With M(x) the product of all x - p: a row of B^T holds the coefficients of M(x) / (x - p), a row of G
    the powers of p over the value of that at p, a column of A^T the powers of p; infinity gives the last.
    """
    points, taps = _POINTS[m], 3
    side = len(points) + 1
    output, weight, inputs = np.zeros((m, side)), np.zeros((side, taps)), np.zeros((side, side))
    output[m - 1, -1] = weight[-1, taps - 1] = 1
    inputs[-1] = np.poly(points)[::-1]
    for number, point in enumerate(points):
        others = np.poly([*points[:number], *points[number + 1 :]])
        inputs[number, : side - 1] = others[::-1]
        output[:, number] = [point**power for power in range(m)]
        weight[number] = [point**power / np.polyval(others, point) for power in range(taps)]
    return Matrices(output, weight, np.where(np.abs(inputs) < 1e-12, 0, inputs))


def _transform(matrix: np.ndarray, row: Any, element: Callable[[int], Any]) -> Any:
    """Return the product of row number `row` (an axis to be unrolled) of `matrix` with a vector."""
    sums = []
    for factors in matrix:
        terms = [
            element(k) if factor == 1 else element(k) * tirx.const(float(factor), "float32")
            for k, factor in enumerate(factors)
            if factor
        ]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        sums.append(total)
    value = sums[-1]
    for number in range(len(sums) - 2, -1, -1):
        value = tirx.Select(row == number, sums[number], value)
    return value


def winograd_conv2d(data: Any, weight: Any, shape: Conv2dShape) -> Any:
    """Return the blocked output of a 3 x 3 convolution of stride 1.

    `data` is (N, I/c, H, W, c), `weight` what `winograd_weights` or `moved_weights` made, of the shape
    ((m + 2)^2, O/c, I/c, c, c).
    """
    side = int(np.sqrt(int(weight.shape[0])))
    m, (top, left, _, _) = side - 2, shape.padding
    factors = matrices(m)
    images, blocks, rows, columns, lanes = data.shape
    height, width = output_size(data, (3, 3), shape)
    down, across = -(-int(height) // m), -(-int(width) // m)
    tiles = int(images) * down * across

    def place(t: Any) -> tuple[Any, Any, Any]:
        return t // (down * across), t // across % down, t % across

    def value(b: Any, t: Any, i: Any, j: Any, v: Any) -> Any:
        n, y, x = place(t)
        h, w = y * m + i - top, x * m + j - left
        inside = tirx.all(h >= 0, h < rows, w >= 0, w < columns)
        return tirx.if_then_else(inside, data[n, b, h, w, v], tirx.const(0, "float32"))

    tile = te.compute((blocks, tiles, side, side, lanes), value, name="winograd_tile")
    half = te.compute(
        (blocks, tiles, side, side, lanes),
        lambda b, t, i, j, v: _transform(factors.input, i, lambda k: tile[b, t, k, j, v]),
        name="winograd_input_rows",
    )
    moved = te.compute(
        (side * side, blocks, tiles, lanes),
        lambda e, b, t, v: _transform(factors.input, e % side, lambda k: half[b, t, e // side, k, v]),
        name="winograd_input",
    )
    rc, rv = te.reduce_axis((0, blocks), "rc"), te.reduce_axis((0, lanes), "rv")
    product = te.compute(
        (side * side, weight.shape[1], tiles, lanes),
        lambda e, o, t, v: te.sum(moved[e, rc, t, rv] * weight[e, o, rc, rv, v], axis=[rc, rv]),
        name="winograd",
        attrs={RULE: "winograd"},
    )
    back = te.compute(
        (weight.shape[1], tiles, m, side, lanes),
        lambda o, t, i, j, v: _transform(factors.output, i, lambda k: product[k * side + j, o, t, v]),
        name="winograd_output_rows",
    )
    inverse = te.compute(
        (weight.shape[1], tiles, m, m, lanes),
        lambda o, t, i, j, v: _transform(factors.output, j, lambda k: back[o, t, i, k, v]),
        name="winograd_output",
    )
    return te.compute(
        (images, weight.shape[1], height, width, lanes),
        lambda n, o, h, w, v: inverse[o, (n * down + h // m) * across + w // m, h % m, w % m, v],
        name="winograd_untile",
    )


def winograd_weights(weight: np.ndarray, lanes: int, m: int) -> np.ndarray:
    """Return OIHW weights (3 x 3) as U = G g G^T, ((m + 2)^2, O/lanes, I/lanes, lanes, lanes) float32."""
    g = matrices(m).weight
    moved = np.einsum("ak,oikl,bl->oiab", g, weight.astype("float64"), g).astype("float32")
    packed = pack_weights(moved, lanes, lanes)  # (O/c, I/c, a, b, c, c)
    positions = packed.transpose(2, 3, 0, 1, 4, 5)
    return np.ascontiguousarray(positions.reshape((m + 2) ** 2, *positions.shape[2:]))


def weight_matrix(m: int) -> np.ndarray:
    """Return G (m + 2, 3), float32, which `moved_weights` takes."""
    return matrices(m).weight.astype(np.float32)


def moved_weights(weight: Any, factors: Any) -> Any:
    """Return U = G g G^T of the blocked weights g (O/c, I/c, 3, 3, c, c), computed by the kernel.

    `factors` is `weight_matrix`, read as a table: kernels loop over the rows of U, whose numbers unroll.
    """
    blocks, depth, _, taps, lanes, width = weight.shape
    side = int(factors.shape[0])
    columns = matrices(side - 2).weight

    def row(i: Any, o: Any, c: Any, k: Any, v: Any, lane: Any) -> Any:
        terms = [factors[i, a] * weight[o, c, a, k, v, lane] for a in range(int(taps))]
        return terms[0] + terms[1] + terms[2]

    half = te.compute((side, blocks, depth, taps, lanes, width), row, name="winograd_weight_rows")
    return te.compute(
        (side * side, blocks, depth, lanes, width),
        lambda e, o, c, v, lane: _transform(columns, e % side, lambda k: half[e // side, o, c, k, v, lane]),
        name="winograd_weight",
    )
