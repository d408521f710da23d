"""Padding skipped instead of added: sums and maxima over what stands for the outside of an image.

    acc = acc + if_then_else(inside, x, 0) * w        if inside:
    ...                                         ->        acc = acc + x * w
                                                          ...

Statements in a row with the same condition share one branch, which moves out of the loops that it does not
depend on. Loop partitioning has made the condition of the columns constant by then; what is left is that of
the row, which one branch decides for a whole tile.
"""

from __future__ import annotations

import math
from itertools import groupby
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import tirx

from compiler.build.statements import function_pass, map_statements


def _guarded(stmt: Any) -> tuple[Any, Any] | None:
    """Return the condition of an update and the update without it, or None for anything else.

    Updates are acc + x * w, acc + x, and max(acc, x), where x is 0, or the least number, unless the condition
    holds.
    """
    if not isinstance(stmt, tirx.BufferStore) or not isinstance(stmt.value, (tirx.Add, tirx.Max)):
        return None
    kind, before, added = type(stmt.value), stmt.value.a, stmt.value.b
    factor = added.a if isinstance(added, tirx.Mul) else added
    choice = factor.value if isinstance(factor, tirx.Broadcast) else factor
    if not isinstance(choice, tvm.ir.Call) or getattr(choice.op, "name", "") != "prim.if_then_else":
        return None
    condition, value, otherwise = choice.args
    if not (_is_least(otherwise) if kind is tirx.Max else _is(otherwise, 0)):
        return None
    if isinstance(factor, tirx.Broadcast):
        value = tirx.Broadcast(value, factor.lanes)
    if isinstance(added, tirx.Mul):
        value = value * added.b
    return condition, tirx.BufferStore(stmt.buffer, kind(before, value), stmt.indices)


def _is(value: Any, number: float) -> bool:
    if isinstance(value, tirx.Broadcast):
        value = value.value
    return isinstance(value, (tirx.FloatImm, tirx.IntImm)) and value.value == number


def _is_least(value: Any) -> bool:
    """Tell whether `value` is the least of its dtype."""
    dtype = str(value.ty.dtype).split("x")[0]
    return _is(value, -math.inf if "float" in dtype else int(np.iinfo(dtype).min))


_Branch = tuple[Any, Any, Any]
"""A condition, what to do where it holds, and what else, or None."""


def _as_branch(stmt: Any) -> _Branch | None:
    if isinstance(stmt, tirx.IfThenElse):
        return stmt.condition, stmt.then_case, stmt.else_case
    guarded = _guarded(stmt)
    return None if guarded is None else (*guarded, None)


def _branch(stmt: Any) -> Any:
    """Return the sequence `stmt` with its guarded updates under branches, one for each condition in a row."""
    if not isinstance(stmt, tirx.SeqStmt):
        return stmt
    conditions: list[Any] = []

    def number(branch: _Branch | None) -> int:
        if branch is None:
            return -1
        for index, known in enumerate(conditions):
            if tvm_ffi.structural_equal(known, branch[0]):
                return index
        conditions.append(branch[0])
        return len(conditions) - 1

    pairs = [(each, _as_branch(each)) for each in stmt.seq]
    result: list[Any] = []
    for index, run in groupby(pairs, key=lambda pair: number(pair[1])):
        if index < 0:
            result += [each for each, _ in run]
            continue
        branches = [branch for _, branch in run if branch is not None]
        otherwise = [branch[2] for branch in branches if branch[2] is not None]
        held = tirx.stmt_seq(*(branch[1] for branch in branches))
        result.append(
            tirx.IfThenElse(conditions[index], held, tirx.stmt_seq(*otherwise) if otherwise else None)
        )
    return tirx.stmt_seq(*result)


def _hoist(stmt: Any) -> Any:
    """Move a branch out of the loop `stmt` if it is all of the loop and decided outside of it."""
    if not isinstance(stmt, tirx.For) or not isinstance(stmt.body, tirx.IfThenElse):
        return stmt
    branch = stmt.body
    used = tirx.analysis.undefined_vars(branch.condition, [])
    if any(var.same_as(stmt.loop_var) for var in used) or branch.else_case is not None:
        return stmt

    def loop(body: Any) -> Any:
        return tirx.For(
            stmt.loop_var, stmt.min, stmt.extent, stmt.kind, body, stmt.thread_binding, stmt.annotations
        )

    return tirx.IfThenElse(branch.condition, loop(branch.then_case), None)


@function_pass("SkipPadding")
def skip_padding(function: Any) -> Any:
    """Return `function`, lowered and with its loops unrolled, with guarded updates under branches."""
    return function.with_body(map_statements(function.body, lambda stmt: _hoist(_branch(stmt))))
