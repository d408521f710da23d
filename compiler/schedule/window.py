"""Depthwise convolutions and pooling in the blocked layout: a window over each channel of its own.

parallel over image, block of channels, rows
  tile of columns:  accumulators = 0
    reduce over the window:  accumulators += input * weights, or their maximum     (channels one vector)
  output = epilogue(accumulators)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm.s_tir import Schedule

from compiler.schedule.blocks import (
    PARTITION,
    bytes_dtype,
    epilogue,
    extent,
    find_anchor,
    schedule_copies,
    unroll_and_vectorize,
)
from compiler.schedule.dot_product import BYTE_PRODUCT, instruction
from compiler.schedule.space import Decide, Space, untuned
from compiler.schedule.tasks import choose_chunk, divisors
from compiler.target import Target

NAME = "window"


@dataclass(frozen=True)
class Decisions:
    """One tile is `columns` vectors of output in registers, one task `chunk` rows."""

    columns: int
    chunk: int


def legal_columns(target: Target) -> list[int]:
    """Return the tiles that `target` has registers for: accumulators, as many inputs, and a weight."""
    return list(range(1, max(1, (target.vector.registers - 2) // 2) + 1))


def default(rows: int | None, columns: int | None, others: int | None, target: Target) -> Decisions:
    """Return the cheapest decisions for `others` blocks of channels, each `rows` by `columns`.

    The fewest tiles, and of these the most even.
    """
    widest = legal_columns(target)[-1]
    width = widest if columns is None else -(-columns // -(-columns // widest))
    if others is None and columns is not None:
        # Beside a symbolic extent TVM's loop partitioning mixes indices of 32 and 64 bits: no shorter tile.
        width = max(count for count in range(1, widest + 1) if columns % count == 0)
    return Decisions(width, choose_chunk(rows, 0.0, others, target))


def space(rows: int | None, columns: int | None, others: int | None, target: Target) -> Space[Decisions]:
    """Return what can be decided; nothing where an extent is symbolic."""
    best = default(rows, columns, others, target)
    if rows is None or columns is None or others is None:
        return Space(best)
    widths = [count for count in legal_columns(target) if count <= columns]
    return Space(best, {"columns": widths, "chunk": divisors(rows)})


def apply(sch: Schedule, target: Target, decide: Decide = untuned) -> bool:
    """Schedule the kernel if it is a blocked depthwise convolution or pooling; tell whether it is."""
    anchor = find_anchor(sch, NAME)
    if anchor is None:
        return False
    output = epilogue(sch, anchor)
    if output is None or len(sch.get_loops(output)) != 5:
        return False
    image, block, row, column, lane = sch.get_loops(output)
    images, blocks = extent(sch, image), extent(sch, block)
    others = None if images is None or blocks is None else images * blocks
    sizes = (extent(sch, row), extent(sch, column), others)
    decisions: Decisions = decide(NAME, space(*sizes, target))
    chunk, row = sch.split(row, [None, decisions.chunk])
    outer_column, inner_column = sch.split(column, [None, decisions.columns])
    sch.reorder(image, block, chunk, row, outer_column, inner_column, lane)
    sch.annotate(outer_column, PARTITION, 1)
    sch.parallel(sch.fuse(image, block, chunk))
    _accumulate(sch, anchor, outer_column, target)
    unroll_and_vectorize(sch, sch.get_loops(output)[-2:])
    schedule_copies(sch)
    return True


def _accumulate(sch: Schedule, anchor: Any, tile: Any, target: Target) -> None:
    """Compute the accumulators of one tile; see `compiler.schedule.conv2d` for the order of the kernel."""
    sch.compute_at(anchor, tile, preserve_unit_loops=True)
    *outside, column, lane, kernel_row, kernel_column = sch.get_loops(anchor)
    sch.reorder(*outside[-3:], kernel_row, kernel_column, column, lane)
    sch.unroll(kernel_column)
    sch.unroll(column)
    dtype = bytes_dtype(sch, anchor)
    if dtype is None:
        sch.vectorize(lane)
    zero = sch.decompose_reduction(anchor, kernel_row)
    unroll_and_vectorize(sch, sch.get_loops(zero)[-2:])
    if dtype is not None:
        sch.annotate(lane, BYTE_PRODUCT, instruction(target, dtype))
