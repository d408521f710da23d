"""Softmax, layer norm and their like: each row is reduced, then mapped, while it is in the cache.

    parallel over rows
      reduce the row (the lanes of a vector first, then across them), as often as the kernel asks
      map the row

Applies where all blocks run over the same leading axes, the rows.
"""

from __future__ import annotations

import math
from typing import Any

from tvm.s_tir import Schedule

from compiler.schedule.blocks import (
    all_blocks,
    extent,
    inline_elementwise,
    is_reduction,
    is_spatial,
    place_partial,
    reduce_in_lanes,
    reduces_last_axis,
    vector_lanes,
    vectorize_last,
)
from compiler.target import Target

NAME = "rows"


def apply(sch: Schedule, target: Target) -> bool:
    """Schedule the kernel if it reduces and maps rows; tell whether it does."""
    inline_elementwise(sch)
    blocks = all_blocks(sch)
    reductions = [block for block in blocks if is_reduction(sch, block)]
    if not reductions or not all(is_spatial(sch, b) or is_reduction(sch, b) for b in blocks):
        return False
    rank = _row_rank(sch, blocks)
    if not is_spatial(sch, blocks[-1]) or rank == 0 or not all(reduces_last_axis(sch, b) for b in reductions):
        return False
    partials = [reduce_in_lanes(sch, block, vector_lanes(sch, block, target)) for block in reductions]
    placed_alone = {sch.get(partial).name_hint for partial in partials if partial is not None}
    row = sch.fuse(*sch.get_loops(blocks[-1])[:rank])
    sch.parallel(row)
    *inner, output = all_blocks(sch)
    for block in reversed(inner):
        if sch.get(block).name_hint in placed_alone:
            place_partial(sch, block, row)
            continue
        sch.compute_at(block, row, preserve_unit_loops=True)
        if is_spatial(sch, block):
            vectorize_last(sch, block, vector_lanes(sch, block, target))
    vectorize_last(sch, output, vector_lanes(sch, output, target))
    return True


def _row_rank(sch: Schedule, blocks: list[Any]) -> int:
    """Return how many leading loops all blocks share, 0 if they are too few to spread over threads."""
    *nests, output = ([extent(sch, loop) for loop in sch.get_loops(block)] for block in blocks)
    rank = 0
    while rank < len(output) - 1 and all(
        rank < len(nest) and nest[rank] == output[rank] is not None for nest in nests
    ):
        rank += 1
    return rank if math.prod(count or 1 for count in output[:rank]) > 1 else 0
