"""Nested outputs, restored from `Signature.output_tree`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from compiler.support.signature import LEAF


def nest(tree: Any, leaves: Sequence[Any]) -> Any:
    """Return `leaves`, in order, nested as `tree` says."""
    return _nest(tree, iter(leaves))


def _nest(tree: Any, leaves: Iterator[Any]) -> Any:
    if tree == LEAF:
        return next(leaves)
    if tree is None:
        return None
    if isinstance(tree, list):
        return [_nest(child, leaves) for child in tree]
    if "tuple" in tree:
        return tuple(_nest(child, leaves) for child in tree["tuple"])
    if "dict" in tree:
        return {name: _nest(child, leaves) for name, child in tree["dict"].items()}
    return tree["value"]
