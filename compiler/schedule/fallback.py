"""Any kernel without a rule of its own: every block parallel outside, one vector inside.

Elementwise blocks that feed one other block are inlined into it. A reduction keeps its accumulators in
registers: where the innermost output axis is contiguous, a vector of outputs is reduced at once; where the
last axis itself is reduced, the lanes of a vector take turns and are combined at the end.

That is where nothing was tuned. Else the kernel is scheduled by the trace that was found
(`compiler.schedule.traces`).
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.s_tir import Schedule, Trace

from compiler.schedule.blocks import (
    all_blocks,
    extent,
    inline_elementwise,
    is_reduction,
    is_spatial,
    place_partial,
    reduce_in_lanes,
    reduces_last_axis,
    trips,
    vector_lanes,
    vectorize_last,
)
from compiler.schedule.space import Decide, untuned
from compiler.schedule.traces import Traced, TraceSpace
from compiler.target import Target

NAME = "fallback"
_WORTH_A_THREAD = 1 << 14
"""Loop trips below which waking the other threads costs more than it saves (a launch takes some 5 us)."""


def apply(sch: Schedule, target: Target, decide: Decide = untuned) -> bool:
    """Schedule any kernel; always True."""
    decisions: Traced = decide(NAME, TraceSpace(Traced(), mod=sch.mod, target=target))
    if decisions.trace is not None:
        Trace.apply_json_to_schedule(decisions.trace, sch)
        return True
    inline_elementwise(sch)
    for block in all_blocks(sch):
        if not sch.get_loops(block):  # a scalar among reductions: TVM's rfactor fails beside a bare block
            sch.add_unit_loop(block)
    for block in all_blocks(sch):
        lanes = vector_lanes(sch, block, target)
        if is_spatial(sch, block):
            _map(sch, block, lanes)
        elif is_reduction(sch, block):
            _reduce(sch, block, lanes)
    return True


def _map(sch: Schedule, block: Any, lanes: int) -> None:
    """Schedule an elementwise block: outer loops parallel, the contiguous axis in vectors."""
    loops = sch.get_loops(block)
    if not loops:
        return
    small = trips(sch, block) < _WORTH_A_THREAD
    *outer, inner = loops
    # Short trailing axes are joined until they fill a vector; their index arithmetic mostly cancels.
    while outer and (extent(sch, inner) or lanes) < lanes:
        inner = sch.fuse(outer.pop(), inner)
    vectorize_last(sch, block, lanes)
    rest = sch.get_loops(block)
    _parallel(sch, outer or rest[:1] if len(rest) > 1 else [], small=small)


def _reduce(sch: Schedule, block: Any, lanes: int) -> None:
    """Schedule a reduction: outputs parallel, several accumulated at once in a vector."""
    variables, loops = sch.get(block).iter_vars, sch.get_loops(block)
    if len(loops) != len(variables):
        return
    kinds = [var.iter_type for var in variables]
    outputs = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == tirx.IterVar.DataPar]
    reduced = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == tirx.IterVar.CommReduce]
    small = trips(sch, block) < _WORTH_A_THREAD
    if not outputs:
        return
    if reduces_last_axis(sch, block) or extent(sch, outputs[-1]) == 1:
        _reduce_rows(sch, block, outputs, lanes, small=small)
    else:
        _reduce_columns(sch, block, outputs, reduced, lanes, small=small)


def _reduce_rows(sch: Schedule, block: Any, outputs: list[Any], lanes: int, *, small: bool) -> None:
    partial = reduce_in_lanes(sch, block, lanes)
    row = sch.fuse(*outputs) if len(outputs) > 1 else outputs[0]
    if not small:
        sch.parallel(row)
    if partial is not None:
        place_partial(sch, partial, row)


def _reduce_columns(
    sch: Schedule, block: Any, outputs: list[Any], reduced: list[Any], lanes: int, *, small: bool
) -> None:
    """Reduce one vector of outputs at a time, in a local accumulator."""
    *outer, inner = outputs
    sch.reorder(*outer, inner, *reduced)
    copy = sch.cache_write(block, 0, "local")
    vectorize_last(sch, copy, lanes)
    loops = sch.get_loops(copy)
    tile = loops[-2] if len(loops) > 1 else None
    if tile is None:
        return
    sch.compute_at(block, tile, preserve_unit_loops=True)
    inside = sch.get_loops(block)[len(loops) - 1 :]
    vector = inside[len(outputs) - 1]
    first, *others = inside[len(outputs) :]
    sch.reorder(*inside[: len(outputs) - 1], first, *others, vector)
    sch.vectorize(vector)
    _parallel(sch, loops[: len(outer)] or [tile], small=small)
    zero = sch.decompose_reduction(block, first)
    sch.vectorize(sch.get_loops(zero)[-1])


def _parallel(sch: Schedule, loops: list[Any], *, small: bool) -> None:
    if loops and not small:
        sch.parallel(sch.fuse(*loops) if len(loops) > 1 else loops[0])
