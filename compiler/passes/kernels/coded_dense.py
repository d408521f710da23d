"""Matrix products with weights of few bits, which are decoded in registers or once for many rows."""

from __future__ import annotations

from typing import Any

from tvm import te

from compiler.passes.kernels import RULE
from compiler.passes.kernels.codes import Coding, decode


def coded_dense(
    x: Any, words: Any, outputs: int, coding: Coding, scale: Any | None = None, group: int = 0
) -> Any:
    """Return `x` (..., K), float32, times the coded matrix `words` (ceil(N / c), K / per, c), as (..., N).

    `scale` (ceil(N / c), ceil(K / group), c), if given, has a factor for each `group` of rows of the matrix.
    """
    weight = decode(words, coding, scale, group)
    panels, depth, lanes = weight.shape
    k = te.reduce_axis((0, depth), "k")
    product = te.compute(
        (*x.shape[:-1], panels, lanes),
        lambda *i: te.sum(_at(x, *i[:-2], k) * weight[i[-2], k, i[-1]], axis=[k]),
        name="dense",
        attrs={RULE: "dense"},
    )
    return te.compute(
        (*x.shape[:-1], outputs),
        lambda *i: _at(product, *i[:-1], i[-1] // lanes, i[-1] % lanes),
        name="unpack",
    )


def _at(tensor: Any, *index: Any) -> Any:
    return tensor[index]
