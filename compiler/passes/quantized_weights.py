"""The weights of quantized layers as signed bytes.

    dequantize(stored, scale, zero)  =  scale * (stored - zero)  =  scale * (codes + moved)

Stored bytes may be unsigned and have zero points; differences of two bytes take nine bits. What does not fit
is split into signed bytes and a number for each output, `moved`, which the sum of a layer's inputs is
multiplied by. Where all differences fit, as they do with symmetric weights, that is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compiler.ir.constants import array_of
from compiler.ir.rewriter import is_call

LAYERS = (
    "relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d", "relax.nn.conv2d_transpose", "relax.matmul",
)  # fmt: skip

TWO_ACTIVATIONS = "it multiplies two activations"
"""Why a matrix product has no weights."""


@dataclass(frozen=True, eq=False)
class Weights:
    """A layer's weights: `scale` times (`codes`, int8, plus `moved`).

    `scale` (float32) and `moved` (int32) are vectors of one element for each output; `scale` may be of one.
    `axis` is where the outputs lie in `codes`.
    """

    codes: np.ndarray
    scale: np.ndarray
    moved: np.ndarray
    axis: int

    def ones(self, *, one: bool) -> Weights:
        """Return weights whose layer sums its inputs: for each output, or as all sum the same, for `one`."""
        codes = self.codes.take([0], self.axis) if one else self.codes
        return replace(self, codes=np.ones_like(codes), moved=np.zeros_like(self.moved))

    def over_outputs(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of `values`, which are like `codes`, over all axes but that of the outputs."""
        total = values.astype("int64").sum(tuple(a for a in range(values.ndim) if a != self.axis))
        return np.asarray(total)


def weights_of(call: Any, definition: Callable[[Any], Any]) -> Weights | str:
    """Return the weights of a layer, or why it has none that integers are made of.

    Of a matrix the outputs are the last axis, also behind the transposition that linear layers have; of a
    transposed convolution they are the second. `definition` finds what a variable is bound to.
    """
    source = definition(call.args[1])
    turned = is_call(source, "relax.permute_dims")
    given = definition(source.args[0]) if turned else source
    if array_of(given) is not None:
        return "its weights are not quantized"
    if not is_call(given, "relax.dequantize") or array_of(given.args[0]) is None:
        return TWO_ACTIVATIONS
    stored, scale, zero = (array_of(argument) for argument in given.args)
    if stored is None or scale is None or zero is None:
        return "its weights have scales that are computed at run time"
    if stored.dtype not in (np.int8, np.uint8):
        return f"its weights are stored as {stored.dtype}"
    axis = int(given.attrs.axis) % stored.ndim
    if turned:
        if stored.ndim != 2:
            return "its weights are transposed in another way than those of a linear layer"
        stored, axis = np.ascontiguousarray(stored.T), 1 - axis
    if is_call(call, "relax.matmul") and stored.ndim != 2:
        return "it has a matrix for each element of a batch"
    outputs = _output_axis(call, stored.ndim)
    if max(scale.size, zero.size) != 1 and axis != outputs:
        return "its weights have scales along an axis that it sums over"
    return _signed(stored, scale.reshape(-1), zero.reshape(-1), outputs)


def _output_axis(call: Any, rank: int) -> int:
    if is_call(call, "relax.matmul"):
        return rank - 1
    return 1 if is_call(call, "relax.nn.conv2d_transpose") else 0


def _signed(stored: np.ndarray, scale: np.ndarray, zero: np.ndarray, axis: int) -> Weights:
    shape = [-1 if a == axis else 1 for a in range(stored.ndim)]
    values = stored.astype("int32") - zero.astype("int32").reshape(shape)
    others = tuple(a for a in range(stored.ndim) if a != axis)
    low, high = values.min(others), values.max(others)
    # The least that moves an output's weights into signed bytes: none where they are there.
    moved = np.where(high > 127, high - 127, np.where(low < -128, low + 128, 0)).astype("int32")
    return Weights((values - moved.reshape(shape)).astype("int8"), scale, moved, axis)
