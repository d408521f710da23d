"""Products of two activations of bytes, of which dot products take four along the depth at a time.

The right operand is packed at run time into words of four bytes, one vector of columns side by side:

    words[n / c, k / 4, n % c]  =  b[k, n] + b[k + 1, n] << 8 + b[k + 2, n] << 16 + b[k + 3, n] << 24
"""

from __future__ import annotations

from typing import Any

from tvm import te, tirx

from compiler.passes.kernels import RULE
from compiler.passes.kernels.dense import Operand, broadcast, operands, picked
from compiler.passes.kernels.narrow import widened
from compiler.passes.kernels.tensors import at

_BYTES = 4


def narrow_matmul(
    a: Any, b: Any, lanes: int, order_a: tuple[int, ...] = (), order_b: tuple[int, ...] = ()
) -> Any:
    """Return the product of bytes `a` (..., M, K) and signed bytes `b` (..., K, N), int32.

    Leading axes broadcast; the orders transpose what is stored to these axes, as `permute_dims` would, and
    need no copy. K, N and the depth of `a` are numbers; `a` has zeros up to a depth that four divides.
    """
    left, right = operands(a, b, order_a, order_b)
    batch, columns = broadcast(left.shape[:-2], right.shape[:-2]), int(right.shape[-1])
    panels = _words(right, lanes)
    kq = te.reduce_axis((0, panels.shape[-2]), "kq")
    kb = te.reduce_axis((0, _BYTES), "kb")

    def term(*i: Any) -> Any:
        word = at(panels, *picked(right, i[:-3]), i[-2], kq, i[-1])
        own = left.at(*picked(left, i[:-3]), i[-3], kq * _BYTES + kb)
        return te.sum(widened(own) * widened(_byte(word, kb)), axis=[kq, kb])

    count = panels.shape[-3]
    product = te.compute((*batch, left.shape[-2], count, lanes), term, name="dense", attrs={RULE: "dense"})
    return te.compute(
        (*batch, left.shape[-2], columns),
        lambda *i: at(product, *i[:-1], i[-1] // lanes, i[-1] % lanes),
        name="unpack",
    )


def _byte(word: Any, number: Any) -> Any:
    """Return the byte `number`, signed, of a word."""
    return tirx.shift_right(word, number.astype("int32") * tirx.const(8, "int32")).astype("int8")


def _words(right: Operand, lanes: int) -> Any:
    """Return `right` (..., K, N) packed into (..., ceil(N / c), ceil(K / 4), c) words, zeros past both."""
    depth, columns = (int(extent) for extent in right.shape[-2:])
    count = -(-columns // lanes)

    def packed(*i: Any) -> Any:
        *batch, panel, word, lane = i
        column, total = panel * lanes + lane, None
        for part in range(_BYTES):
            row = word * _BYTES + part
            inside = [column < columns] if columns % lanes else []
            inside += [row < depth] if part >= (depth % _BYTES or _BYTES) else []
            value = right.at(*batch, row, column)
            # As unsigned, so that the sign of one byte is not in the bits of the next ones.
            value = tirx.reinterpret("uint8", value).astype("int32")
            if inside:
                value = tirx.if_then_else(tirx.all(*inside), value, tirx.const(0, "int32"))
            value = tirx.shift_left(value, tirx.const(8 * part, "int32")) if part else value
            total = value if total is None else tirx.bitwise_or(total, value)
        return total

    return te.compute((*right.shape[:-2], count, -(-depth // _BYTES), lanes), packed, name="panels")
