"""Matrix products: dense layers over packed panels, and products of two activations.

parallel over batch, chunk of rows, tile of columns
  tile of rows:  accumulators = 0
    reduce over k:  accumulators += broadcast(a[row, k]) * b[k, columns]
    output = epilogue(accumulators)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tvm.s_tir import Schedule

from compiler.schedule.blocks import (
    PARTITION,
    epilogue,
    extent,
    find_anchor,
    narrow_dtype,
    reindex,
    schedule_copies,
    unroll_and_vectorize,
)
from compiler.schedule.decode import decode_in_registers, decode_in_task, decoding, narrowed
from compiler.schedule.dot_product import DOT_PRODUCT, instruction, temporaries
from compiler.schedule.space import Decide, Space, untuned
from compiler.schedule.tasks import choose_chunk, divisors
from compiler.schedule.tiles import Tile, choose_tile, legal_tiles
from compiler.target import Target

NAME = "matmul"
_MANY = 8
"""A batch this long is spread over the threads by itself."""


@dataclass(frozen=True)
class Decisions:
    """`tile.rows` rows of the left operand by `tile.vectors` vectors of `lanes` columns, in registers.

    One task of a packed product computes `chunk` tiles of rows; None leaves all rows to it. Tasks that follow
    one another share rows, or, with `columns_first`, panels.
    """

    tile: Tile
    lanes: int
    chunk: int | None = None
    columns_first: bool = False


def legal(target: Target, *, narrow: str | None = None) -> list[Tile]:
    """Return every tile that `target` has registers for; `narrow` is the dtype of narrow numbers."""
    tiles = legal_tiles(target, max_rows=28, max_vectors=8)
    if not narrow:
        return tiles
    spare = target.vector.registers - temporaries(target, narrow)
    return [tile for tile in tiles if tile.accumulators + 2 * tile.vectors <= spare]


def default(
    rows: int | None,
    vectors: int | None,
    lanes: int,
    target: Target,
    *,
    packed: bool,
    batch: int | None = 1,
    row_bytes: float = 0.0,
    narrow: str | None = None,
) -> Decisions:
    """Return the cheapest decisions for `batch` products of `rows` by `vectors` vectors of `lanes` columns.

    A row of the left operand has `row_bytes` bytes. `narrow` is the dtype of
    bytes or short floats that are multiplied.
    """
    tile = choose_tile(legal(target, narrow=narrow), rows, vectors)
    if not packed or rows is None or vectors is None or batch is None:
        return Decisions(tile, lanes)
    steps = -(-rows // tile.rows)
    chunk = choose_chunk(steps, row_bytes * tile.rows, batch * -(-vectors // tile.vectors), target)
    return Decisions(tile, lanes, chunk)


def space(best: Decisions, rows: int | None, vectors: int | None, tiles: Sequence[Tile]) -> Space[Decisions]:
    """Return what can be decided beside `best`, the cheapest; nothing where an extent is symbolic."""
    if rows is None or vectors is None:
        return Space(best)
    fitting = [tile for tile in tiles if tile.rows <= rows and tile.vectors <= vectors]
    axes: dict[str, Sequence[Any]] = {"tile": fitting}
    if best.chunk is None:
        return Space(best, axes)

    def steps(tile: Tile) -> int:
        return -(-rows // tile.rows)

    axes["chunk"] = divisors(*map(steps, fitting))
    if vectors > 1 and rows > 1:
        axes["columns_first"] = (False, True)
    return Space(best, axes, lambda decisions: steps(decisions.tile) % (decisions.chunk or 1) == 0)


def apply(sch: Schedule, target: Target, decide: Decide = untuned) -> bool:
    """Schedule the kernel if it is a matrix product; tell whether it is."""
    anchor = find_anchor(sch, "dense", "matmul")
    if anchor is None:
        return False
    packed = sch.get(anchor).name_hint == "dense"
    dtype = narrow_dtype(sch, anchor)
    reduction = 1 if dtype is None else 2
    lanes = _lanes(sch, anchor, target, reduction) if packed else _lanes_of_columns(sch, anchor, target)
    rank = len(sch.get_loops(anchor)) - reduction - (1 if packed else 0)
    output = epilogue(sch, anchor)
    if output is None or len(sch.get_loops(output)) != rank:
        return False
    if packed and len(sch.get(anchor).reads[1].region) == 2 + reduction:
        _flatten(sch, anchor, output, lanes)
    *batch, row, column = sch.get_loops(output)
    rows, columns = extent(sch, row), extent(sch, column)
    vectors = None if columns is None else max(1, -(-columns // lanes) if packed else columns // lanes)
    if not packed and columns is not None and columns % lanes:
        vectors = 1  # the last vector is shorter: it must be a tile of its own
    counts = [extent(sch, loop) for loop in batch]
    best = default(
        rows,
        vectors,
        lanes,
        target,
        packed=packed,
        batch=None if None in counts else math.prod(count or 1 for count in counts),
        row_bytes=4.0 * (extent(sch, sch.get_loops(anchor)[-reduction]) or 1),
        narrow=dtype,
    )
    if best.tile.rows == rows:
        best = replace(best, tile=narrowed(sch, best.tile, target))
    decisions: Decisions = decide(NAME, space(best, rows, vectors, legal(target, narrow=dtype)))
    outer_row, inner_row = sch.split(row, [None, decisions.tile.rows])
    outer_column, *inner_column = sch.split(column, [None, decisions.tile.vectors, lanes])
    if packed:
        chunks = []
        if decisions.chunk is not None:
            *chunks, outer_row = sch.split(outer_row, [None, decisions.chunk])
        tasks = [outer_column, *chunks] if decisions.columns_first else [*chunks, outer_column]
        sch.reorder(*batch, *tasks, outer_row, inner_row, *inner_column)
        task, tile = sch.fuse(*batch, *tasks), outer_row
        sch.annotate(outer_row, PARTITION, 1)
    else:
        sch.annotate(outer_row, PARTITION, 1)
        sch.annotate(outer_column, PARTITION, 1)
        sch.reorder(*batch, outer_row, outer_column, inner_row, *inner_column)
        task, tile = _task(sch, batch, outer_row), outer_column
    sch.parallel(task)
    if dtype is None:
        one_tile = extent(sch, tile) == 1
        _accumulate(sch, anchor, tile, lanes, packed=packed, in_registers=one_tile)
        decode_in_task(sch, task)
    else:
        _accumulate_narrow(sch, anchor, tile, instruction(target, dtype))
    unroll_and_vectorize(sch, sch.get_loops(output)[-3:])
    schedule_copies(sch)
    return True


def _flatten(sch: Schedule, anchor: Any, output: Any, lanes: int) -> None:
    """Make one axis of the rows of all batches, of the accumulators too: they share the panels."""
    *batch, row, columns = [extent(sch, loop) for loop in sch.get_loops(output)]
    # Beside the test of a shorter last panel, TVM does not see that flat rows stay one axis.
    if columns is None or columns % lanes:
        return
    if row is None or None in batch or math.prod(count or 1 for count in batch) == 1:
        return
    sizes = [*(count or 1 for count in batch), row]
    rank = len(sizes)

    def flat(*index: Any) -> tuple[Any, ...]:
        total = index[0]
        for size, each in zip(sizes[1:], index[1:rank], strict=True):
            total = total * size + each
        return (total, *index[rank:])

    reindex(sch, anchor, output, flat)


def _task(sch: Schedule, batch: list[Any], outer_row: Any) -> Any:
    """Return the loop to spread over threads: the batch if it is long enough, else the tiles of rows."""
    counts = [extent(sch, loop) or _MANY for loop in batch]
    return sch.fuse(*batch) if batch and math.prod(counts) >= _MANY else outer_row


def _lanes(sch: Schedule, anchor: Any, target: Target, reduction: int) -> int:
    """Return the width of a panel."""
    return extent(sch, sch.get_loops(anchor)[-1 - reduction]) or target.lanes("float32")


def _lanes_of_columns(sch: Schedule, anchor: Any, target: Target) -> int:
    """Return the columns of one vector: the widest that divides the columns."""
    columns, widest = extent(sch, sch.get_loops(anchor)[-2]), target.lanes("float32")
    if columns is None:
        return widest
    fitting = [lanes for lanes in (widest, widest // 2, widest // 4) if lanes > 1 and columns % lanes == 0]
    return fitting[0] if fitting else widest


def _accumulate(
    sch: Schedule, anchor: Any, tile: Any, lanes: int, *, packed: bool, in_registers: bool
) -> None:
    """Compute the accumulators of one tile: k outside, the tile unrolled inside."""
    sch.compute_at(anchor, tile, preserve_unit_loops=True)
    loops = sch.get_loops(anchor)
    inner, steps = loops[-(4 if packed else 3) : -1], [loops[-1]]
    if not packed:
        inner = [inner[0], *sch.split(inner[1], [None, lanes])]
    if in_registers and decoding(sch) is not None:
        steps = decode_in_registers(sch, loops[-1])
    sch.reorder(*steps, *inner)
    unroll_and_vectorize(sch, inner)
    zero = sch.decompose_reduction(anchor, steps[0])
    unroll_and_vectorize(sch, sch.get_loops(zero)[-3:])


def _accumulate_narrow(sch: Schedule, anchor: Any, tile: Any, name: str) -> None:
    """Compute the accumulators of one tile of narrow products: as much of k at a time as fills 32 bits."""
    sch.compute_at(anchor, tile, preserve_unit_loops=True)
    row, panel, lane, word, part = sch.get_loops(anchor)[-5:]
    sch.reorder(word, row, panel, lane, part)
    sch.unroll(row)
    sch.unroll(panel)
    zero = sch.decompose_reduction(anchor, word)
    unroll_and_vectorize(sch, sch.get_loops(zero)[-3:])
    sch.annotate(lane, DOT_PRODUCT, name)
