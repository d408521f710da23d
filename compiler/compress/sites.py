"""Where channels can be balanced: values that matrix products read, and whose channels can be changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax

from compiler.compress.operators import Kind, kind_of
from compiler.compress.plan import Layer, Structure
from compiler.ir.constants import array_of, channel_vector
from compiler.ir.graph import Graph
from compiler.ir.rewriter import is_call

_NORMS = ("relax.nn.layer_norm", "relax.nn.rms_norm")


@dataclass(frozen=True, eq=False)
class Site:
    """A value whose channels, its last axis, can be balanced.

    Attributes:
        var: what a norm gives, or what a layer's group of operators does.
        layers: the matrix products that read it, perhaps moved, but channels still last.
        source: the layer whose channels can be repeated; None behind a norm.
        others: what else reads the value behind a norm, as it was.
    """

    var: Any
    layers: tuple[Layer, ...]
    source: Layer | None = None
    others: tuple[Any, ...] = ()


def find_sites(structure: Structure, layers: Sequence[Layer]) -> list[Site]:
    """Return what can be balanced for one of `layers`, which are to be quantized with scales from data."""
    graph, wanted = structure.graph, {layer.var for layer in layers}
    sources = {layer.group.output: layer for layer in structure.layers}
    readers: dict[Any, list[Layer]] = {}
    for layer in structure.layers:
        readers.setdefault(layer.data, []).append(layer)
    found = []
    for var in graph.values:
        if var in graph.outputs or _channels(var) is None:
            continue
        read, others = _reading(graph, var, readers)
        if not wanted.intersection(layer.var for layer in read):
            continue
        if is_call(graph.definition(var), *_NORMS):
            if _is_plain(graph.definition(var)) and all(_can_scale(graph, other) for other in others):
                found.append(Site(var, tuple(read), others=tuple(others)))
        elif var in sources and not others and _can_repeat(graph, sources[var]):
            found.append(Site(var, tuple(read), sources[var]))
    return found


def between(graph: Graph, var: Any, source: Any) -> Iterator[Any]:
    """Yield the moved forms of `source` on the way to `var`."""
    while not var.same_as(source):
        yield var
        call = graph.definition(var)
        var = call if isinstance(call, tvm.ir.Var) else graph.operands(var)[0]


def _channels(var: Any) -> int | None:
    """Return the extent of the last axis of a value of float32, None where it is not known."""
    shape = getattr(var.ty, "shape", None)
    if str(getattr(var.ty, "dtype", "")) != "float32" or not isinstance(shape, relax.ShapeExpr):
        return None
    last = shape.values[-1] if len(shape.values) else None
    return int(last.value) if isinstance(last, tvm.tirx.IntImm) else None


def _reading(graph: Graph, var: Any, readers: Mapping[Any, list[Layer]]) -> tuple[list[Layer], list[Any]]:
    """Return the matrix products that read a value, perhaps moved, and the values that others make of it."""
    layers = [layer for layer in readers.get(var, ()) if is_call(graph.definition(layer.var), "relax.matmul")]
    known, others = {layer.var for layer in layers}, []
    for reader in graph.readers(var):
        if reader in known:
            continue
        more: tuple[list[Layer], list[Any]] = ([], [reader])
        if reader not in graph.outputs and _keeps_channels(graph, reader, var):
            more = _reading(graph, reader, readers)
        if more[1] or not more[0]:
            others.append(reader)
        else:
            layers += more[0]
    return layers, others


def _keeps_channels(graph: Graph, var: Any, source: Any) -> bool:
    """Tell whether `var` is `source` moved such that each last axis is whole, in its order."""
    call = graph.definition(var)
    if isinstance(call, tvm.ir.Var):
        return True
    if _channels(var) is None or _channels(var) != _channels(source):
        return False
    if is_call(call, "relax.permute_dims"):
        rank = int(var.ty.ndim)
        axes = [int(axis) for axis in call.attrs.axes] if call.attrs.axes is not None else []
        return bool(axes) and axes[-1] % rank == rank - 1
    return is_call(call, "relax.reshape", "relax.expand_dims")


def _is_plain(call: Any) -> bool:
    """Tell whether a norm is over the last axis alone, with constant parameters."""
    axes, rank = [int(axis) for axis in call.attrs.axes], int(call.args[0].ty.ndim)
    parameters = [array_of(argument) for argument in call.args[1:]]
    return [axis % rank for axis in axes] == [rank - 1] and all(
        each is not None and each.ndim == 1 and each.dtype == np.float32 for each in parameters
    )


def _can_scale(graph: Graph, var: Any) -> bool:
    """Tell whether what reads a norm can multiply it as it does so."""
    return kind_of(graph.definition(var)) is Kind.ELEMENTWISE


def _can_repeat(graph: Graph, layer: Layer) -> bool:
    """Tell whether all of a layer's group works on each channel alone, and none is read from memory."""
    group = layer.group
    if not is_call(graph.definition(layer.var), "relax.matmul") or group.side:
        return False
    if any(member in graph.outputs for member in group.members):
        return False
    count = _channels(layer.var)
    return count is not None and all(
        int(member.ty.ndim) == int(layer.var.ty.ndim) and _along_channels(graph, member, count)
        for member in group.members[1:]
    )


def _along_channels(graph: Graph, member: Any, count: int) -> bool:
    """Tell whether the constants of an operator are alike for all channels, or one for each."""
    rank = int(member.ty.ndim)
    for operand in graph.operands(member):
        value = array_of(operand)
        if value is None:
            continue
        vector = channel_vector(value, rank, rank - 1)
        if vector is None or vector.size not in (1, count):
            return False
    return True
