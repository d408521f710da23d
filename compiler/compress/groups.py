"""Operators that become one kernel: a head, and the elementwise operators after it.

    conv2d -> add(bias) -> add(shortcut) -> relu         is one group, whose head is the convolution
    matmul -> add(bias) -> x -> x * clip(x + 3) / 6      is one, too: in the end there is one value
    matmul -> add(bias) -> add(y * s)                    is one, too: s is constant, y is read from memory

Between the operators of a group values stay in registers; what a group gives lies in memory, and there it
can be bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm

from compiler.compress.operators import Kind, kind_of
from compiler.ir.graph import Graph
from compiler.ir.rewriter import is_call


@dataclass(frozen=True, eq=False)
class Group:
    """Operators that become one kernel, by the values that they give.

    `members` begin with the head and end with the output. `inputs` are the values that the head reads, `side`
    those from memory that the others read; constants are in neither.
    """

    kind: Kind
    members: tuple[Any, ...]
    inputs: tuple[Any, ...]
    side: tuple[Any, ...]

    @property
    def head(self) -> Any:
        """The value that the head gives."""
        return self.members[0]

    @property
    def output(self) -> Any:
        """The value that the group gives."""
        return self.members[-1]


def find_groups(graph: Graph) -> list[Group]:
    """Return the groups of a graph, in the order of their heads; each value belongs to one."""
    order = {var: number for number, var in enumerate(graph.values)}
    taken: set[Any] = set()
    groups = []
    for var in graph.values:
        if var in taken:
            continue
        kind = _kind(graph, var)
        # What moves bytes gives the bytes that it took, and nothing that is computed from them.
        members = (var,) if kind is Kind.MOVE else _grown(graph, var, taken, order)
        members = (var, *_scaled(graph, members, taken), *members[1:])
        taken.update(members)
        inputs = _variables(graph, var)
        side = [v for m in members[1:] for v in _variables(graph, m) if v not in members]
        groups.append(Group(kind, members, tuple(inputs), tuple(dict.fromkeys(side))))
    return groups


def _grown(graph: Graph, head: Any, taken: set[Any], order: dict[Any, int]) -> tuple[Any, ...]:
    """Return `head` and the elementwise operators after it, up to the last one that all others lead to.

    While several values are read from outside, what was added is kept only if a later operator joins them.
    """
    members, inside, best = [head], {head}, 1
    outputs = set(graph.outputs)
    waiting: list[int] = []
    # What is read from memory can only be the last.
    while all(_joins(graph, reader, taken) for reader in graph.readers(members[-1])):
        if members[-1] in outputs:
            break
        waiting += [order[reader] for reader in graph.readers(members[-1]) if order[reader] not in waiting]
        if not waiting:
            break
        waiting.sort()
        members.append(graph.values[waiting.pop(0)])
        inside.add(members[-1])
        if all(reader in inside for member in members[:-1] for reader in graph.readers(member)):
            best = len(members)
    return tuple(members[:best])


def _scaled(graph: Graph, members: tuple[Any, ...], taken: set[Any]) -> list[Any]:
    """Return what `members` alone read that is a value from memory times a constant: scaled as it is read."""
    read = [var for member in members[1:] for var in _variables(graph, member)]
    return [
        var
        for var in dict.fromkeys(read)
        if var not in members
        and is_call(graph.definition(var), "relax.multiply")
        and any(isinstance(operand, tvm.ir.GenericConst) for operand in graph.operands(var))
        and len(graph.readers(var)) == 1
        and var not in graph.outputs
        and var not in taken
    ]


def _kind(graph: Graph, var: Any) -> Kind:
    kind = kind_of(graph.definition(var))
    # A constant among what is joined is no bytes yet: the result gets a grid of its own.
    constants = any(isinstance(operand, tvm.ir.GenericConst) for operand in graph.operands(var))
    return Kind.MEAN if kind is Kind.MOVE and constants else kind


def _joins(graph: Graph, var: Any, taken: set[Any]) -> bool:
    """Tell whether `var` is computed element by element, as float32, and belongs to no group yet."""
    if var in taken or str(getattr(var.ty, "dtype", "")) != "float32":
        return False
    return kind_of(graph.definition(var)) is Kind.ELEMENTWISE


def _variables(graph: Graph, var: Any) -> list[Any]:
    return list(dict.fromkeys(v for v in graph.operands(var) if isinstance(v, tvm.ir.Var)))
