"""Register tiles: how many rows and vectors one accumulator tile holds, chosen by a small cost formula."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from compiler.target import Target

LATENCY_TIMES_PORTS = 8
"""Independent accumulators that keep two FMA pipes of latency 4 busy (Zen 4, Golden Cove: 4 cycles, 2
pipes; uops.info). Fewer leave the pipes waiting."""
_SECOND_CODE = 1.02
"""A shorter last tile is code of its own, to be compiled and fetched: no gain unless it saves this much."""
_LONG = 1 << 12
"""The length assumed for a symbolic extent."""


@dataclass(frozen=True)
class Tile:
    """`rows` broadcast inputs by `vectors` vectors of weights, accumulated in rows * vectors registers."""

    rows: int
    vectors: int

    @property
    def accumulators(self) -> int:
        """How many registers the tile accumulates in."""
        return self.rows * self.vectors


def legal_tiles(target: Target, max_rows: int, max_vectors: int) -> list[Tile]:
    """Return the tiles that fit the vector registers of `target`: accumulators, weights and broadcasts.

    A broadcast that several vectors use is held in a register, and LLVM loads those of all rows ahead.
    """
    registers = target.vector.registers
    return [
        Tile(rows, vectors)
        for rows in range(1, max_rows + 1)
        for vectors in range(1, max_vectors + 1)
        if rows * vectors + vectors + (rows if vectors > 1 else 1) <= registers
    ]


def cost(tile: Tile, rows: int | None, vectors: int | None, target: Target) -> float:
    """Return the estimated time for `rows` by `vectors` outputs over that of an ideal machine, at least 1.

    A step of a tile's reduction takes one cycle an FMA, or as long as the latency of its few accumulators
    allows, and a little for each load: little where the FMA reads a broadcast from memory itself
    (AVX-512), half an FMA elsewhere. The last tile along each axis is as short as it must be.
    """
    load = 0.1 if target.vector.bits >= 512 else 0.5

    def step(height: int, width: int) -> float:
        return max(height * width, LATENCY_TIMES_PORTS) + load * (height + width) if height * width else 0.0

    full_rows, last_rows = divmod(rows or _LONG, tile.rows)
    full_vectors, last_vectors = divmod(vectors or _LONG, tile.vectors)
    total = full_rows * full_vectors * step(tile.rows, tile.vectors)
    total += full_vectors * step(last_rows, tile.vectors) + full_rows * step(tile.rows, last_vectors)
    total += step(last_rows, last_vectors)
    if last_rows or last_vectors:
        total *= _SECOND_CODE
    return total / ((rows or _LONG) * (vectors or _LONG))


def choose_tile(tiles: Iterable[Tile], rows: int | None, vectors: int | None, target: Target) -> Tile:
    """Return the cheapest of `tiles` for `rows` by `vectors` outputs; None stands for a symbolic extent."""
    fitting = [
        tile
        for tile in tiles
        if (rows is None or tile.rows <= rows) and (vectors is None or tile.vectors <= vectors)
    ]
    return min(fitting, key=lambda tile: (cost(tile, rows, vectors, target), -tile.accumulators))
