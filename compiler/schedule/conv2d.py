"""Convolutions in the blocked layout.

parallel over image, block of output channels, row
  tile of columns:  accumulators = 0
    reduce over input channels, kernel rows, kernel columns
      accumulators += broadcast(input) * weights      (columns unrolled, channels one vector)
    output = epilogue(accumulators)                   (bias, residual, activation)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm.s_tir import Schedule

from compiler.schedule.blocks import (
    PARTITION,
    epilogue,
    extent,
    find_anchor,
    schedule_pad,
    unroll_and_vectorize,
)
from compiler.schedule.tiles import Tile, choose_tile, legal_tiles
from compiler.target import Target

NAME = "conv2d"


@dataclass(frozen=True)
class Decisions:
    """`tile.rows` output columns by `tile.vectors` blocks of output channels in registers."""

    tile: Tile


def legal(target: Target) -> list[Decisions]:
    """Return every decision that `target` has registers for."""
    return [Decisions(tile) for tile in legal_tiles(target, max_rows=28, max_vectors=4)]


def default(width: int | None, blocks: int | None, target: Target, *, depthwise: bool) -> Decisions:
    """Return the cheapest decision for rows of `width` columns and `blocks` blocks of output channels."""
    most = 1 if depthwise else 2
    # Only a divisor of the blocks: a shorter last tile along both axes would multiply the code.
    tiles = [
        decision.tile
        for decision in legal(target)
        if decision.tile.vectors <= most and (blocks is None or blocks % decision.tile.vectors == 0)
    ]
    return Decisions(choose_tile(tiles, width, blocks, target))


def apply(sch: Schedule, target: Target, decisions: Decisions | None = None) -> bool:
    """Schedule the kernel if it is a blocked convolution; tell whether it is."""
    anchor = find_anchor(sch, "conv2d", "depthwise_conv2d")
    if anchor is None:
        return False
    output = epilogue(sch, anchor)
    if output is None or len(sch.get_loops(output)) != 5:
        return False
    depthwise = sch.get(anchor).name_hint == "depthwise_conv2d"
    image, block, row, column, lane = sch.get_loops(output)
    if decisions is None:
        decisions = default(extent(sch, column), extent(sch, block), target, depthwise=depthwise)
    outer_block, inner_block = sch.split(block, [None, decisions.tile.vectors])
    outer_column, inner_column = sch.split(column, [None, decisions.tile.rows])
    sch.reorder(image, outer_block, row, outer_column, inner_block, inner_column, lane)
    sch.annotate(outer_column, PARTITION, 1)
    sch.parallel(sch.fuse(image, outer_block, row))
    _accumulate(sch, anchor, outer_column)
    unroll_and_vectorize(sch, sch.get_loops(output)[-3:])
    schedule_pad(sch)
    return True


def _accumulate(sch: Schedule, anchor: Any, tile: Any) -> None:
    """Compute the accumulators of one tile: the reduction outside, the tile unrolled inside."""
    sch.compute_at(anchor, tile, preserve_unit_loops=True)
    image, block, row, column, lane, *reduction = sch.get_loops(anchor)[2:]
    sch.reorder(image, row, *reduction, block, column, lane)
    unroll_and_vectorize(sch, [block, column, lane])
    zero = sch.decompose_reduction(anchor, reduction[0])
    unroll_and_vectorize(sch, sch.get_loops(zero)[-3:])
