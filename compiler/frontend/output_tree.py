"""Names of nested outputs, and how they nest."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch.utils._pytree as pytree

from compiler.support.signature import LEAF


@dataclasses.dataclass(frozen=True)
class _Leaf:
    index: int


def name_outputs(spec: Any, tensors: Sequence[bool], values: Sequence[Any]) -> tuple[list[str], Any]:
    """Name the tensors among the leaves of an output tree, and describe the tree.

    `spec` is torch's TreeSpec, `tensors` says which leaves are tensors, `values` holds the leaves. Returns
    the names (dict keys and field names joined by ``_``; ``output_0`` ... where there are none) and
    `Signature.output_tree`.
    """
    whole = pytree.tree_unflatten([_Leaf(i) for i in range(spec.num_leaves)], spec)
    names: dict[int, str] = {}
    for path, leaf in _walk(whole, ()):
        if tensors[leaf.index]:
            named = any(isinstance(step, str) for step in path)
            text = "_".join(map(str, path)) if named else f"output_{len(names)}"
            names[leaf.index] = _unused(text, names.values())
    return [names[i] for i in sorted(names)], _describe(whole, tensors, values)


def _children(value: Any) -> list[tuple[str | int, Any]]:
    """Give the children of a container by key, field name or position."""
    if isinstance(value, Mapping):
        return [(str(key), child) for key, child in value.items()]
    if dataclasses.is_dataclass(value) and not isinstance(value, (_Leaf, type)):
        fields = [field.name for field in dataclasses.fields(value)]
        return [(name, getattr(value, name)) for name in fields if getattr(value, name) is not None]
    if hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, (tuple, list)):
        return list(enumerate(value))
    leaves, _ = pytree.tree_flatten(value)
    return list(enumerate(leaves))


def _walk(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], _Leaf]]:
    if isinstance(value, _Leaf):
        yield path, value
    elif value is not None:
        for key, child in _children(value):
            yield from _walk(child, (*path, key))


def _describe(value: Any, tensors: Sequence[bool], values: Sequence[Any]) -> Any:
    if value is None:
        return None
    if isinstance(value, _Leaf):
        return LEAF if tensors[value.index] else _constant(values[value.index])
    children = [(key, _describe(child, tensors, values)) for key, child in _children(value)]
    if isinstance(value, Mapping) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        return {"dict": dict(children)}
    items = [child for _, child in children]
    return items if isinstance(value, list) else {"tuple": items}


def _constant(value: Any) -> Any:
    """Describe an output that is a Python value: None as null, others as ``{"value": ...}``."""
    return (
        None
        if value is None
        else {"value": value if isinstance(value, (bool, int, float, str)) else str(value)}
    )


def _unused(text: str, taken: Any) -> str:
    known, name, count = set(taken), text, 1
    while name in known:
        name, count = f"{text}_{count}", count + 1
    return name
