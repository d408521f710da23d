"""Gathers of channels in the blocked layout: vectors shuffled from others at the same pixel.

parallel over image and chunk of pixels
  for each block of channels, with code of its own:
    pixels of the chunk:  output = epilogue(shuffled vectors)
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm.s_tir import Schedule

from compiler.schedule.blocks import all_blocks, extent, find_anchor, trips
from compiler.schedule.tasks import choose_chunk
from compiler.target import Target

NAME = "channels"
_MOST_CODE = 64
"""Blocks of channels that get code of their own; of more, each pixel finds out which block it is in."""
_WORTH_A_THREAD = 1 << 12
"""Vectors below which waking the other threads costs more than it saves."""


def apply(sch: Schedule, target: Target) -> bool:
    """Schedule the kernel if it is a gather of channels; tell whether it is."""
    anchor = find_anchor(sch, NAME)
    if anchor is None:
        return False
    image, block, row, column = sch.get_loops(anchor)
    small = trips(sch, anchor) < _WORTH_A_THREAD
    chunk = None if small else _chunk(sch, anchor, target)
    _join_epilogue(sch, anchor, column)
    if extent(sch, row) is not None and extent(sch, column) is not None:
        row, column = sch.split(sch.fuse(row, column), [None, chunk] if chunk else [1, None])
    sch.reorder(image, row, block, column)
    if (extent(sch, block) or 0) <= _MOST_CODE:
        sch.unroll(block)
    task = sch.fuse(image, row)
    if not small:
        sch.parallel(task)
    return True


def _chunk(sch: Schedule, anchor: Any, target: Target) -> int | None:
    """Return how many pixels one task takes, whole rows if there are several; None if that is not known."""
    images, _, rows, columns = (extent(sch, loop) for loop in sch.get_loops(anchor))
    if rows is None or columns is None:
        return None
    steps, pixels = (rows, columns) if rows > 1 else (columns, 1)
    regions = (*sch.get(anchor).reads, *sch.get(anchor).writes)
    step_bytes = pixels * sum(_pixel_bytes(region.source) for region in regions)
    return pixels * choose_chunk(steps, step_bytes, images or 1, target)


def _pixel_bytes(tensor: Any) -> int:
    """Return the bytes that all channels of one pixel of the blocked `tensor` take."""
    _, blocks, _, _, lanes = tensor.shape
    return int(blocks) * int(lanes) * int(tvm.DataType(str(tensor.dtype)).bits) // 8


def _join_epilogue(sch: Schedule, anchor: Any, column: Any) -> None:
    """Compute what follows `anchor` from a vector that stays in a register."""
    others = [block for block in all_blocks(sch) if sch.get(block).name_hint != sch.get(anchor).name_hint]
    for block in others[:-1]:
        sch.compute_inline(block)
    for block in others[-1:]:
        sch.set_scope(anchor, 0, "local")
        sch.reverse_compute_at(block, column)
        sch.vectorize(sch.get_loops(block)[-1])
