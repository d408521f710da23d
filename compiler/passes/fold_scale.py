"""Per-channel factors and offsets move into the weights and the bias of the layer before them.

    conv(x, w) * s            ->  conv(x, w * s)
    (conv(x, w) + b) * s      ->  conv(x, w * s) + b * s
    (conv(x, w) + b) + c      ->  conv(x, w) + (b + c)

for conv1d to conv3d, transposed convolutions and matmul with constant weights, where nothing else reads
the values in between.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from compiler.ir.constants import array_of, channel_vector, constant
from compiler.ir.rewriter import Rewriter, is_call, module_pass

_CONVOLUTIONS = ("relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d")
_TRANSPOSED = ("relax.nn.conv1d_transpose", "relax.nn.conv2d_transpose", "relax.nn.conv3d_transpose")
_LAYERS = (*_CONVOLUTIONS, *_TRANSPOSED, "relax.matmul")


class _FoldScale(Rewriter):
    name = "FoldScale"

    def rewrite(self, expr: Any) -> Any:
        if is_call(expr, "relax.multiply", "relax.add"):
            for value, other in (expr.args, reversed(expr.args)):
                operand = array_of(other)
                if operand is not None and self.uses(value) == 1:
                    folded = self._fold(expr.op.name, value, operand)
                    if folded is not None:
                        return folded
        return expr

    def _fold(self, op: str, value: Any, operand: np.ndarray) -> Any | None:
        layer, bias = self._layer_and_bias(value)
        if layer is None:
            return None
        rank = value.ty.ndim
        axis = rank - 1 if is_call(layer, "relax.matmul") else 1
        vector = channel_vector(operand, rank, axis)
        if vector is None:
            return None
        if op == "relax.multiply":
            scaled = self._scale_weights(layer, vector)
            if scaled is None:
                return None
            return scaled if bias is None else relax.op.add(self.emit(scaled), constant(bias * operand))
        return None if bias is None else relax.op.add(self.emit(layer), constant(bias + operand))

    def _layer_and_bias(self, value: Any) -> tuple[Any, np.ndarray | None]:
        """Return the layer that `value` is the output of and the constant added to it, if any."""
        call = self.definition(value)
        if is_call(call, *_LAYERS):
            return call, None
        if is_call(call, "relax.add"):
            for inner, other in (call.args, reversed(call.args)):
                layer, bias = self.definition(inner), array_of(other)
                if bias is not None and is_call(layer, *_LAYERS) and self.uses(inner) <= 1:
                    # A bias that widens the layer's shape is no bias.
                    return (layer, bias) if inner.ty.ndim == value.ty.ndim else (None, None)
        return None, None

    def _scale_weights(self, layer: Any, scale: np.ndarray) -> Any | None:
        weight = self._weight(layer.args[1])
        if weight is None:
            return None
        if is_call(layer, "relax.matmul"):
            if weight.ndim != 2:
                return None
            scaled = weight * scale
        elif is_call(layer, *_TRANSPOSED):
            scaled = _scale_transposed(weight, scale, int(layer.attrs.groups))
        else:
            scaled = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
        return relax.Call(layer.op, [layer.args[0], constant(scaled.astype(weight.dtype))], layer.attrs)

    def _weight(self, expr: Any) -> np.ndarray | None:
        """Return constant weights, also those behind the transposition that a linear layer imports with."""
        call = self.definition(expr)
        if is_call(call, "relax.permute_dims"):
            inner = array_of(call.args[0])
            axes = call.attrs.axes
            return (
                None if inner is None else inner.transpose(None if axes is None else [int(a) for a in axes])
            )
        return array_of(call)


def _scale_transposed(weight: np.ndarray, scale: np.ndarray, groups: int) -> np.ndarray:
    """Scale the output channels of IOHW weights; group g makes outputs [g * O/groups, ...)."""
    inputs, outputs, *kernel = weight.shape
    grouped = weight.reshape(groups, inputs // groups, outputs, *kernel)
    factors = np.broadcast_to(scale, (groups * outputs,)).reshape(groups, 1, outputs, *[1] * len(kernel))
    scaled: np.ndarray = (grouped * factors).reshape(weight.shape)
    return scaled


fold_scale = module_pass(_FoldScale)
