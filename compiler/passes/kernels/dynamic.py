"""Quantization with scales that are computed at run time, a row at a time, and products of such rows.

A row x has the levels (scale, 1 / scale, zero point), float32, that `row_levels` computes:

    scale = max((max(x, 0) - min(x, 0)) / span, least),     zero point = round(-min(x, 0) / scale)

(B. Jacob and others, arXiv 1712.05877, section 3; a row for each token: Z. Yao and others, ZeroQuant, 2022.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import te, tirx

from compiler.passes.kernels.quantize import saturated, within_integers
from compiler.passes.kernels.tensors import at, is_one

SCALE, RECIPROCAL, ZERO = 0, 1, 2
"""Where a row's levels lie."""


def row_levels(x: Any, step: float, least: float) -> Any:
    """Return the levels of each row of `x` (..., K) float32, as (..., 3).

    `step` is 1 over the number of steps between the least and the greatest code, `least` the least scale.
    """
    zero = tirx.const(0, "float32")

    def reduced(reduce: Any, name: str) -> Any:
        k = te.reduce_axis((0, x.shape[-1]), "k")
        return te.compute(x.shape[:-1], lambda *i: reduce(at(x, *i, k), axis=k), name=name)

    low, high = reduced(te.min, "low"), reduced(te.max, "high")

    def levels(*index: Any) -> Any:
        *row, which = index
        least_value, most = tirx.min(at(low, *row), zero), tirx.max(at(high, *row), zero)
        scale = tirx.max((most - least_value) * tirx.const(step, "float32"), tirx.const(least, "float32"))
        point = tirx.nearbyint((zero - least_value) / scale)
        others = tirx.Select(which == RECIPROCAL, tirx.const(1, "float32") / scale, point)
        return tirx.Select(which == SCALE, scale, others)

    return te.compute((*x.shape[:-1], 3), levels, name="levels")


def quantize_rows(x: Any, levels: Any, dtype: str, shift: int, rounded: Callable[[Any], Any]) -> Any:
    """Return the codes of `x` (..., K), bytes of `dtype`: those of its `levels`, moved by `shift`."""

    def code(*index: Any) -> Any:
        given = x[index] * _level(levels, index, RECIPROCAL)
        whole = (
            rounded(within_integers(given))
            + _level(levels, index, ZERO).astype("int32")
            + tirx.const(shift, "int32")
        )
        return saturated(whole, dtype)

    return te.compute(x.shape, code, name="quantize_rows")


def rescale_rows(sums: Any, levels: Any, weight_sums: Any, scale: Any, shift: int) -> Any:
    """Return what `sums` (..., N) int32, of codes times the codes of weights, stand for, float32.

    `weight_sums` (N,) int32 are those of each output's codes, `scale` (N,) float32 their scales.
    """

    def value(*index: Any) -> Any:
        zero = _level(levels, index, ZERO).astype("int32") + tirx.const(shift, "int32")
        exact = sums[index] - zero * weight_sums[index[-1]]
        return exact.astype("float32") * (_level(levels, index, SCALE) * scale[index[-1]])

    return te.compute(sums.shape, value, name="rescale_rows")


def _level(levels: Any, index: tuple[Any, ...], which: int) -> Any:
    """Return a level of the row of `index`, or the one that all rows share."""
    row = [0 if is_one(extent) else i for i, extent in zip(index[:-1], levels.shape[:-1], strict=True)]
    return at(levels, *row, which)
