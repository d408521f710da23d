"""Matrix products: dense layers with packed weights, and products of two activations."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import te, tirx

from compiler.passes.kernels import RULE


def dense(x: Any, weight: Any, outputs: int) -> Any:
    """Return `x` (..., K) times packed `weight` (ceil(N / c), K, c), as (..., outputs).

    c columns of one panel lie side by side, one vector; columns past `outputs` are zero and not stored.
    """
    panels, depth, lanes = weight.shape
    rows = x.shape[:-1]
    k = te.reduce_axis((0, depth), "k")
    product = te.compute(
        (*rows, panels, lanes),
        lambda *i: te.sum(_at(x, *i[:-2], k) * weight[i[-2], k, i[-1]], axis=[k]),
        name="dense",
        attrs={RULE: "dense"},
    )
    return te.compute(
        (*rows, outputs), lambda *i: _at(product, *i[:-1], i[-1] // lanes, i[-1] % lanes), name="unpack"
    )


def pack_dense_weights(weight: np.ndarray, lanes: int) -> np.ndarray:
    """Return (K, N) weights as (ceil(N / lanes), K, lanes) panels, padded with zeros."""
    depth, outputs = weight.shape
    padded = np.pad(weight, ((0, 0), (0, -outputs % lanes)))
    return np.ascontiguousarray(padded.reshape(depth, -1, lanes).transpose(1, 0, 2))


def matmul(a: Any, b: Any) -> Any:
    """Return the product of `a` (..., M, K) and `b` (..., K, N); leading axes broadcast."""
    batch = _broadcast(list(a.shape[:-2]), list(b.shape[:-2]))
    k = te.reduce_axis((0, a.shape[-1]), "k")

    def operand(tensor: Any, index: tuple[Any, ...], row: Any, column: Any) -> Any:
        own = tensor.shape[:-2]
        leading = index[len(index) - len(own) :]
        picked = [0 if _is_one(extent) else i for i, extent in zip(leading, own, strict=True)]
        return _at(tensor, *picked, row, column)

    return te.compute(
        (*batch, a.shape[-2], b.shape[-1]),
        lambda *i: te.sum(operand(a, i[:-2], i[-2], k) * operand(b, i[:-2], k, i[-1]), axis=[k]),
        name="matmul",
        attrs={RULE: "matmul"},
    )


def _at(tensor: Any, *index: Any) -> Any:
    return tensor[index]


def _is_one(extent: Any) -> bool:
    return isinstance(extent, (int, tirx.IntImm)) and int(extent) == 1


def _broadcast(a: list[Any], b: list[Any]) -> list[Any]:
    """Return the broadcast shape of two lists of extents, aligned at their ends."""
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    aligned = [1] * (len(longer) - len(shorter)) + shorter
    return [y if _is_one(x) else x for x, y in zip(longer, aligned, strict=True)]
