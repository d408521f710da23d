"""Dot products of four bytes or two short floats become the instruction that their schedule names.

    for lane (marked): for k in 4: acc[lane] = acc[lane] + int32(x[k]) * int32(w[lane, k])
    ->  acc[0:lanes] = instruction(acc[0:lanes], x[0:4], w[0:lanes, 0:4])

and, for depthwise layers, products of lanes of their own.

Not one of TVM's tensor intrinsics: these cannot stand for a tile whose last rows are tested.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from tvm import tirx
from tvm.ir import StringImm

from compiler.build.statements import function_pass, map_statements
from compiler.passes.kernels.narrow import parts_of
from compiler.schedule.dot_product import BYTE_PRODUCT, DOT_PRODUCT, HELPERS, product_step, step


@function_pass("DotProducts")
def dot_products(function: Any) -> Any:
    """Return `function`, whose buffers are flat, with its marked loops replaced."""
    used: set[str] = set()

    def replace(stmt: Any) -> Any:
        if isinstance(stmt, tirx.For) and DOT_PRODUCT in stmt.annotations:
            used.add(str(stmt.annotations[DOT_PRODUCT]))
        return _replace(stmt)

    body = map_statements(function.body, replace)
    for name in used & HELPERS.keys():
        body = tirx.AttrStmt(tirx.IntImm("int32", 0), "pragma_import_llvm", StringImm(HELPERS[name]), body)
    return function.with_body(body)


def _replace(stmt: Any) -> Any:
    if not isinstance(stmt, tirx.For) or not {DOT_PRODUCT, BYTE_PRODUCT} & set(stmt.annotations):
        return stmt
    lanes = int(stmt.extent)
    if BYTE_PRODUCT in stmt.annotations:
        alone = str(stmt.annotations[BYTE_PRODUCT])
        return _once(stmt, lambda store: _products(store, lanes, alone))
    name = str(stmt.annotations[DOT_PRODUCT])
    return _once(stmt, lambda store: _whole(store, lanes, name))


def _once(stmt: Any, change: Callable[[Any], Any]) -> Any:
    """Return `stmt` with all its loops run once, which leaves the first indices, and its store changed."""
    if isinstance(stmt, tirx.For):
        body = _once(stmt.body, change)
        return tirx.For(stmt.loop_var, stmt.min, _one(stmt.extent), tirx.ForKind.SERIAL, body)
    if isinstance(stmt, tirx.IfThenElse):
        return tirx.IfThenElse(stmt.condition, _once(stmt.then_case, change), None)
    return change(stmt)


def _one(like: Any) -> Any:
    return tirx.IntImm(like.ty.dtype, 1)


def _whole(store: Any, lanes: int, name: str) -> Any:
    """Return the store of all sums for that of one product."""
    x, w = _factors(store)
    place = [tirx.Ramp(store.indices[0], 1, lanes)]
    # The bits of a bfloat16 are all that is stored as uint16.
    sums, dtype = tirx.BufferLoad(store.buffer, place), str(x.source.dtype).replace("uint16", "bfloat16")
    parts = parts_of(dtype)
    shared = tirx.reinterpret("int32", _vector(x, parts))
    result = step(name, sums, shared, _weights(w, parts, lanes), lanes, dtype)
    return tirx.BufferStore(store.buffer, result, place)


def _products(store: Any, lanes: int, name: str) -> Any:
    """Return the store of all lanes for that of one; outside of an image a test puts one byte for all."""
    x, w = _factors(store)

    def added(bytes_: Any) -> Any:
        place = [tirx.Ramp(store.indices[0], 1, lanes)]
        sums = tirx.BufferLoad(store.buffer, place)
        return tirx.BufferStore(
            store.buffer, product_step(name, sums, bytes_, _vector(w, lanes), lanes), place
        )

    if not isinstance(x, tvm.ir.Call):
        return added(_vector(x, lanes))
    condition, load, outside = x.args
    otherwise = added(tirx.Broadcast(outside, lanes)) if int(outside) else None
    return tirx.IfThenElse(condition, added(_vector(load, lanes)), otherwise)


def _factors(store: Any) -> tuple[Any, Any]:
    """Return what `store` multiplies and adds, before both were made 32-bit numbers."""
    x, w = store.value.b.a, store.value.b.b
    return _narrow(x), _narrow(w)


def _narrow(wide: Any) -> Any:
    """Return what `wide` was made of by casts, and by shifts the bits of bfloat16 or the bytes of a word."""
    if isinstance(wide, tirx.Cast):
        return _narrow(wide.value)
    if isinstance(wide, (tirx.LShift, tirx.RShift)):
        return _narrow(wide.a)
    if isinstance(wide, tvm.ir.Call) and wide.op.name == "tirx.reinterpret":
        return _narrow(wide.args[0])
    return wide


def _weights(load: Any, parts: int, lanes: int) -> Any:
    """Return the numbers of all lanes, also where they were packed into words."""
    if str(load.source.dtype) == "int32":
        return tirx.reinterpret(f"int8x{parts * lanes}", _vector(load, lanes))
    return _vector(load, parts * lanes)


def _vector(load: Any, width: int) -> Any:
    return tirx.BufferLoad(load.source, [tirx.Ramp(load.indices[0], 1, width)])
