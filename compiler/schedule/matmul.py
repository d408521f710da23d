"""Matrix products: dense layers over packed panels, and products of two activations.

parallel over tiles of columns, batch, tiles of rows
  accumulators = 0
    reduce over k:  accumulators += broadcast(a[row, k]) * b[k, columns]
  output = epilogue(accumulators)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tvm.s_tir import Schedule

from compiler.schedule.blocks import PARTITION, epilogue, extent, find_anchor, unroll_and_vectorize
from compiler.schedule.tiles import Tile, choose_tile, legal_tiles
from compiler.target import Target

NAME = "matmul"
_MANY = 8
"""A batch this long is spread over the threads by itself."""


@dataclass(frozen=True)
class Decisions:
    """`tile.rows` rows of the left operand by `tile.vectors` vectors of `lanes` columns, in registers."""

    tile: Tile
    lanes: int


def legal(target: Target, lanes: int) -> list[Decisions]:
    """Return every decision that `target` has registers for."""
    return [Decisions(tile, lanes) for tile in legal_tiles(target, max_rows=16, max_vectors=8)]


def default(rows: int | None, vectors: int | None, lanes: int, target: Target, *, packed: bool) -> Decisions:
    """Return the cheapest decision for a product of `rows` by `vectors` vectors of `lanes` columns."""
    tiles = [
        decision.tile
        for decision in legal(target, lanes)
        # Panels are spread over the threads, so that no shorter last tile can be split off.
        if not packed or vectors is None or vectors % decision.tile.vectors == 0
    ]
    return Decisions(choose_tile(tiles, rows, vectors, target), lanes)


def apply(sch: Schedule, target: Target, decisions: Decisions | None = None) -> bool:
    """Schedule the kernel if it is a matrix product; tell whether it is."""
    anchor = find_anchor(sch, "dense", "matmul")
    if anchor is None:
        return False
    packed = sch.get(anchor).name_hint == "dense"
    lanes = _lanes(sch, anchor, target, packed=packed)
    rank = len(sch.get_loops(anchor)) - (2 if packed else 1)
    output = epilogue(sch, anchor)
    if output is None or len(sch.get_loops(output)) != rank:
        return False
    *batch, row, column = sch.get_loops(output)
    if decisions is None:
        columns = extent(sch, column)
        vectors = None if columns is None else max(1, -(-columns // lanes) if packed else columns // lanes)
        decisions = default(extent(sch, row), vectors, lanes, target, packed=packed)
    outer_row, inner_row = sch.split(row, [None, decisions.tile.rows])
    outer_column, *inner_column = sch.split(column, [None, decisions.tile.vectors, lanes])
    sch.annotate(outer_row, PARTITION, 1)
    if packed:
        sch.reorder(outer_column, *batch, outer_row, inner_row, *inner_column)
        task, tile = sch.fuse(outer_column, *batch), outer_row
    else:
        sch.annotate(outer_column, PARTITION, 1)
        sch.reorder(*batch, outer_row, outer_column, inner_row, *inner_column)
        task, tile = _task(sch, batch, outer_row), outer_column
    sch.parallel(task)
    _accumulate(sch, anchor, tile, lanes, packed=packed)
    unroll_and_vectorize(sch, sch.get_loops(output)[-3:])
    return True


def _task(sch: Schedule, batch: list[Any], outer_row: Any) -> Any:
    """Return the loop to spread over threads: the batch if it is long enough, else the tiles of rows."""
    counts = [extent(sch, loop) or _MANY for loop in batch]
    return sch.fuse(*batch) if batch and math.prod(counts) >= _MANY else outer_row


def _lanes(sch: Schedule, anchor: Any, target: Target, *, packed: bool) -> int:
    """Return the columns of one vector: the panel's width, or the widest that divides the columns."""
    columns = extent(sch, sch.get_loops(anchor)[-2])
    widest = target.lanes("float32")
    if columns is None:
        return widest
    if packed:
        return columns
    fitting = [lanes for lanes in (widest, widest // 2, widest // 4) if lanes > 1 and columns % lanes == 0]
    return fitting[0] if fitting else widest


def _accumulate(sch: Schedule, anchor: Any, tile: Any, lanes: int, *, packed: bool) -> None:
    """Compute the accumulators of one tile: k outside, the tile unrolled inside."""
    sch.compute_at(anchor, tile, preserve_unit_loops=True)
    loops = sch.get_loops(anchor)
    inner = loops[-(4 if packed else 3) : -1]
    if not packed:
        inner = [inner[0], *sch.split(inner[1], [None, lanes])]
    sch.reorder(loops[-1], *inner)
    unroll_and_vectorize(sch, inner)
    zero = sch.decompose_reduction(anchor, loops[-1])
    unroll_and_vectorize(sch, sch.get_loops(zero)[-3:])
