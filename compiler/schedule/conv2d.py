"""Convolutions in the blocked layout.

parallel over image, chunk of rows, blocks of output channels
  row, tile of columns:  accumulators = 0
    reduce over input channels, kernel rows, kernel columns
      accumulators += broadcast(input) * weights      (columns unrolled, channels one vector)
    output = epilogue(accumulators)                   (bias, residual, activation)

A pointwise convolution has no rows: all columns of an image are one row.
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
from compiler.schedule.tasks import choose_chunk
from compiler.schedule.tiles import Tile, choose_tile, legal_tiles
from compiler.target import Target

NAME = "conv2d"


@dataclass(frozen=True)
class Decisions:
    """`tile.rows` output columns by `tile.vectors` blocks of output channels in registers.

    One task computes `chunk` rows of output, or `chunk` tiles of a pointwise convolution.
    """

    tile: Tile
    chunk: int


def legal(target: Target) -> list[Tile]:
    """Return every tile that `target` has registers for."""
    return legal_tiles(target, max_rows=28, max_vectors=4)


def default(
    rows: int | None, columns: int | None, blocks: int | None, images: int | None, row_bytes: float, target: Target
) -> Decisions:
    """Return the cheapest decisions for an output of `images` by `blocks` by `rows` by `columns`.

    A row of it reads `row_bytes` bytes of the input. `rows` is 1 for a pointwise convolution.
    """
    tile = choose_tile(legal(target), columns, blocks)
    others = None if blocks is None or images is None else images * -(-blocks // tile.vectors)
    if rows != 1 or columns is None:
        return Decisions(tile, choose_chunk(rows, row_bytes, others, target))
    tiles = -(-columns // tile.rows)
    return Decisions(tile, choose_chunk(tiles, row_bytes / tiles, others, target))


def apply(sch: Schedule, target: Target, decisions: Decisions | None = None) -> bool:
    """Schedule the kernel if it is a blocked convolution; tell whether it is."""
    anchor = find_anchor(sch, "conv2d")
    if anchor is None:
        return False
    output = epilogue(sch, anchor)
    if output is None or len(sch.get_loops(output)) != 5:
        return False
    row_bytes = _row_bytes(sch, anchor)
    pointwise = _is_pointwise(sch, anchor)
    if pointwise:
        _flatten(sch, anchor, output)
    image, block, *row, column, lane = sch.get_loops(output)
    rows = extent(sch, row[0]) if row else 1
    if decisions is None:
        extents = (rows, extent(sch, column), extent(sch, block), extent(sch, image))
        decisions = default(*extents, row_bytes, target)
    outer_block, inner_block = sch.split(block, [None, decisions.tile.vectors])
    outer_column, inner_column = sch.split(column, [None, decisions.tile.rows])
    chunk, step = sch.split(row[0] if row else outer_column, [None, decisions.chunk])
    steps = [step, outer_column] if row else [step]
    sch.reorder(image, chunk, outer_block, *steps, inner_column, inner_block, lane)
    sch.annotate(steps[-1], PARTITION, 1)
    sch.parallel(sch.fuse(image, chunk, outer_block))
    _accumulate(sch, anchor, steps[-1], rows_below=len(row))
    unroll_and_vectorize(sch, sch.get_loops(output)[-3:])
    schedule_pad(sch)
    return True


def _row_bytes(sch: Schedule, anchor: Any) -> float:
    """Return how many bytes of the input one row of the output stands for; infinite if it is symbolic."""
    data, rows = _input_shape(sch, anchor), extent(sch, sch.get_loops(anchor)[2])
    if rows is None or any(size is None for size in data):
        return float("inf")
    elements = 4.0
    for size in data[1:]:
        elements *= size or 1
    return elements / rows


def _input_shape(sch: Schedule, anchor: Any) -> list[int | None]:
    """Return the extents of what the convolution reads beside its weights; None for a symbolic one."""
    source = sch.get(anchor).reads[0].source
    return [int(size) if str(size).isdigit() else None for size in source.shape]


def _is_pointwise(sch: Schedule, anchor: Any) -> bool:
    """Tell whether the kernel is 1 x 1 and input and output have the same static rows and columns."""
    loops = [extent(sch, loop) for loop in sch.get_loops(anchor)]
    data = _input_shape(sch, anchor)
    return (
        len(loops) == 9 and len(data) == 5 and loops[6:8] == [1, 1] and None not in data[2:4] and data[2:4] == loops[2:4]
    )


def _flatten(sch: Schedule, anchor: Any, output: Any) -> None:
    """Make one axis of rows and columns, of the accumulators too."""
    width = extent(sch, sch.get_loops(output)[3])

    def flat(n: Any, c: Any, h: Any, w: Any, *inner: Any) -> tuple[Any, ...]:
        return (n, c, h * width + w, *inner)

    def flat_anchor(n: Any, c: Any, h: Any, w: Any, v: Any, a: Any, b: Any, d: Any, e: Any) -> tuple[Any, ...]:
        return flat(n, c, h, w, v, a, b, d, e)

    def flat_output(n: Any, c: Any, h: Any, w: Any, v: Any) -> tuple[Any, ...]:
        return flat(n, c, h, w, v)

    sch.transform_layout(anchor, ("write", 0), flat_output)
    sch.transform_block_layout(output, flat_output)
    sch.transform_block_layout(anchor, flat_anchor)


def _accumulate(sch: Schedule, anchor: Any, tile: Any, rows_below: int) -> None:
    """Compute the accumulators of one tile: the reduction outside, the tile unrolled inside.

    Columns lie outside of blocks: what a column broadcasts is used up before the next one is loaded.
    """
    sch.compute_at(anchor, tile, preserve_unit_loops=True)
    loops = sch.get_loops(anchor)
    image, block, *row, column, lane = loops[2 + rows_below : 6 + 2 * rows_below]
    reduction = loops[6 + 2 * rows_below :]
    sch.reorder(image, *row, *reduction, column, block, lane)
    unroll_and_vectorize(sch, [column, block, lane])
    zero = sch.decompose_reduction(anchor, reduction[0])
    unroll_and_vectorize(sch, sch.get_loops(zero)[-3:])
