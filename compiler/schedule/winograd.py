"""Winograd's convolution: transform tiles of the input, one matrix product a position, transform back.

parallel over blocks of input channels, tiles
  load a tile, transform its rows and columns            (positions unrolled, channels one vector)
parallel over positions, blocks of output channels
  tile of tiles:  accumulators += broadcast(input) * weights
                  or, where the weights are codes:
parallel over rows of positions, blocks of output channels
  decode and transform the weights of the task, into memory of its own that stays in a cache near
  position, tile of tiles:  accumulators += broadcast(input) * weights
parallel over image, blocks of output channels, rows of tiles
  transform back, output = epilogue(tile)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tvm.s_tir import Schedule

from compiler.schedule.blocks import (
    PARTITION,
    all_blocks,
    extent,
    find_anchor,
    is_spatial,
    unroll_and_vectorize,
)
from compiler.schedule.decode import decode_in_place, decoding
from compiler.schedule.space import Decide, Space, untuned
from compiler.schedule.tiles import Tile, choose_tile, legal_tiles
from compiler.target import Target

NAME = "winograd"
_OUTPUT = "winograd_output"
"""The last block of `compiler.passes.kernels.winograd` before the output; what follows is the epilogue."""


@dataclass(frozen=True)
class Decisions:
    """`tile.rows` tiles of the image by `tile.vectors` blocks of output channels in registers."""

    tile: Tile


def default(tiles: int, blocks: int, target: Target) -> Decisions:
    """Return the cheapest decision for products of `tiles` rows by `blocks` vectors."""
    return Decisions(choose_tile(legal(target), tiles, blocks))


def legal(target: Target) -> list[Tile]:
    """Return every tile that `target` has registers for."""
    return legal_tiles(target, max_rows=28, max_vectors=4)


def space(tiles: int, blocks: int, target: Target) -> Space[Decisions]:
    """Return what can be decided for products of `tiles` rows by `blocks` vectors."""
    fitting = [tile for tile in legal(target) if tile.rows <= tiles and tile.vectors <= blocks]
    return Space(default(tiles, blocks, target), {"tile": fitting})


def apply(sch: Schedule, target: Target, decide: Decide = untuned) -> bool:
    """Schedule the kernel if it is Winograd's convolution; tell whether it is."""
    anchor = find_anchor(sch, "winograd")
    if anchor is None:
        return False
    blocks = all_blocks(sch)
    names = [sch.get(block).name_hint for block in blocks]
    after = blocks[names.index(_OUTPUT) + 1 :]
    if not all(is_spatial(sch, block) for block in after):
        return False
    for block in after[:-1]:
        sch.compute_inline(block)
    side = math.isqrt(extent(sch, sch.get_loops(anchor)[0]) or 0)
    _, blocks_of_outputs, tiles, *_ = [extent(sch, loop) or 1 for loop in sch.get_loops(anchor)]
    decisions: Decisions = decide(NAME, space(tiles, blocks_of_outputs, target))
    _output(sch, after[-1], side - 2)
    _products(sch, anchor, decisions.tile, side if decoding(sch) else 1)
    _input(sch)
    return True


def _input(sch: Schedule) -> None:
    """Load and transform one tile of one block of channels at a time."""
    tile, half, moved = (
        sch.get_sblock(name) for name in ("winograd_tile", "winograd_input_rows", "winograd_input")
    )
    position, block, t, lane = sch.get_loops(moved)
    sch.reorder(block, t, position, lane)
    for inner in (half, tile):
        sch.set_scope(inner, 0, "local")
        sch.compute_at(inner, t, preserve_unit_loops=True)
        unroll_and_vectorize(sch, sch.get_loops(inner)[-3:])
    unroll_and_vectorize(sch, [position, lane])
    sch.parallel(sch.fuse(block, t))


def _products(sch: Schedule, anchor: Any, tile: Tile, together: int) -> None:
    """One matrix product a position: tiles of the image by output channels.

    One task computes those of `together` positions, for which it makes the weights if that is more than one.
    """
    copy = sch.cache_write(anchor, 0, "local")
    position, block, t, lane = sch.get_loops(copy)
    outer_position, position = sch.split(position, [None, together])
    outer_block, inner_block = sch.split(block, [None, tile.vectors])
    outer_t, inner_t = sch.split(t, [None, tile.rows])
    sch.reorder(outer_position, outer_block, position, outer_t, inner_t, inner_block, lane)
    sch.annotate(outer_t, PARTITION, 1)
    task = sch.fuse(outer_position, outer_block)
    sch.parallel(task)
    sch.compute_at(anchor, outer_t, preserve_unit_loops=True)
    if together > 1:
        _weights(sch, task)
    position, block, t, lane, *reduction = sch.get_loops(anchor)[3:]
    sch.reorder(position, *reduction, t, block, lane)
    unroll_and_vectorize(sch, [t, block, lane])
    zero = sch.decompose_reduction(anchor, reduction[0])
    unroll_and_vectorize(sch, sch.get_loops(zero)[-3:])
    unroll_and_vectorize(sch, sch.get_loops(copy)[-3:])


def _weights(sch: Schedule, task: Any) -> None:
    """Decode and transform the weights of a row of positions in each `task`."""
    rows, moved = sch.get_sblock("winograd_weight_rows"), sch.get_sblock("winograd_weight")
    sch.compute_at(moved, task, preserve_unit_loops=True)
    position, block, depth, channel, lane = sch.get_loops(moved)[1:]
    sch.reorder(block, depth, channel, position, lane)
    sch.set_scope(rows, 0, "local")
    sch.compute_at(rows, channel, preserve_unit_loops=True)
    decode_in_place(sch)
    unroll_and_vectorize(sch, sch.get_loops(rows)[5:])
    unroll_and_vectorize(sch, [position, lane])


def _output(sch: Schedule, output: Any, m: int) -> None:
    """Transform back; an image that m does not divide gets code of its own at its edges."""
    image, block, row, column, lane = sch.get_loops(output)
    down, i = sch.split(row, [None, m])
    across, j = sch.split(column, [None, m])
    sch.reorder(image, block, down, across, i, j, lane)
    for name in ("winograd_output", "winograd_output_rows"):
        inner = sch.get_sblock(name)
        sch.set_scope(inner, 0, "local")
        sch.compute_at(inner, across, preserve_unit_loops=True)
        unroll_and_vectorize(sch, sch.get_loops(inner)[-3:])
    sch.annotate(down, PARTITION, 1)
    sch.annotate(across, PARTITION, 1)
    unroll_and_vectorize(sch, [i, j, lane])
    sch.parallel(sch.fuse(image, block))
