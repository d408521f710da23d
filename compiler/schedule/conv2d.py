"""Convolutions in the blocked layout.

parallel over image, chunk of rows, blocks of output channels
  row, tile of columns:  accumulators = 0
    reduce over input channels, kernel rows, kernel columns
      accumulators += broadcast(input) * weights      (columns unrolled, channels one vector)
    output = epilogue(accumulators)                   (bias, residual, activation)

A pointwise convolution has no rows: all columns of an image are one row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm.s_tir import Schedule

from compiler.passes.kernels import GROUPS
from compiler.passes.kernels.narrow import parts_of
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
from compiler.schedule.decode import decode_in_place, decode_in_task
from compiler.schedule.dot_product import DOT_PRODUCT, instruction, temporaries
from compiler.schedule.gate import is_gate, schedule_gate
from compiler.schedule.space import Decide, Space, untuned
from compiler.schedule.tasks import choose_chunk, divisors
from compiler.schedule.tiles import Tile, choose_tile, legal_tiles
from compiler.target import Target

NAME = "conv2d"
_NEON_SPARE = 4
"""Vector registers that LLVM needs beside those of a tile; with fewer it spills (on Cortex-A53 and A72)."""


@dataclass(frozen=True)
class Decisions:
    """`tile.rows` output columns by `tile.vectors` blocks of output channels in registers.

    One task computes `chunk` rows of output, or `chunk` tiles of a pointwise convolution. Tasks that follow
    one another share rows of the input, or, with `blocks_first`, the weights. A tile is summed over the
    kernel's places for one input channel after the other, or, with `kernel_first`, the other way round.
    """

    tile: Tile
    chunk: int
    blocks_first: bool = False
    kernel_first: bool = False


def legal(target: Target, *, narrow: str | None = None) -> list[Tile]:
    """Return every tile that `target` has registers for; `narrow` is the dtype of narrow numbers."""
    tiles = legal_tiles(target, max_rows=28, max_vectors=4)
    if narrow:
        spare = target.vector.registers - temporaries(target, narrow)
        return [tile for tile in tiles if tile.accumulators + 2 * tile.vectors <= spare]
    if target.arch not in ("aarch64", "arm"):
        return tiles
    # LLVM loads four input channels of a column at once for NEON, so each row has a register of its own.
    spare = target.vector.registers - _NEON_SPARE
    return [tile for tile in tiles if tile.accumulators + tile.rows + tile.vectors <= spare]


@dataclass(frozen=True)
class Extents:
    """The output's extents, rows 1 for a pointwise convolution; None stands for a symbolic one.

    A row of it reads `row_bytes` bytes of the input; an input channel belongs to one of `groups`. `narrow`
    is the dtype of bytes or short floats that are multiplied. The kernel has `places`.
    """

    images: int | None
    blocks: int | None
    rows: int | None
    columns: int | None
    row_bytes: float
    groups: int = 1
    narrow: str | None = None
    places: int = 1

    @property
    def shared(self) -> int | None:
        """The blocks of output channels that read the same input channels."""
        return self.blocks if self.blocks is None else self.blocks // self.groups

    def steps(self, tile: Tile) -> int:
        """How many rows, or tiles of the one row, tasks divide."""
        return (self.rows or 1) if self.rows != 1 else -(-(self.columns or 1) // tile.rows)


def default(extents: Extents, target: Target) -> Decisions:
    """Return the cheapest decisions for a convolution."""
    images, blocks, rows, columns = extents.images, extents.blocks, extents.rows, extents.columns
    tile = choose_tile(_tiles(extents, target), columns, extents.shared)
    others = None if blocks is None or images is None else images * -(-blocks // tile.vectors)
    if rows != 1 or columns is None:
        return Decisions(tile, choose_chunk(rows, extents.row_bytes, others, target))
    steps = -(-columns // tile.rows)
    return Decisions(tile, choose_chunk(steps, extents.row_bytes / steps, others, target))


def space(extents: Extents, target: Target) -> Space[Decisions]:
    """Return what can be decided; nothing where an extent is symbolic."""
    best = default(extents, target)
    if None in (extents.images, extents.blocks, extents.rows, extents.columns):
        return Space(best)
    fitting = [
        tile
        for tile in _tiles(extents, target)
        if tile.rows <= (extents.columns or 1) and tile.vectors <= (extents.shared or 1)
    ]
    several = (extents.blocks or 1) > 1
    axes: dict[str, Sequence[Any]] = {
        "tile": fitting,
        "chunk": divisors(*map(extents.steps, fitting)),
        "blocks_first": (False, True) if several else (False,),
        "kernel_first": (False, True) if extents.places > 1 else (False,),
    }
    return Space(best, axes, lambda decisions: extents.steps(decisions.tile) % decisions.chunk == 0)


def _tiles(extents: Extents, target: Target) -> list[Tile]:
    """Return the tiles that can be made of a convolution."""
    shared, columns = extents.shared, extents.columns
    # Blocks of one tile share what is broadcast, so they must read the same channels.
    tiles = [
        tile
        for tile in legal(target, narrow=extents.narrow)
        if extents.groups == 1 or (shared or 1) % tile.vectors == 0
    ]
    if extents.images is None and columns is not None:
        # Beside a symbolic extent TVM's loop partitioning mixes indices of 32 and 64 bits: no shorter tile.
        tiles = [tile for tile in tiles if columns % tile.rows == 0]
    return tiles


def apply(sch: Schedule, target: Target, decide: Decide = untuned) -> bool:
    """Schedule the kernel if it is a blocked convolution; tell whether it is."""
    anchor = find_anchor(sch, "conv2d")
    if anchor is None:
        return False
    if is_gate(sch, anchor):
        decode_in_place(sch)
        return schedule_gate(sch, anchor)
    output = epilogue(sch, anchor)
    if output is None or len(sch.get_loops(output)) != 5:
        return False
    row_bytes = _row_bytes(sch, anchor)
    pointwise = _is_pointwise(sch, anchor)
    if pointwise:
        _flatten(sch, anchor, output)
    image, block, *row, column, lane = sch.get_loops(output)
    rows = extent(sch, row[0]) if row else 1
    sizes = (extent(sch, image), extent(sch, block), rows, extent(sch, column))
    groups = int(sch.get(anchor).annotations.get(GROUPS, 1))
    extents = Extents(*sizes, row_bytes, groups, narrow_dtype(sch, anchor), _places(sch, anchor))
    decisions: Decisions = decide(NAME, space(extents, target))
    outer_block, inner_block = sch.split(block, [None, decisions.tile.vectors])
    outer_column, inner_column = sch.split(column, [None, decisions.tile.rows])
    chunk, step = sch.split(row[0] if row else outer_column, [None, decisions.chunk])
    steps = [step, outer_column] if row else [step]
    sch.reorder(image, chunk, outer_block, *steps, inner_column, inner_block, lane)
    sch.annotate(steps[-1], PARTITION, 1)
    if decisions.blocks_first:
        sch.reorder(outer_block, chunk)
    task = sch.fuse(image, *((outer_block, chunk) if decisions.blocks_first else (chunk, outer_block)))
    sch.parallel(task)
    _accumulate(sch, anchor, steps[-1], target, len(row), kernel_first=decisions.kernel_first)
    decode_in_task(sch, task)
    unroll_and_vectorize(sch, sch.get_loops(output)[-3:])
    schedule_copies(sch)
    return True


def _places(sch: Schedule, anchor: Any) -> int:
    """Return how many places the kernel has."""
    weight = sch.get(anchor).reads[1].source
    return math.prod(int(size) for size in weight.shape[2:4])


def _row_bytes(sch: Schedule, anchor: Any) -> float:
    """Return how many bytes of the input one row of the output stands for; infinite if it is symbolic."""
    data, rows = _input_shape(sch, anchor), extent(sch, sch.get_loops(anchor)[2])
    if rows is None or any(size is None for size in data):
        return float("inf")
    dtype = narrow_dtype(sch, anchor)
    size = 4.0 if dtype is None else 4.0 / parts_of(dtype)
    for each in data[1:]:
        size *= each or 1
    return size / rows


def _input_shape(sch: Schedule, anchor: Any) -> list[int | None]:
    """Return the extents of what the convolution reads beside its weights; None for a symbolic one."""
    source = sch.get(anchor).reads[0].source
    return [int(size) if str(size).isdigit() else None for size in source.shape]


def _is_pointwise(sch: Schedule, anchor: Any) -> bool:
    """Tell whether the kernel is 1 x 1 and input and output have the same static rows and columns."""
    loops = [extent(sch, loop) for loop in sch.get_loops(anchor)]
    data = _input_shape(sch, anchor)
    if len(loops) not in (9, 10) or len(data) != 5 or None in data[2:4]:
        return False
    return loops[6:8] == [1, 1] and data[2:4] == loops[2:4]


def _flatten(sch: Schedule, anchor: Any, output: Any) -> None:
    """Make one axis of rows and columns, of the accumulators too."""
    width = extent(sch, sch.get_loops(output)[3])

    def flat(n: Any, c: Any, h: Any, w: Any, *inner: Any) -> tuple[Any, ...]:
        return (n, c, h * width + w, *inner)

    reindex(sch, anchor, output, flat)


def _accumulate(
    sch: Schedule, anchor: Any, tile: Any, target: Target, rows_below: int, *, kernel_first: bool
) -> None:
    """Compute the accumulators of one tile: the reduction outside, the tile unrolled inside.

    Columns lie outside of blocks: what a column broadcasts is used up before the next one is loaded.
    """
    sch.compute_at(anchor, tile, preserve_unit_loops=True)
    loops = sch.get_loops(anchor)
    image, block, *row, column, lane = loops[2 + rows_below : 6 + 2 * rows_below]
    reduction = loops[6 + 2 * rows_below :]
    if len(reduction) == 3:
        # A first layer: with the kernel's columns innermost, LLVM would unroll them and keep each input that
        # two columns of the output share, in registers that there are not.
        channel, kernel_row, kernel_column = reduction
        reduction = (
            [kernel_row, kernel_column, channel] if kernel_first else [kernel_column, channel, kernel_row]
        )
    elif kernel_first:
        channel, kernel_row, kernel_column, *inner = reduction
        reduction = [kernel_row, kernel_column, channel, *inner]
    dtype = narrow_dtype(sch, anchor)
    if dtype is None:
        sch.reorder(image, *row, *reduction, column, block, lane)
        unroll_and_vectorize(sch, [column, block, lane])
    else:
        *reduction, part = reduction
        sch.reorder(image, *row, *reduction, column, block, lane, part)
        if len(reduction) == 4 and not kernel_first:
            # One loop: of two, LLVM unrolls both, and keeps all inputs that columns of the output share.
            reduction = [*reduction[:2], sch.fuse(*reduction[2:])]
        sch.unroll(column)
        sch.unroll(block)
    zero = sch.decompose_reduction(anchor, reduction[0])
    unroll_and_vectorize(sch, sch.get_loops(zero)[-3:])
    if dtype is not None:
        sch.annotate(lane, DOT_PRODUCT, instruction(target, dtype))
