"""Register tiles as machine code functions of their own, and the lowering pipeline that makes them.

LLVM allocates registers for a whole function. Where the full tile and the shorter last one of a kernel lie in
one function, with the loops around them, it keeps too much alive and spills accumulators in the innermost
loop, which costs up to two thirds of the speed. A tile in a function of its own fits its registers.

TVM makes a function of what lies in an ``AttrStmt`` ``compute_scope``; here every sequence that begins with
the allocation of a local accumulator is wrapped in one, for kernels that carry the attribute `ISOLATE`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.s_tir import pipeline as s_tir_pipeline
from tvm.tirx import compilation_pipeline

from compiler.build.dot_products import dot_products
from compiler.build.fused_sums import fused_sums
from compiler.build.lookups import lookups
from compiler.build.skip_padding import skip_padding
from compiler.build.statements import function_pass, map_statements
from compiler.schedule.blocks import ISOLATE

PIPELINE = "kiln_cpu"
"""The name of the lowering pipeline in TVM's table."""

_STACK = "disable_lower_builtin"
"""The annotation of an allocation that TVM leaves to LLVM."""

_MOST_TESTS = 3
"""Each test that is decided outside of a tile doubles its functions. Of a tile with more of them there are
two: one where all hold, and one that makes them."""

_PLACE = "pragma_kiln_tile"
# A pragma: TVM's storage planning leaves the allocations in a pragma's scope where they are.


def _is_local(stmt: Any) -> bool:
    return isinstance(stmt, tirx.AllocBuffer) and bool(stmt.buffer.scope() == "local")


def _tiles(stmts: list[Any]) -> Iterator[tuple[bool, list[Any]]]:
    """Split a sequence into tiles, from an allocation to the last use of what they allocate, and the rest."""
    start = 0
    while start < len(stmts):
        end = at = start
        while at <= end:
            if _is_local(stmts[at]):
                end = max(i for i in range(at, len(stmts)) if i <= end or _uses(stmts[i], stmts[at].buffer))
            at += 1
        yield _is_local(stmts[start]), stmts[start : end + 1]
        start = end + 1


def _uses(stmt: Any, buffer: Any) -> bool:
    return any(var.same_as(buffer) for var in tirx.analysis.undefined_vars(stmt, []))


def _isolated(function: Any) -> bool:
    return bool(function.attrs and function.attrs.get(ISOLATE, False))


@function_pass("PlaceTiles")
def _place_tiles(function: Any) -> Any:
    """Mark the tiles, before storage planning would move their accumulators out of them."""
    if not _isolated(function):
        return function
    name, count = str(function.attrs.get("global_symbol", "kernel")), 0

    def wrap(stmt: Any) -> Any:
        nonlocal count
        if not isinstance(stmt, tirx.SeqStmt):
            return stmt
        result = []
        for is_tile, part in _tiles(list(stmt.seq)):
            if is_tile:
                count += 1
                label = tvm.ir.StringImm(f"{name}_tile{count}")
                part = [tirx.AttrStmt(tirx.const(0, "int32"), _PLACE, label, tirx.stmt_seq(*part))]
            result += part
        return tirx.stmt_seq(*result)

    return function.with_body(map_statements(function.body, wrap))


@function_pass("OutlineTiles")
def _outline_tiles(function: Any) -> Any:
    """Turn the marks into what TVM makes functions of, each with its own accumulators."""
    if not _isolated(function):
        return function
    accumulators: list[Any] = []

    def collect(stmt: Any) -> Any:
        if not _is_local(stmt):
            return stmt
        accumulators.append(on_stack(stmt))
        return tirx.Evaluate(tirx.const(0, "int32"))

    def outline(stmt: Any) -> Any:
        if not isinstance(stmt, tirx.AttrStmt) or stmt.attr_key != _PLACE:
            return stmt
        own = [each for each in accumulators if _uses(stmt.body, each.buffer)]
        return _functions(stmt.value.value, tirx.stmt_seq(*own, stmt.body))

    # Every local allocation of such a kernel is a tile's: what `_place_tiles` marked began with one.
    body = map_statements(function.body, collect)
    return function.with_body(map_statements(body, outline))


def on_stack(allocation: Any) -> Any:
    """Return `allocation` as one on the stack, where LLVM turns it into registers.

    TVM's default is a pool, which is right for a size that is known only when the kernel runs.
    """
    if not _is_local(allocation) or not all(isinstance(n, tirx.IntImm) for n in allocation.buffer.shape):
        return allocation
    return tirx.AllocBuffer(allocation.buffer, {_STACK: tirx.const(True, "bool")})


@function_pass("LocalOnStack")
def _local_on_stack(function: Any) -> Any:
    """Put local buffers of all kernels on the stack."""
    return function.with_body(map_statements(function.body, on_stack))


def _are_known(value: Any, known: list[Any]) -> bool:
    """Tell whether `value` has no variables but `known` ones."""
    return all(any(var.same_as(each) for each in known) for var in tirx.analysis.undefined_vars(value, []))


def _functions(name: str, tile: Any) -> Any:
    """Return `tile` as a function, or a choice between two where a test in it is decided outside of it.

    The last, shorter tile of channels has fewer vectors than the others: which one it is, is tested here and
    not in the innermost loop.
    """
    conditions = _conditions(tile, list(tirx.analysis.undefined_vars(tile, [])))
    if not conditions:
        return _function(name, tile)
    if len(conditions) > _MOST_TESTS:
        full = tile
        for condition in conditions:
            full = _decided(full, condition, True)
        return tirx.IfThenElse(
            tirx.all(*conditions), _function(f"{name}_full", full), _function(f"{name}_short", tile)
        )
    full = _functions(f"{name}_full", _decided(tile, conditions[0], True))
    short = _functions(f"{name}_short", _decided(tile, conditions[0], False))
    return tirx.IfThenElse(conditions[0], full, short)


def _function(name: str, tile: Any) -> Any:
    scope = tirx.AttrStmt(tirx.const(0, "int32"), "compute_scope", tvm.ir.StringImm(name), tile)
    # What follows would get the debug location of the tile, which LLVM rejects, but for a statement here.
    return tirx.stmt_seq(scope, tirx.Evaluate(tirx.const(1, "int32")))


def _conditions(tile: Any, known: list[Any]) -> list[Any]:
    """Return the different conditions in `tile` that depend on `known` variables only."""
    found: list[Any] = []

    def look(stmt: Any) -> Any:
        if not isinstance(stmt, tirx.IfThenElse) or not _are_known(stmt.condition, known):
            return stmt
        if not any(tvm_ffi.structural_equal(stmt.condition, each) for each in found):
            found.append(stmt.condition)
        return stmt

    map_statements(tile, look)
    return found


def _decided(tile: Any, condition: Any, holds: bool) -> Any:
    """Return `tile` with the branches of `condition` decided."""

    def decide(stmt: Any) -> Any:
        if not isinstance(stmt, tirx.IfThenElse):
            return stmt
        if not tvm_ffi.structural_equal(stmt.condition, condition):
            return stmt
        if holds:
            return stmt.then_case
        return tirx.Evaluate(tirx.const(0, "int32")) if stmt.else_case is None else stmt.else_case

    return map_statements(tile, decide)


@function_pass("EqualTypes")
def _equal_types(function: Any) -> Any:
    """Widen the 32-bit zeros that `LoopPartition` puts in place of 64-bit variables of loops of one turn.

    Only kernels of symbolic shapes still have such variables.
    """

    def widened(sum_: Any) -> Any:
        one, other = sum_.a, sum_.b
        if isinstance(one, tirx.IntImm) and str(one.ty) != str(other.ty):
            return tirx.Add(tirx.const(int(one), str(other.ty)), other)
        return sum_

    return function.with_body(tvm_ffi.structural_map(function.body, [(tirx.Add, widened)]))


def lowering_passes() -> list[Any]:
    """Return the ordered passes from a scheduled PrimFunc to what LLVM code is made of.

    These are TVM's own for CPUs (`tvm.s_tir.pipeline`), with tiles made functions around storage planning,
    and without those whose work LLVM does again: common subexpressions, statements that do nothing, and
    indices split in another form took a sixth of all building, and made no network faster.
    """
    s_tir, tir = tvm.s_tir.transform, tirx.transform
    return [
        s_tir.CanonicalizeLoop(),
        s_tir.LowerInitBlock(),
        s_tir.PlanAndUpdateBufferAllocationLocation(),
        s_tir.ConvertBlocksToOpaque(),
        s_tir.CompactBufferAllocation(),
        s_tir.LowerMatchBuffer(),
        s_tir.StmtSimplify(),
        s_tir.AnnotateIrregularLoop(),
        s_tir.LowerOpaqueBlock(),
        tir.FlattenBuffer(),
        tir.BF16ComputeLegalize(),
        tir.NarrowDataType(32),
        s_tir.LoopPartition(),
        _equal_types,
        fused_sums,
        dot_products,
        lookups,
        tir.VectorizeLoop(True),
        _place_tiles,
        tir.StorageRewrite(),
        s_tir.HoistIfThenElse(),
        tir.UnrollLoop(),
        tir.StmtSimplify(),
        skip_padding,
        s_tir.RewriteUnsafeSelect(),
        _outline_tiles,
        _local_on_stack,
        tir.FP8ComputeLegalize(),
        tir.VerifyMemory(),
        tir.AnnotateEntryFunc(),
        tir.SplitHostDevice(),
        tir.MakePackedAPI(),
        tir.FP8StorageLegalize(),
        tir.BF16StorageLegalize(),
    ]


_FOR_LLVM = (
    "FusedSums", "DotProducts", "Lookups", "PlaceTiles", "OutlineTiles", "LocalOnStack",
    "tirx.AnnotateEntryFunc",
)  # fmt: skip


@function_pass("Serial")
def _serial(function: Any) -> Any:
    """Make plain loops of those for several threads."""

    def plain(stmt: Any) -> Any:
        if not isinstance(stmt, tirx.For) or stmt.kind != tirx.ForKind.PARALLEL:
            return stmt
        return tirx.For(stmt.loop_var, stmt.min, stmt.extent, tirx.ForKind.SERIAL, stmt.body)

    return function.with_body(map_statements(function.body, plain))


def passes_to_c() -> list[Any]:
    """Return the same for C: without vectors, threads, instructions of a CPU, and functions of tiles."""
    instead = {
        "tirx.VectorizeLoop": [tirx.transform.VectorizeLoop(False)],
        "tirx.FlattenBuffer": [tirx.transform.FlattenBuffer(), _serial],
    }
    found = []
    for each in lowering_passes():
        if each.info.name not in _FOR_LLVM:
            found += instead.get(each.info.name, [each])
    return found


def _pipeline() -> tuple[Any, Any, Any]:
    return (
        tvm.transform.Sequential(lowering_passes()),
        s_tir_pipeline.finalize_host_passes,
        s_tir_pipeline.finalize_device_passes,
    )


compilation_pipeline.PIPELINE_MAP[PIPELINE] = _pipeline
