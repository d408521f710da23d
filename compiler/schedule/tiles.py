"""Register tiles: how many rows and vectors one accumulator tile holds, chosen by a small cost formula."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from compiler.target import Target

LATENCY_TIMES_PORTS = 8
"""Independent accumulators that keep two FMA pipes of latency 4 busy (Zen 4, Golden Cove: 4 cycles, 2
pipes; uops.info). Fewer leave the pipes waiting."""


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
    """Return the estimated cost of one useful FMA, relative to the ideal 1.

    The product of three factors: lanes computed per lane wanted (the last tile is shorter, and runs as
    slowly as the latency of its few accumulators allows); loads per FMA, which weigh little where the FMA
    reads a broadcast from memory itself (AVX-512) and half an FMA elsewhere; and pipes left waiting.
    """
    load = 0.1 if target.vector.bits >= 512 else 0.5
    loads = 1 + load * (tile.rows + tile.vectors) / tile.accumulators
    return _waste(tile.rows, rows, tile.vectors) * _waste(tile.vectors, vectors, tile.rows) * loads


def _waste(size: int, extent: int | None, other: int) -> float:
    """Return time per useful row over the ideal, for tiles of `size` along an axis of `extent`."""
    full, rest = divmod(extent, size) if extent is not None else (64, 0)

    def time(rows: int) -> float:
        return max(rows * other, LATENCY_TIMES_PORTS) / other if rows else 0.0

    return (full * time(size) + time(rest)) / (full * size + rest)


def choose_tile(tiles: Iterable[Tile], rows: int | None, vectors: int | None, target: Target) -> Tile:
    """Return the cheapest of `tiles` for `rows` by `vectors` outputs; None stands for a symbolic extent."""
    fitting = [
        tile
        for tile in tiles
        if (rows is None or tile.rows <= rows) and (vectors is None or tile.vectors <= vectors)
    ]
    return min(fitting, key=lambda tile: (cost(tile, rows, vectors, target), -tile.accumulators))
