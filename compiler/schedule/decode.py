"""Where a kernel decodes its weights (`compiler.passes.kernels.codes`).

Each weight is decoded once. Where one tile reads it, that is in registers, between load and product; where
several tiles do, it is before the first of them, into memory of the task's own that stays in a cache near:

parallel over ...                              parallel over ...
  decode the weights of the task                 tile:  reduce over words
  tile, tile, ...:  reduce over k                         unrolled, over the codes of a word:  shift, multiply
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tvm.s_tir import Schedule

from compiler.passes.kernels.codes import PER_WORD
from compiler.schedule.blocks import DECODED, all_blocks, unroll_and_vectorize
from compiler.schedule.tiles import Tile
from compiler.target import Target

_LONGEST = 64
"""Decoded vectors in one step of a loop: more of them would not stay among the decoded instructions."""


def decoding(sch: Schedule) -> Any | None:
    """Return the block that decodes the weights of a kernel, or None if they are floats."""
    found = [block for block in all_blocks(sch) if sch.get(block).name_hint == DECODED]
    return found[0] if found else None


def decode_in_task(sch: Schedule, task: Any) -> None:
    """Decode the weights of a kernel, if they are coded, in each iteration of `task`."""
    block = decoding(sch)
    if block is None:
        return
    sch.compute_at(block, task, preserve_unit_loops=True)
    *_, k, lane = sch.get_loops(block)
    _, place = sch.split(k, [None, per_word(sch, block)])
    unroll_and_vectorize(sch, [place, lane])


def decode_in_registers(sch: Schedule, k: Any) -> list[Any]:
    """Decode the weights of a kernel where they are read; returns the loops in place of `k`: words, codes."""
    block = decoding(sch)
    word, place = sch.split(k, [None, per_word(sch, block)])
    sch.unroll(place)
    sch.compute_inline(block)
    return [word, place]


def decode_in_place(sch: Schedule) -> None:
    """Decode the weights of a kernel, if they are coded, where they are read, one by one."""
    block = decoding(sch)
    if block is not None:
        sch.compute_inline(block)


def narrowed(sch: Schedule, tile: Tile, target: Target) -> Tile:
    """Return `tile` with no more vectors than a kernel has registers for that decodes in them."""
    block = decoding(sch)
    if block is None:
        return tile
    # Beside the accumulators there are the words of each vector, the code and what it is shifted from.
    spare = target.vector.registers - 4
    most = min(_LONGEST // per_word(sch, block), spare // (tile.rows + 1))
    return replace(tile, vectors=max(1, min(tile.vectors, most)))


def per_word(sch: Schedule, block: Any) -> int:
    """Return how many codes a word holds that `block` decodes."""
    return int(sch.get(block).annotations[PER_WORD])
