"""Matrix products: dense layers with packed weights, and products of two activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import te, tirx

from compiler.passes.kernels import RULE
from compiler.passes.kernels.narrow import parts_of, widened
from compiler.passes.kernels.tensors import at, is_one


def dense(x: Any, weight: Any, outputs: int) -> Any:
    """Return `x` (..., K) times packed `weight` (ceil(N / c), K, c), as (..., outputs).

    c columns of one panel lie side by side, one vector; columns past `outputs` are zero and not stored.
    """
    panels, depth, lanes = weight.shape
    rows = x.shape[:-1]
    k = te.reduce_axis((0, depth), "k")
    product = te.compute(
        (*rows, panels, lanes),
        lambda *i: te.sum(at(x, *i[:-2], k) * weight[i[-2], k, i[-1]], axis=[k]),
        name="dense",
        attrs={RULE: "dense"},
    )
    return te.compute(
        (*rows, outputs), lambda *i: at(product, *i[:-1], i[-1] // lanes, i[-1] % lanes), name="unpack"
    )


def dense_narrow(x: Any, weight: Any, outputs: int) -> Any:
    """Return narrow `x` (..., K) times packed `weight` (ceil(N / c), K / p, c, p), p numbers filling 32 bits.

    Bytes are summed in int32, 16-bit floats in float32.
    """
    panels, words, lanes, parts = weight.shape
    kq, kb = te.reduce_axis((0, words), "kq"), te.reduce_axis((0, parts), "kb")
    product = te.compute(
        (*x.shape[:-1], panels, lanes),
        lambda *i: te.sum(
            widened(at(x, *i[:-2], kq * parts + kb)) * widened(weight[i[-2], kq, i[-1], kb]),
            axis=[kq, kb],
        ),
        name="dense",
        attrs={RULE: "dense"},
    )
    return te.compute(
        (*x.shape[:-1], outputs),
        lambda *i: at(product, *i[:-1], i[-1] // lanes, i[-1] % lanes),
        name="unpack",
    )


def pack_narrow_dense_weights(weight: np.ndarray, lanes: int) -> np.ndarray:
    """Return (K, N) weights as `dense_narrow` takes them, (ceil(N / c), ceil(K / p), c, p), zeros added."""
    (depth, outputs), parts = weight.shape, parts_of(weight.dtype)
    padded = np.pad(weight, ((0, -depth % parts), (0, -outputs % lanes)))
    words = padded.reshape(-(-depth // parts), parts, -1, lanes)
    return np.ascontiguousarray(words.transpose(2, 0, 3, 1))


def pack_dense_weights(weight: np.ndarray, lanes: int) -> np.ndarray:
    """Return (K, N) weights as (ceil(N / lanes), K, lanes) panels, padded with zeros."""
    depth, outputs = weight.shape
    padded = np.pad(weight, ((0, 0), (0, -outputs % lanes)))
    return np.ascontiguousarray(padded.reshape(depth, -1, lanes).transpose(1, 0, 2))


@dataclass(frozen=True)
class Operand:
    """A tensor read through a transposition: axis i of what is meant is axis `order[i]` of what is stored."""

    tensor: Any
    order: tuple[int, ...]

    @property
    def shape(self) -> list[Any]:
        """Return the extents of what is meant."""
        return [self.tensor.shape[axis] for axis in self.order]

    def at(self, *index: Any) -> Any:
        """Return the element at `index` of what is meant."""
        stored = dict(zip(self.order, index, strict=True))
        return at(self.tensor, *(stored[axis] for axis in range(len(index))))


def matmul(a: Any, b: Any, order_a: tuple[int, ...] = (), order_b: tuple[int, ...] = ()) -> Any:
    """Return the product of `a` (..., M, K) and `b` (..., K, N); leading axes broadcast.

    The orders transpose what is stored to these axes, as `permute_dims` would, and need no copy.
    """
    left, right = operands(a, b, order_a, order_b)
    batch = broadcast(left.shape[:-2], right.shape[:-2])
    k = te.reduce_axis((0, left.shape[-1]), "k")
    return te.compute(
        (*batch, left.shape[-2], right.shape[-1]),
        lambda *i: te.sum(
            left.at(*picked(left, i[:-2]), i[-2], k) * right.at(*picked(right, i[:-2]), k, i[-1]),
            axis=[k],
        ),
        name="matmul",
        attrs={RULE: "matmul"},
    )


def packed_matmul(
    a: Any, b: Any, lanes: int, order_a: tuple[int, ...] = (), order_b: tuple[int, ...] = ()
) -> Any:
    """Return the same product where vectors of `lanes` columns do not lie side by side in `b`.

    It is first packed into panels (..., ceil(N / lanes), K, lanes), zeros past N.
    """
    left, right = operands(a, b, order_a, order_b)
    batch, (depth, columns) = broadcast(left.shape[:-2], right.shape[:-2]), right.shape[-2:]
    count = -(-int(columns) // lanes)

    def packed(*i: Any) -> Any:
        column = i[-3] * lanes + i[-1]
        if int(columns) % lanes == 0:
            return right.at(*i[:-3], i[-2], column)
        value = right.at(*i[:-3], i[-2], column)
        return tirx.if_then_else(column < columns, value, tirx.const(0, b.dtype))

    panels = te.compute((*right.shape[:-2], count, depth, lanes), packed, name="panels")
    k = te.reduce_axis((0, depth), "k")
    product = te.compute(
        (*batch, left.shape[-2], count, lanes),
        lambda *i: te.sum(
            left.at(*picked(left, i[:-3]), i[-3], k) * at(panels, *picked(right, i[:-3]), i[-2], k, i[-1]),
            axis=[k],
        ),
        name="dense",
        attrs={RULE: "dense"},
    )
    return te.compute(
        (*batch, left.shape[-2], columns),
        lambda *i: at(product, *i[:-1], i[-1] // lanes, i[-1] % lanes),
        name="unpack",
    )


def operands(a: Any, b: Any, order_a: tuple[int, ...], order_b: tuple[int, ...]) -> tuple[Operand, Operand]:
    """Return both factors of a product, read in the order of their axes where none other is given."""
    orders = (order_a or tuple(range(len(a.shape)))), (order_b or tuple(range(len(b.shape))))
    return Operand(a, orders[0]), Operand(b, orders[1])


def picked(operand: Operand, index: tuple[Any, ...]) -> list[Any]:
    """Return the leading position in `operand` for the leading `index` of the product."""
    own = operand.shape[:-2]
    leading = index[len(index) - len(own) :]
    return [0 if is_one(extent) else i for i, extent in zip(leading, own, strict=True)]


def broadcast(a: list[Any], b: list[Any]) -> list[Any]:
    """Return the broadcast shape of two lists of extents, aligned at their ends."""
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    aligned = [1] * (len(longer) - len(shorter)) + shorter
    return [y if is_one(x) else x for x, y in zip(longer, aligned, strict=True)]
