"""Calls of a graph that are no tensor operators: arithmetic on sizes, checks, and picking an output."""

from __future__ import annotations

from typing import Any

from torch import SymInt

from compiler.frontend.converters.registry import REGISTRY
from compiler.frontend.converters.symbols import dim_of


def _size(node: Any, importer: Any) -> Any:
    """Give an integer the graph computes (a size, or arithmetic on sizes) as a dimension."""
    value = node.meta["val"]
    # A float made of sizes is only a problem where a converter uses it.
    return dim_of(value, importer) if isinstance(value, (SymInt, int)) else value


for _name in (
    "sym_size.int",
    "sym_numel.default",
    "add",
    "sub",
    "mul",
    "floordiv",
    "mod",
    "neg",
    "pow",
    "sym_max",
    "sym_min",
    "sym_int",
    "truediv",
    "sym_float",
    "sym_ite",
    "round",
    "floor",
    "ceil",
    "trunc",
):
    REGISTRY[_name] = _size


def _assertion(node: Any, importer: Any) -> None:
    """Drop a check on sizes; the compiled function checks its input shapes itself."""


for _name in (
    "_assert_scalar.default",
    "sym_constrain_range_for_size.default",
    "sym_constrain_range.default",
    "_assert_tensor_metadata.default",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "and_",
    "or_",
    "not_",
    "_assert_async.msg",
    "_assert_async.default",
    "sym_not",
):
    REGISTRY[_name] = _assertion


def _getitem(node: Any, importer: Any) -> Any:
    """Take one output of an operator that has several."""
    return importer.env[node.args[0]][node.args[1]]


REGISTRY["getitem"] = _getitem
