"""Cross-layer equalization: channels between two layers are scaled for like ranges of weights on both sides.

    w2 relu(w1 x + b1)  =  (w2 s) relu((w1 / s) x + b1 / s),    s = sqrt(max |w1| / max |w2|) a channel

(Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, 4.1.) It
computes the same in float. Where all weights of a layer share a scale, the channels of depthwise
convolutions, whose ranges differ by orders of magnitude, would else lose most of their codes. A ReLU6 becomes
a ReLU and a minimum with 6 / s, which keeps it exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tvm import relax

from compiler.compress.operators import CONVOLUTIONS
from compiler.compress.plan import Layer, Structure
from compiler.frontend.model import Model
from compiler.ir.constants import array_of, channel_vector, constant
from compiler.ir.graph import Graph
from compiler.ir.rewriter import Rewriter, is_call

_ROUNDS = 20
_MOST = 1e4
"""A channel is scaled by no more: one that is nearly dead would else become all that matters."""

_KEEPING = ("relax.nn.relu", "relax.nn.leakyrelu", "relax.nn.relu6", "relax.clip")
_BETWEEN = ("relax.nn.pad", "relax.nn.max_pool1d", "relax.nn.max_pool2d", "relax.nn.max_pool3d")


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two layers such that the second alone reads what the first gives, channel by channel."""

    first: Layer
    second: Layer


def equalize(model: Model) -> Model:
    """Return `model` with equalized layers, where it has such."""
    structure = Structure(Graph(model.mod))
    pairs = list(_pairs(structure))
    if not pairs:
        return model
    scales = _scales(structure, pairs)
    return replace(model, mod=_Equalize(structure, pairs, scales).run(model.mod))


def _pairs(structure: Structure) -> Iterator[_Pair]:
    """Yield the pairs of layers that can be equalized."""
    by_data: dict[Any, list[Layer]] = {}
    for layer in structure.layers:
        by_data.setdefault(layer.data, []).append(layer)
    for layer in structure.layers:
        if not all(_scales_along(structure.graph, layer, member) for member in layer.group.members[1:]):
            continue
        end = _followed(structure.graph, layer.group.output)
        readers = by_data.get(end, [])
        if layer.group.side or len(readers) != 1 or len(structure.graph.readers(end)) != 1:
            continue
        if end not in structure.graph.outputs and _channels_in(structure.graph, readers[0]) is not None:
            yield _Pair(layer, readers[0])


def _followed(graph: Graph, var: Any) -> Any:
    """Return what becomes of a value that is only padded or pooled."""
    while len(graph.readers(var)) == 1 and var not in graph.outputs:
        reader = graph.readers(var)[0]
        if not is_call(graph.definition(reader), *_BETWEEN):
            break
        var = reader
    return var


def _scales_along(graph: Graph, layer: Layer, member: Any) -> bool:
    """Tell whether an operator after a layer gives s times as much, channel by channel, if it takes so."""
    call = graph.definition(member)
    if is_call(call, "relax.clip"):
        return float(call.args[1].value) == 0
    return is_call(call, *_KEEPING) or _bias(graph, layer, member) is not None


def _bias(graph: Graph, layer: Layer, member: Any) -> tuple[int, np.ndarray] | None:
    """Return which operand of an addition after `layer` is a constant along its channels, and its values."""
    call = graph.definition(member)
    if is_call(call, "relax.add"):
        for position, operand in enumerate(call.args):
            value = array_of(operand)
            rank = int(member.ty.ndim)
            if value is not None and channel_vector(value, rank, _axis(graph, layer)) is not None:
                return position, value
    return None


def _axis(graph: Graph, layer: Layer) -> int:
    """Return the axis of channels of what a layer gives."""
    return int(layer.var.ty.ndim) - 1 if is_call(graph.definition(layer.var), "relax.matmul") else 1


def _weights(graph: Graph, layer: Layer) -> np.ndarray:
    values = array_of(graph.definition(layer.var).args[1])
    assert values is not None
    return values


def _channels_out(graph: Graph, layer: Layer) -> int | None:
    """Return the axis of the weights along which a layer's outputs lie; None where groups hide it."""
    call = graph.definition(layer.var)
    if is_call(call, "relax.matmul"):
        return 1
    return 0 if is_call(call, *CONVOLUTIONS) else None


def _channels_in(graph: Graph, layer: Layer) -> int | None:
    """Return the axis of the weights along which a layer's inputs lie; None where groups hide it."""
    call = graph.definition(layer.var)
    if is_call(call, "relax.matmul"):
        return 0
    if not is_call(call, *CONVOLUTIONS):
        return None
    groups, shape = int(call.attrs.groups), _weights(graph, layer).shape
    if groups == 1:
        return 1
    return 0 if groups == shape[0] and shape[1] == 1 else None


def _scales(structure: Structure, pairs: list[_Pair]) -> dict[Any, np.ndarray]:
    """Return what the channels between two layers are divided by, by the value that the first gives."""
    graph = structure.graph
    weights = {layer.var: np.abs(_weights(graph, layer)).astype(np.float64) for layer in structure.layers}
    scales = {}
    for pair in pairs:
        axis = _channels_out(graph, pair.first) or 0
        scales[pair.first.var] = np.ones(weights[pair.first.var].shape[axis])
    # A layer in the middle of two pairs changes with both.
    for _ in range(_ROUNDS):
        for pair in pairs:
            first, second = weights[pair.first.var], weights[pair.second.var]
            out, into = _channels_out(graph, pair.first), _channels_in(graph, pair.second)
            assert out is not None
            assert into is not None
            ranges = _greatest(first, out), _greatest(second, into)
            usable = (ranges[0] > 0) & (ranges[1] > 0)
            step = np.sqrt(np.where(usable, ranges[0], 1) / np.where(usable, ranges[1], 1))
            total = np.clip(scales[pair.first.var] * step, 1 / _MOST, _MOST)
            step = total / scales[pair.first.var]
            scales[pair.first.var] = total
            weights[pair.first.var] = first / _along(step, first.ndim, out)
            weights[pair.second.var] = second * _along(step, second.ndim, into)
    return scales


def _greatest(values: np.ndarray, axis: int) -> np.ndarray:
    return np.asarray(values.max(axis=tuple(i for i in range(values.ndim) if i != axis)))


def _along(vector: np.ndarray, rank: int, axis: int) -> np.ndarray:
    """Return `vector` in the shape that broadcasts along `axis` of a tensor of `rank` dims."""
    return vector.reshape([-1 if i == axis else 1 for i in range(rank)])


class _Equalize(Rewriter):
    name = "Equalize"

    def __init__(self, structure: Structure, pairs: list[_Pair], scales: Mapping[Any, np.ndarray]) -> None:
        super().__init__()
        self._graph = structure.graph
        self._first = {pair.first.var: pair.first for pair in pairs}
        self._second = {pair.second.var: pair for pair in pairs}
        self._tails = {member: pair.first for pair in pairs for member in pair.first.group.members[1:]}
        self._scales = scales

    def rewrite(self, expr: Any) -> Any:
        if self.old_var in self._first or self.old_var in self._second:
            return self._layer(expr)
        return self._tail(expr, self._tails[self.old_var]) if self.old_var in self._tails else expr

    def _layer(self, call: Any) -> Any:
        var, weight = self.old_var, array_of(call.args[1])
        assert weight is not None
        scaled = weight.astype(np.float64)
        if var in self._first:
            axis = _channels_out(self._graph, self._first[var])
            assert axis is not None
            scaled = scaled / _along(self._scales[var], scaled.ndim, axis)
        if var in self._second:
            pair = self._second[var]
            axis = _channels_in(self._graph, pair.second)
            assert axis is not None
            scaled = scaled * _along(self._scales[pair.first.var], scaled.ndim, axis)
        return relax.Call(call.op, [call.args[0], constant(scaled.astype(weight.dtype))], call.attrs)

    def _tail(self, call: Any, layer: Layer) -> Any:
        rank, axis = int(self.old_var.ty.ndim), _axis(self._graph, layer)
        scale = _along(self._scales[layer.var], rank, axis)
        bias = _bias(self._graph, layer, self.old_var)
        if bias is not None:
            position, value = bias
            added = constant((np.broadcast_to(value, scale.shape) / scale).astype(value.dtype))
            return relax.op.add(call.args[1 - position], added)
        if is_call(call, "relax.clip", "relax.nn.relu6"):
            most = float(call.args[2].value) if is_call(call, "relax.clip") else 6.0
            positive = self.emit(relax.op.nn.relu(call.args[0]))
            return relax.op.minimum(positive, constant((most / scale).astype(np.float32)))
        return call
