"""Whether a 3 x 3 convolution pays off as Winograd's: by a cost formula, with the error that comes with it.

Costs are counted in multiply-adds. Beside those of the products, each element that is transformed, and each
weight that is read, takes as long as two vectors of multiply-adds: what memory beyond the second-level cache
gives (measured on Zen 3 with AVX2: 0.33 ns for either).

Weights that the kernel itself makes of codes (`compiler.passes.kernels.winograd.moved_weights`) cost what
computing them takes; then they lie in a cache near. A direct convolution decodes each code once.

Measured against float64 on normal inputs, the error of one layer over its output's range is at most 1e-6 for
m = 2 and 4e-6 for m = 4, where a direct convolution has 5e-7; the import's tolerance is 1e-4.
"""

from __future__ import annotations

from compiler.passes.choices import Choose, Convolution, ConvolutionSite, usual
from compiler.passes.kernels.conv2d import Conv2dShape
from compiler.passes.kernels.winograd import SIZES

_SLOTS = 2
"""Vectors of multiply-adds that fit in the time of one element read from memory or transformed."""
_MOVED = 10
"""Steps of a vector that a transformed weight of codes takes: for each row of (m + 2) of them 9 codes in 3
steps and 9 multiply-adds, then 2 to 3 and a store for each weight."""
_DECODED = 3
"""Steps of a vector that decoding a code takes."""
_GAIN = 0.95
"""Winograd's kernel has three passes over its data: it must save more than rounding errors of the formula."""


def choose_winograd(
    images: int, inputs: int, outputs: int, height: int, width: int, lanes: int, *, coded: bool = False
) -> int | None:
    """Return the m of the cheapest F(m x m, 3 x 3), None where the direct convolution is cheaper.

    `images` by `outputs` by `height` by `width` is the output's shape, `inputs` the input channels, `lanes`
    the vector's width in float32 values. With `coded` weights the kernel decodes and transforms them.
    """
    weights, read = inputs * outputs, _SLOTS * lanes
    best, chosen = _GAIN * 9.0 * weights * (images * height * width + (_DECODED if coded else read)), None
    for m in SIZES:
        positions, tiles = (m + 2) ** 2, images * -(-height // m) * -(-width // m)
        made = weights * (_MOVED if coded else read)
        cost = positions * (tiles * weights + made + tiles * (inputs + outputs) * read)
        if cost < best:
            best, chosen = cost, m
    return chosen


def winograd_size(
    shape: Conv2dShape,
    inputs: int,
    output: tuple[int, ...],
    lanes: int,
    choose: Choose = usual,
    *,
    coded: bool = False,
) -> int | None:
    """Return the m that a 3 x 3 convolution gets, None for a direct one; `choose` may know better than costs.

    `shape` is its geometry, `inputs` its input channels, `output` (N, O, H, W) its output's shape.
    """
    if (shape.strides, shape.dilation, shape.groups) != ((1, 1), (1, 1), 1):
        return None
    images, outputs, height, width = output
    default = choose_winograd(images, inputs, outputs, height, width, lanes, coded=coded)
    top, left, bottom, right = shape.padding
    image = (images, inputs, height + 2 - top - bottom, width + 2 - left - right)
    site = ConvolutionSite(image, outputs, shape.padding, lanes)
    return choose(site, Convolution(default), [Convolution(m) for m in (None, *SIZES)]).m
