"""One error for everything in a model that cannot be imported."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compiler.frontend.location import Location, locate_node
from compiler.support.errors import ModelError

_PLACES = 3
"""How many places of one operator are shown."""


@dataclass(frozen=True)
class Trouble:
    """An operator at one place that cannot be imported, and why."""

    operator: str
    reason: str
    location: Location


def find_unsupported(
    nodes: Collection[Any], known: Collection[str], refused: Mapping[str, str]
) -> list[Trouble]:
    """List the calls among `nodes` whose operator is refused or in no table of converters."""
    troubles = []
    for node in nodes:
        if node.op != "call_function":
            continue
        name = node.target.__name__
        if name in known:
            continue
        troubles.append(Trouble(operator_name(node), _reason(name, refused), locate_node(node)))
    return troubles


def _reason(name: str, refused: Mapping[str, str]) -> str:
    if name in refused:
        return refused[name]
    if "batch_norm" in name:
        return (
            "it is a batch norm on the statistics of the batch (training mode); "
            "export the model in eval() mode with running statistics, or use a GroupNorm"
        )
    return (
        "Kiln has no converter for it; write it with other torch operators, leave it out of the model, "
        "or pass converters={'" + name + "': function(node, importer)}"
    )


def operator_name(node: Any) -> str:
    """Name the operator of a call: ``aten.nonzero.default``, or a Python function's own name."""
    return str(node.target) if hasattr(node.target, "_schema") else node.target.__name__


def unsupported_error(troubles: Sequence[Trouble], origin: str) -> ModelError:
    """Make one error of all `troubles`: each operator, how often, where, and what to do."""
    groups: dict[tuple[str, str], list[Location]] = {}
    for trouble in troubles:
        groups.setdefault((trouble.operator, trouble.reason), []).append(trouble.location)
    operators = len({operator for operator, _ in groups})
    lines = [f"{operators} operator{'s' if operators > 1 else ''} of {origin} cannot be imported:"]
    for (operator, reason), places in sorted(groups.items(), key=lambda item: -len(item[1])):
        lines.append(f"  {operator}, {len(places)} time{'s' if len(places) > 1 else ''}: {reason}")
        distinct = list(dict.fromkeys(map(str, places)))
        lines += [f"    in {place}" for place in distinct[:_PLACES]]
        if len(distinct) > _PLACES:
            lines.append(f"    and in {len(distinct) - _PLACES} more places")
    return ModelError("\n".join(lines))
