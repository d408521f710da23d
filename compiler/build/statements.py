"""Rewriting the statements of a lowered function: TVM has mutators for them in C++ only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from tvm import tirx


def function_pass(name: str) -> Callable[[Callable[[Any], Any]], Any]:
    """Return a decorator that makes of a rewriting of one PrimFunc a TVM pass called `name`.

    What TVM's own decorator returns has no type.
    """

    def make(rewrite: Callable[[Any], Any]) -> Any:
        def run(function: Any, _mod: tvm.IRModule, _context: tvm.transform.PassContext) -> Any:
            return rewrite(function)

        return tirx.transform.prim_func_pass(run, opt_level=0, name=name)

    return make


def map_statements(stmt: Any, change: Callable[[Any], Any]) -> Any:
    """Return `stmt` with `change` applied to every statement in it, inner ones first."""
    if isinstance(stmt, tirx.SeqStmt):
        stmt = tirx.SeqStmt([map_statements(each, change) for each in stmt.seq])
    elif isinstance(stmt, tirx.For):
        body = map_statements(stmt.body, change)
        stmt = tirx.For(
            stmt.loop_var, stmt.min, stmt.extent, stmt.kind, body, stmt.thread_binding, stmt.annotations
        )
    elif isinstance(stmt, tirx.AttrStmt):
        stmt = tirx.AttrStmt(stmt.node, stmt.attr_key, stmt.value, map_statements(stmt.body, change))
    elif isinstance(stmt, tirx.IfThenElse):
        otherwise = None if stmt.else_case is None else map_statements(stmt.else_case, change)
        stmt = tirx.IfThenElse(stmt.condition, map_statements(stmt.then_case, change), otherwise)
    return change(stmt)
