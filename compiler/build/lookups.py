"""Lookups of bytes in a table become the instruction that their schedule names.

    for lane (marked): output[lane] = table[codes[lane]]
    ->  output[0:lanes] = instruction(table, codes[0:lanes])

A shorter last vector stays a loop.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import tirx

from compiler.build.statements import function_pass, map_statements
from compiler.schedule.lookup import LOOKUP, step


@function_pass("Lookups")
def lookups(function: Any) -> Any:
    """Return `function`, whose buffers are flat, with its marked loops replaced."""
    return function.with_body(map_statements(function.body, _replace))


def _replace(stmt: Any) -> Any:
    if not isinstance(stmt, tirx.For) or LOOKUP not in stmt.annotations:
        return stmt
    store = stmt.body
    if isinstance(store, tirx.IfThenElse) and _is_true(store.condition):
        store = store.then_case
    if not isinstance(store, tirx.BufferStore):
        return stmt
    vector = _vector(store, int(stmt.extent), str(stmt.annotations[LOOKUP]))
    # Run once, which leaves the first indices.
    once = tirx.IntImm(stmt.extent.ty.dtype, 1)
    return tirx.For(stmt.loop_var, stmt.min, once, tirx.ForKind.SERIAL, vector)


def _is_true(condition: Any) -> bool:
    return isinstance(condition, tirx.IntImm) and bool(condition.value)


def _vector(store: Any, lanes: int, name: str) -> Any:
    """Return the store of all lanes for that of one, `output[i] = table[int32(uint8(codes[i]))]`."""
    looked_up = store.value
    code = looked_up.indices[0].value
    codes = code.args[0] if isinstance(code, tvm.ir.Call) else code  # signed ones are reinterpreted

    def part(start: int, count: int) -> Any:
        row = tirx.BufferLoad(looked_up.source, [tirx.Ramp(start, 1, count)])
        return _as(f"uint8x{count}", row)

    given = _as(f"uint8x{lanes}", tirx.BufferLoad(codes.source, [tirx.Ramp(codes.indices[0], 1, lanes)]))
    result = _as(f"{store.buffer.dtype}x{lanes}", step(name, part, given))
    return tirx.BufferStore(store.buffer, result, [tirx.Ramp(store.indices[0], 1, lanes)])


def _as(dtype: str, value: Any) -> Any:
    return value if str(value.ty.dtype) == dtype else tirx.reinterpret(dtype, value)
