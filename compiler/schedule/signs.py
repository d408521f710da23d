"""Signs of rows of floats, packed into words (`compiler.passes.kernels.binary`).

parallel over rows and vectors of words
32 times, unrolled:  compare a vector, set a bit in each lane
"""

from __future__ import annotations

from tvm.s_tir import Schedule

from compiler.passes.kernels.binary import LANES
from compiler.schedule.blocks import all_blocks, extent, find_anchor, is_spatial, unroll_and_vectorize
from compiler.target import Target

NAME = "signs"
_WORTH_A_THREAD = 64
"""Vectors of words below which waking the other threads costs more than it saves."""


def apply(sch: Schedule, target: Target) -> bool:
    """Schedule the kernel if it packs the signs of rows; tell whether it does."""
    del target
    anchor = find_anchor(sch, "signs")
    if anchor is None:
        return False
    name = sch.get(anchor).name_hint
    others = [block for block in all_blocks(sch) if sch.get(block).name_hint != name]
    if not all(is_spatial(sch, block) for block in others) or sch.get(all_blocks(sch)[-1]).name_hint != name:
        return False
    for block in others:
        sch.compute_inline(block)
    output = sch.cache_write(anchor, 0, "local")
    *rows, word = sch.get_loops(output)
    lanes = int(sch.get(anchor).annotations[LANES])
    vectors, lane = sch.split(word, [None, lanes])
    task = sch.fuse(*rows, vectors)
    if (extent(sch, task) or _WORTH_A_THREAD) >= _WORTH_A_THREAD:
        sch.parallel(task)
    sch.vectorize(lane)
    sch.compute_at(anchor, task, preserve_unit_loops=True)
    word, bit = sch.get_loops(anchor)[-2:]
    sch.reorder(bit, word)
    unroll_and_vectorize(sch, [bit, word])
    zero = sch.decompose_reduction(anchor, bit)
    sch.vectorize(sch.get_loops(zero)[-1])
    return True
