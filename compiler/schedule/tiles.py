"""Register tiles: how many rows and vectors one accumulator tile holds, chosen by a small cost formula."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from compiler.target import Target

BUSY = 10
"""Independent accumulators that keep two FMA pipes of latency 4 busy (Zen 3, Zen 4, Golden Cove: 4 cycles, 2
pipes; uops.info), and two more for what is not issued at once. Fewer leave the pipes waiting."""
_LOAD = 1.25
"""What a load takes in FMAs: cores have as many load ports as FMA pipes, but never keep all of both busy."""
_HIDDEN = 0.04
"""The part of its time that a load costs although FMAs hide it."""
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
    """Return the tiles that fit the vector registers of `target`.

    These hold the accumulators, the weights and a broadcast; one is spare.
    """
    registers = target.vector.registers
    return [
        Tile(rows, vectors)
        for rows in range(1, max_rows + 1)
        for vectors in range(1, max_vectors + 1)
        if rows * vectors + vectors + 1 < registers
    ]


def cost(tile: Tile, rows: int | None, vectors: int | None) -> float:
    """Return the estimated time for `rows` by `vectors` outputs over that of an ideal machine, at least 1.

    A step of a tile's reduction takes as long as its FMAs, its loads (one a row, one a vector) or the
    latency of its few accumulators, whichever is longest. The last tile along each axis is as short as it
    must be.
    """

    def step(height: int, width: int) -> float:
        if not height * width:
            return 0.0
        loads = _LOAD * (height + width)
        return max(height * width, loads, BUSY) + _HIDDEN * loads

    full_rows, last_rows = divmod(rows or _LONG, tile.rows)
    full_vectors, last_vectors = divmod(vectors or _LONG, tile.vectors)
    total = full_rows * full_vectors * step(tile.rows, tile.vectors)
    total += full_vectors * step(last_rows, tile.vectors) + full_rows * step(tile.rows, last_vectors)
    total += step(last_rows, last_vectors)
    if last_rows or last_vectors:
        total *= _SECOND_CODE
    return total / ((rows or _LONG) * (vectors or _LONG))


def choose_tile(tiles: Iterable[Tile], rows: int | None, vectors: int | None) -> Tile:
    """Return the cheapest of `tiles` for `rows` by `vectors` outputs; None stands for a symbolic extent."""
    fitting = [
        tile
        for tile in tiles
        if (rows is None or tile.rows <= rows) and (vectors is None or tile.vectors <= vectors)
    ]
    return min(fitting, key=lambda tile: (cost(tile, rows, vectors), -tile.accumulators))
