"""The plan of a quantized graph: which layers are quantized, which values become bytes, what stays in float.

A value becomes bytes (or 16-bit floats) if a quantized layer reads it, or an operator that can work on bytes
reads it on the way to one. The last layer's output is read by none, so it stays in float. Operators that only
move bytes give values of the grid that they took, so no bytes are ever computed anew for them; all parts of a
concatenation share one grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tvm_ffi import structural_equal

from compiler.compress.groups import Group, find_groups
from compiler.compress.operators import LAYERS, Kind, why_no_layer
from compiler.frontend.layer_names import LayerName
from compiler.ir.graph import Graph
from compiler.ir.rewriter import is_call


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution or matrix product with constant weights, and the elementwise operators after it."""

    name: str
    group: Group

    @property
    def var(self) -> Any:
        """The value that the layer gives, before bias and activation."""
        return self.group.head

    @property
    def data(self) -> Any:
        """The activation that it reads."""
        return self.group.inputs[0]


@dataclass(frozen=True)
class InFloat:
    """An operator that computes in float, and why: `name` of the value that it gives, `operator` of Relax."""

    name: str
    operator: str
    reason: str

    @property
    def is_layer(self) -> bool:
        """Whether it multiplies by weights, or might."""
        return not {f"relax.{self.operator}", f"relax.nn.{self.operator}"}.isdisjoint(LAYERS)


@dataclass(frozen=True, eq=False)
class Plan:
    """What is quantized.

    Attributes:
        layers: those that are quantized, in order.
        bytes: the values that become bytes, in order, each with the one that stands for all of its grid.
            Empty where layers alone round what they read, or nothing does.
        observed: for each grid, the values that its range has to hold.
        floats: what stays in float.
    """

    layers: tuple[Layer, ...]
    bytes: Mapping[Any, Any]
    observed: Mapping[Any, tuple[Any, ...]]
    floats: tuple[InFloat, ...]


class Structure:
    """What does not depend on which layers are quantized: groups, layers and names."""

    def __init__(self, graph: Graph, names: Sequence[LayerName] = ()) -> None:
        """Look at `graph`; `names` are those of the layers in what it was imported from."""
        self.graph = graph
        self.groups = find_groups(graph)
        self._consumers: dict[Any, list[Group]] = {}
        for group in self.groups:
            for var in (*group.inputs, *group.side):
                self._consumers.setdefault(var, []).append(group)
        layers = [group for group in self.groups if group.kind is Kind.LAYER]
        operators = [self._operator(group) for group in layers]
        # The same layers in the same order, or else they cannot be told apart.
        same = [name.convolves for name in names] == [word.startswith("conv") for word in operators]
        known = [name.name for name in names] if same else _numbered(operators)
        self.layers = tuple(Layer(name, group) for name, group in zip(known, layers, strict=True))
        self.names = self._named()

    def plan(self, reasons: Mapping[str, str], *, stored: bool = True) -> Plan:
        """Return the plan that quantizes all layers but those named in `reasons`, which say why not.

        `stored` says whether what layers read is stored as bytes, or else stays in float between them.
        """
        layers = tuple(layer for layer in self.layers if layer.name not in reasons)
        wanted = self._wanted({layer.var for layer in layers}) if stored else set()
        values = [var for var in (*self.graph.inputs, *self.graph.values) if var in wanted]
        grids = self._grids(values)
        observed: dict[Any, list[Any]] = {}
        moved = {group.output for group in self.groups if group.kind is Kind.MOVE}
        for var in values:
            if var not in moved:
                observed.setdefault(grids[var], []).append(var)
        floats = self._floats(wanted, {layer.var for layer in layers}, reasons)
        if not stored:
            # All other operators do, by the scheme: the report need not repeat it for each.
            floats = tuple(each for each in floats if each.is_layer)
        return Plan(layers, grids, {k: tuple(v) for k, v in observed.items()}, floats)

    @cached_property
    def first(self) -> tuple[Layer, ...]:
        """The layers that read an input of the network, as it is or moved."""
        near = set(self.graph.inputs)
        for group in self.groups:
            if group.kind is Kind.MOVE and near.intersection(group.inputs):
                near.add(group.output)
        return tuple(layer for layer in self.layers if layer.data in near)

    @cached_property
    def last(self) -> tuple[Layer, ...]:
        """The layers that no other layer follows."""
        followed: set[Any] = set()
        last = []
        by_output = {group.output: group for group in self.groups}
        for group in (by_output[var] for var in reversed(self.graph.values) if var in by_output):
            reads = {*group.inputs, *group.side}
            if group.kind is Kind.LAYER and group.output not in followed:
                last.append(group)
            if group.kind is Kind.LAYER or group.output in followed:
                followed |= reads
        return tuple(layer for layer in self.layers if layer.group in last)

    def _wanted(self, layers: set[Any]) -> set[Any]:
        """Return the values that should be bytes when the layers that give `layers` are quantized."""
        wanted: set[Any] = set()
        for var in reversed([*self.graph.inputs, *self.graph.values]):
            if str(getattr(var.ty, "dtype", "")) != "float32":
                continue
            if any(self._demands(group, var, layers, wanted) for group in self._consumers.get(var, ())):
                wanted.add(var)
        return wanted

    def _demands(self, group: Group, var: Any, layers: set[Any], wanted: set[Any]) -> bool:
        """Tell whether `group` reads `var` as bytes."""
        if group.head in layers and var in group.inputs:
            return True
        if group.output not in wanted:
            return False
        if group.kind in (Kind.MOVE, Kind.MEAN) and var in group.inputs:
            return True
        added = var in group.side or group.kind is Kind.ELEMENTWISE
        return added and not _is_broadcast(var, group.output)

    def _grids(self, values: list[Any]) -> dict[Any, Any]:
        """Return for each value the one that stands for all that share its grid."""
        parent = {var: var for var in values}

        def root(var: Any) -> Any:
            while parent[var] is not var:
                var = parent[var]
            return var

        for group in self.groups:
            if group.kind is Kind.MOVE and group.output in parent:
                for var in group.inputs:
                    parent[root(var)] = root(group.output)
        return {var: root(var) for var in values}

    def _floats(self, wanted: set[Any], layers: set[Any], reasons: Mapping[str, str]) -> tuple[InFloat, ...]:
        """Return the operators that read or give activations in float."""
        names = {layer.var: layer.name for layer in self.layers}
        found = []
        for group in self.groups:
            reason = ""
            if group.kind is Kind.LAYER and group.head not in layers:
                reason = reasons[names[group.head]]
            elif group.kind is Kind.OTHER and str(getattr(group.head.ty, "dtype", "")) == "float32":
                call = self.graph.definition(group.head)
                reason = why_no_layer(call) if is_call(call, *LAYERS) else "it has no integer form"
            elif group.kind is not Kind.LAYER and self._in_float(group, wanted):
                reason = "nothing that reads it works on bytes"
            if reason:
                found.append(InFloat(self.names[group.output], self._operator(group), reason))
        return tuple(found)

    def _in_float(self, group: Group, wanted: set[Any]) -> bool:
        if str(getattr(group.output.ty, "dtype", "")) != "float32":
            return False
        return not any(var in wanted for var in group.inputs) and group.output not in wanted

    def _operator(self, group: Group) -> str:
        call = self.graph.definition(group.head)
        name = getattr(getattr(call, "op", None), "name", "") or type(call).__name__
        return str(name).removeprefix("relax.").removeprefix("nn.")

    def _named(self) -> dict[Any, str]:
        """Return a name for each value: of what a layer's group gives, the layer's; else its operator's."""
        names = {var: str(var.name) for var in self.graph.inputs}
        layers = {layer.var: layer.name for layer in self.layers}
        rest = [group for group in self.groups if group.head not in layers]
        numbered = _numbered(self._operator(group) for group in rest)
        for group, name in zip(rest, numbered, strict=True):
            names[group.output] = name
        for layer in self.layers:
            names[layer.group.output] = layer.name
        return names


def _is_broadcast(var: Any, output: Any) -> bool:
    """Tell whether `var` is read once for many values of `output`, as a gate is: not worth a grid."""
    shapes = [getattr(each.ty, "shape", None) for each in (var, output)]
    return not structural_equal(*shapes)


def _numbered(words: Iterable[str]) -> list[str]:
    """Return the words, each with its number among those that are alike: ``conv2d_0``, ``conv2d_1``."""
    seen: dict[str, int] = {}
    numbered = []
    for word in words:
        seen[word] = seen.get(word, -1) + 1
        numbered.append(f"{word}_{seen[word]}")
    return numbered
