"""What the schedule rules ask about the blocks of a kernel, and the steps that they share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tvm import s_tir, tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import ScheduleError
from tvm.tirx import IndexMap

from compiler.passes.kernels import RULE
from compiler.passes.kernels.narrow import BYTES, SHORT_FLOATS
from compiler.target import Target

PARTITION = "pragma_loop_partition_hint"
"""Loop annotation: the last, shorter tile gets code of its own, so that full tiles have no bound check."""

COPIES = ("pad", "panels")
"""Blocks that copy an operand into the form that the main block reads; they keep loops of their own."""

DECODED = "decoded"
"""The block that makes floats of coded weights; it stays apart until a rule says where it is computed."""

ISOLATE = "kiln.isolate_tiles"
"""The attribute of a scheduled PrimFunc whose register tiles become functions of their own."""


def with_root(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return `function` with a root block around its body, where it has none yet."""
    body = function.body
    if isinstance(body, s_tir.SBlockRealize) and str(body.block.name_hint) == "root":
        return function
    if isinstance(body, s_tir.SBlockRealize) and body.block.alloc_buffers and not body.block.iter_vars:
        return function
    root = s_tir.SBlock([], [], [], "root", body)
    return function.with_body(s_tir.SBlockRealize([], True, root))


def all_blocks(sch: Schedule) -> list[Any]:
    """Return the blocks of the kernel's root, in program order."""
    return list(sch.get_child_blocks(sch.get_sblock("root")))


def is_spatial(sch: Schedule, block: Any) -> bool:
    """Tell whether `block` computes each element of its output on its own."""
    return all(var.iter_type == tirx.IterVar.DataPar for var in sch.get(block).iter_vars)


def is_reduction(sch: Schedule, block: Any) -> bool:
    """Tell whether `block` sums (or takes the maximum ...) over an axis, starting from an initial value."""
    kinds = {var.iter_type for var in sch.get(block).iter_vars}
    return kinds <= {tirx.IterVar.DataPar, tirx.IterVar.CommReduce} and sch.get(block).init is not None


def find_anchor(sch: Schedule, *rules: str) -> Any | None:
    """Return the one block that asks for one of `rules`, or None."""
    found = [block for block in all_blocks(sch) if str(sch.get(block).annotations.get(RULE, "")) in rules]
    return found[0] if len(found) == 1 else None


def extent(sch: Schedule, loop: Any) -> int | None:
    """Return the trip count of `loop`, or None if it is symbolic."""
    count = sch.get(loop).extent
    return int(count) if isinstance(count, (int, tirx.IntImm)) else None


def trips(sch: Schedule, block: Any) -> float:
    """Return the trip count of the whole nest of `block`, infinite if it is symbolic."""
    counts = [extent(sch, loop) for loop in sch.get_loops(block)]
    return math.prod(math.inf if count is None else count for count in counts)


def bytes_dtype(sch: Schedule, anchor: Any) -> str | None:
    """Return the dtype of the left operand of `anchor` if it sums products of bytes, else None."""
    block = sch.get(anchor)
    if str(block.writes[0].source.dtype) != "int32":
        return None
    return str(block.reads[0].source.dtype)


def narrow_dtype(sch: Schedule, anchor: Any) -> str | None:
    """Return the dtype of the left operand of `anchor` if both are narrow: bytes or 16-bit floats."""
    data, *others = [str(region.source.dtype) for region in sch.get(anchor).reads]
    if data == "uint16":
        data = "bfloat16"  # its bits, in a copy
    return data if data in BYTES or (data in SHORT_FLOATS and data in others) else None


def epilogue(sch: Schedule, anchor: Any) -> Any | None:
    """Gather what follows `anchor` in one block, which reads a local accumulator, and return that block.

    Elementwise blocks are inlined into it; `COPIES` and `DECODED` before the anchor stay. None if something
    follows that is not elementwise.
    """
    blocks, name = all_blocks(sch), sch.get(anchor).name_hint
    others = [block for block in blocks if sch.get(block).name_hint not in (name, *COPIES, DECODED)]
    if not all(is_spatial(sch, block) for block in others):
        return None
    if sch.get(blocks[-1]).name_hint == name:
        for block in others:
            sch.compute_inline(block)
        return sch.cache_write(anchor, 0, "local")
    for block in others[:-1]:
        sch.compute_inline(block)
    sch.set_scope(anchor, 0, "local")
    return others[-1]


def reindex(sch: Schedule, anchor: Any, output: Any, index: Callable[..., tuple[Any, ...]]) -> None:
    """Give `anchor`, its accumulators and `output` the axes that `index` makes of theirs."""
    dtype = str(sch.get(anchor).iter_vars[0].var.ty.dtype)

    def axes(count: int) -> Any:
        return IndexMap.from_func(index, ndim=count, index_dtype=dtype)

    sch.transform_layout(anchor, ("write", 0), axes(len(sch.get(anchor).writes[0].region)))
    for block in (output, anchor):
        sch.transform_block_layout(block, axes(len(sch.get(block).iter_vars)))


def schedule_copies(sch: Schedule) -> None:
    """Make each copy of an operand once, its outer axes in parallel.

    The innermost axis is a vector where it is contiguous in what is read, else unrolled.
    """
    for block in all_blocks(sch):
        if sch.get(block).name_hint not in COPIES:
            continue
        *outer, inner = sch.get_loops(block)
        if sch.get(block).name_hint == "pad" and len(outer) < 4:
            outer.append(inner)  # an image in plain layout: its row is no vector
        elif _reads_contiguously(sch, block):
            sch.vectorize(inner)
        else:
            sch.unroll(inner)
        tasks = outer[:-1] or outer
        sch.parallel(sch.fuse(*tasks) if len(tasks) > 1 else tasks[0])


def _reads_contiguously(sch: Schedule, block: Any) -> bool:
    """Tell whether the innermost axis of `block` is that of what it reads."""
    lane = sch.get(block).iter_vars[-1].var
    used = tirx.analysis.undefined_vars(sch.get(block).reads[0].region[-1].min)
    return any(var.same_as(lane) for var in used)


def unroll_and_vectorize(sch: Schedule, loops: list[Any]) -> None:
    """Unroll all of `loops` but the last, which becomes one vector."""
    for loop in loops[:-1]:
        sch.unroll(loop)
    sch.vectorize(loops[-1])


def inline_elementwise(sch: Schedule) -> None:
    """Inline each elementwise block into the one block that reads it, where nothing is computed twice."""
    for block in all_blocks(sch)[:-1]:
        if not is_spatial(sch, block):
            continue
        consumers = sch.get_consumers(block)
        if len(consumers) != 1 or trips(sch, consumers[0]) > trips(sch, block):
            continue
        try:
            sch.compute_inline(block)
        except ScheduleError:  # an access that TVM cannot invert; the block keeps loops of its own
            continue


def vector_lanes(sch: Schedule, block: Any, target: Target) -> int:
    """Return how many elements of the widest type that `block` touches fit one vector."""
    regions = [*sch.get(block).reads, *sch.get(block).writes]
    return min((target.lanes(str(region.source.dtype)) for region in regions), default=1)


def vectorize_last(sch: Schedule, block: Any, lanes: int) -> None:
    """Turn the innermost loop of `block` into vectors; a shorter last one gets code of its own."""
    inner = sch.get_loops(block)[-1]
    count = extent(sch, inner)
    if count == 1:
        return
    if count is not None and count <= lanes:
        sch.vectorize(inner)
        return
    tiles, vector = sch.split(inner, [None, lanes])
    if count is None or count % lanes:
        sch.annotate(tiles, PARTITION, 1)
    sch.vectorize(vector)


def reduces_last_axis(sch: Schedule, block: Any) -> bool:
    """Tell whether `block` reduces the innermost axis of what it reads."""
    reduced = [var.var for var in sch.get(block).iter_vars if var.iter_type == tirx.IterVar.CommReduce]
    for region in sch.get(block).reads:
        if region.region:
            used = tirx.analysis.undefined_vars(region.region[-1].min)
            if any(var.same_as(other) for var in used for other in reduced):
                return True
    return False


def reduce_in_lanes(sch: Schedule, block: Any, lanes: int) -> Any | None:
    """Let the lanes of one vector take turns along the last reduced axis, and combine them at the end.

    Returns the new block that accumulates one vector of partial results, to be placed with
    `place_partial`, or None if no vector divides the axis: TVM's `compute_at` forgets the bound check that
    a shorter last vector needs.
    """
    inner = sch.get_loops(block)[-1]
    count = extent(sch, inner)
    if count is None:
        return None
    width = max(width for width in range(1, lanes + 1) if count % width == 0)
    if width == 1 or count == width:
        return None
    _, lane = sch.split(inner, [None, width])
    return sch.rfactor(lane, len(sch.get(block).writes[0].region))


def place_partial(sch: Schedule, partial: Any, row: Any) -> None:
    """Compute the vector of partial results of `reduce_in_lanes` inside the outermost loop `row`."""
    sch.compute_at(partial, row, preserve_unit_loops=True)
    _, lane, *inside = sch.get_loops(partial)  # below the row, the factored axis comes first
    sch.reorder(*inside, lane)
    sch.vectorize(lane)
