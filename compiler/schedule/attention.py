"""Attention: a tile of queries against all keys, its scores in the cache from the product to the sum.

parallel over batch, heads: pack the keys
parallel over batch, heads, chunk of queries
  tile of queries
    scores = q k^T          (a register tile of queries by vectors of keys)
    mask, maximum, exponential, sum: rows of vectors
    output = p v / sum      (a register tile of queries by vectors of depth)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm.s_tir import Schedule

from compiler.schedule.blocks import PARTITION, all_blocks, extent, find_anchor, unroll_and_vectorize
from compiler.schedule.space import Decide, Space, untuned
from compiler.schedule.tasks import choose_chunk, divisors
from compiler.schedule.tiles import Tile, choose_tile, legal_tiles
from compiler.target import Target

NAME = "attention"


@dataclass(frozen=True)
class Decisions:
    """`queries` share each key; a task takes `chunk` such tiles; vectors of keys, of depth in a tile."""

    queries: int
    key_vectors: int
    depth_vectors: int
    chunk: int


def default(queries: int, panels: int, depth_vectors: int, others: int, target: Target) -> Decisions:
    """Return the cheapest decisions for `others` heads of `queries` against `panels` vectors of keys."""
    tiles = legal_tiles(target, max_rows=16, max_vectors=4)
    scores = choose_tile(tiles, queries, panels)
    same = [tile for tile in tiles if tile.rows == min(scores.rows, queries)]
    product = choose_tile(same, scores.rows, depth_vectors)
    steps = -(-queries // scores.rows)
    return Decisions(scores.rows, scores.vectors, product.vectors, choose_chunk(steps, 0.0, others, target))


def space(queries: int, panels: int, depth_vectors: int, others: int, target: Target) -> Space[Decisions]:
    """Return what can be decided for `others` heads."""
    tiles = legal_tiles(target, max_rows=16, max_vectors=4)
    heights = sorted({tile.rows for tile in tiles if tile.rows <= queries})
    axes = {
        "queries": heights,
        "key_vectors": [vectors for vectors in range(1, 5) if vectors <= panels],
        "depth_vectors": [vectors for vectors in range(1, 5) if vectors <= depth_vectors],
        "chunk": divisors(*(-(-queries // height) for height in heights)),
    }

    def fits(decisions: Decisions) -> bool:
        both = (
            Tile(decisions.queries, decisions.key_vectors),
            Tile(decisions.queries, decisions.depth_vectors),
        )
        return all(tile in tiles for tile in both) and -(-queries // decisions.queries) % decisions.chunk == 0

    return Space(default(queries, panels, depth_vectors, others, target), axes, fits)


def apply(sch: Schedule, target: Target, decide: Decide = untuned) -> bool:
    """Schedule the kernel if it is attention; tell whether it is."""
    anchor = find_anchor(sch, "attention")
    if anchor is None:
        return False
    scores, output = sch.get_sblock("attention_scores"), _output(sch)
    batch, query, head, depth = sch.get_loops(output)
    lanes = extent(sch, sch.get_loops(scores)[4]) or 1
    panels = extent(sch, sch.get_loops(scores)[3]) or 1
    others = (extent(sch, batch) or 1) * (extent(sch, head) or 1)
    sizes = (extent(sch, query) or 1, panels, -(-(extent(sch, depth) or 1) // lanes))
    decisions: Decisions = decide(NAME, space(*sizes, others, target))
    tile, inner = sch.split(query, [None, decisions.queries])
    chunk, tile = sch.split(tile, [None, decisions.chunk])
    vectors, vector, lane = sch.split(depth, [None, decisions.depth_vectors, lanes])
    sch.reorder(batch, head, chunk, tile, vectors, inner, vector, lane)
    sch.annotate(tile, PARTITION, 1)
    sch.parallel(sch.fuse(batch, head, chunk))
    _product(sch, anchor, vectors)
    unroll_and_vectorize(sch, [inner, vector, lane])
    for name in ("total", "total_lanes", "weights", "highest", "highest_lanes", "masked"):
        _rows(sch, sch.get_sblock(f"attention_{name}"), tile)
    _scores(sch, scores, tile, decisions)
    _copies(sch)
    return True


def _output(sch: Schedule) -> Any:
    """Return the block of the output, with what is fused to it (a transposition, a cast) made part of it."""
    blocks = all_blocks(sch)
    names = [sch.get(block).name_hint for block in blocks]
    output = blocks[names.index("attention_output")]
    for block in blocks[names.index("attention_output") + 1 :]:
        sch.reverse_compute_inline(block)
    return output


def _product(sch: Schedule, anchor: Any, vectors: Any) -> None:
    sch.set_scope(anchor, 0, "local")
    sch.compute_at(anchor, vectors, preserve_unit_loops=True)
    *_, batch, query, head, vector, lane, reduced = sch.get_loops(anchor)
    sch.reorder(batch, head, reduced, query, vector, lane)
    unroll_and_vectorize(sch, [query, vector, lane])
    zero = sch.decompose_reduction(anchor, reduced)
    unroll_and_vectorize(sch, sch.get_loops(zero)[-3:])


def _rows(sch: Schedule, block: Any, tile: Any) -> None:
    """Compute `block` for one tile of queries; its innermost axis is one vector, or reduced lane by lane."""
    sch.compute_at(block, tile, preserve_unit_loops=True)
    name = sch.get(block).name_hint
    loops = sch.get_loops(block)
    if name in ("attention_total", "attention_highest"):
        return
    if name.endswith("_lanes"):
        *_, lane, reduced = loops
        sch.reorder(reduced, lane)
        sch.vectorize(lane)
        zero = sch.decompose_reduction(block, reduced)
        sch.vectorize(sch.get_loops(zero)[-1])
        return
    sch.vectorize(loops[-1])


def _scores(sch: Schedule, scores: Any, tile: Any, decisions: Decisions) -> None:
    copy = sch.cache_write(scores, 0, "local")
    sch.compute_at(copy, tile, preserve_unit_loops=True)
    *_, batch, head, query, panel, lane = sch.get_loops(copy)
    outer, inner = sch.split(panel, [None, decisions.key_vectors])
    sch.reorder(batch, head, outer, query, inner, lane)
    sch.annotate(outer, PARTITION, 1)
    sch.compute_at(scores, outer, preserve_unit_loops=True)
    unroll_and_vectorize(sch, [query, inner, lane])
    *_, batch, head, query, panel, lane, reduced = sch.get_loops(scores)
    sch.reorder(batch, head, reduced, query, panel, lane)
    unroll_and_vectorize(sch, [query, panel, lane])
    zero = sch.decompose_reduction(scores, reduced)
    unroll_and_vectorize(sch, sch.get_loops(zero)[-3:])


def _copies(sch: Schedule) -> None:
    """Pack the keys, and values whose depth no vector divides."""
    for block in all_blocks(sch):
        name = sch.get(block).name_hint
        if name == "attention_keys":
            batch, head, panel, _, lane = sch.get_loops(block)
            sch.unroll(lane)
            sch.parallel(sch.fuse(batch, head, panel))
        elif name == "attention_values":
            batch, position, head, panel, lane = sch.get_loops(block)
            sch.vectorize(lane)
            sch.parallel(sch.fuse(batch, position))
