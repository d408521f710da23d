"""Squeeze-and-excitation: a convolution of one pixel whose result multiplies a whole image.

parallel over image, block of channels
  gate = epilogue(sum over input channels)       (one vector)
  every pixel:  output = gate * input

Scheduled like other convolutions, with the multiplication in the epilogue, the gate would be computed again
for every tile of the image.
"""

from __future__ import annotations

from typing import Any

from tvm.s_tir import Schedule

from compiler.schedule.blocks import all_blocks, extent, is_spatial


def is_gate(sch: Schedule, anchor: Any) -> bool:
    """Tell whether `anchor` makes one pixel for each channel, and the kernel's output has more of them."""
    blocks = all_blocks(sch)
    if _pixels(sch, anchor) != 1 or not all(is_spatial(sch, b) for b in _after(sch, anchor)):
        return False
    return len(sch.get_loops(blocks[-1])) == 5 and _pixels(sch, blocks[-1]) not in (1, None)


def _after(sch: Schedule, anchor: Any) -> list[Any]:
    names = [sch.get(block).name_hint for block in all_blocks(sch)]
    return all_blocks(sch)[names.index(sch.get(anchor).name_hint) + 1 :]


def _pixels(sch: Schedule, block: Any) -> int | None:
    """Return the rows times the columns of a blocked output."""
    counts = [extent(sch, loop) for loop in sch.get_loops(block)[2:4]]
    return None if len(counts) != 2 or None in counts else (counts[0] or 1) * (counts[1] or 1)


def schedule_gate(sch: Schedule, anchor: Any) -> bool:
    """Schedule such a kernel; always True."""
    *inner, output = _after(sch, anchor)
    gates = [block for block in inner if _pixels(sch, block) == 1]
    for block in inner:
        if _pixels(sch, block) != 1:
            sch.compute_inline(block)
    for block in gates[:-1]:
        sch.compute_inline(block)
    image, channels, *_, lane = sch.get_loops(output)
    task = sch.fuse(image, channels)
    sch.parallel(task)
    for block in [*gates[-1:][::-1], anchor]:
        sch.set_scope(block, 0, "local")
        sch.compute_at(block, task, preserve_unit_loops=True)
    for block in gates[-1:]:
        sch.vectorize(sch.get_loops(block)[-1])
    loops = sch.get_loops(anchor)[1:]
    across, reduction = loops[4], loops[5:]
    sch.reorder(*reduction, across)
    sch.vectorize(across)
    sch.vectorize(sch.get_loops(sch.decompose_reduction(anchor, reduction[0]))[-1])
    sch.vectorize(lane)
    return True
