"""Where in one arena each tensor of a run lies: two that are alive at the same time never overlap.

Tensors are placed from the largest to the smallest, each into the tightest gap between those that are alive
with it and are placed already ("greedy by size", Pisarchyk and Lee, "Efficient Memory Management for Deep
Neural Net Inference", MLSys 2020). The result is the best of that and of placing by the step at which most is
alive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector."""


@dataclass(frozen=True)
class Lifetime:
    """A tensor of `size` bytes that is written at step `first`, and read for the last time at step `last`."""

    size: int
    first: int
    last: int

    def meets(self, other: Lifetime) -> bool:
        """Tell whether both are alive at some step."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class MemoryPlan:
    """The offset of each tensor in an arena of `size` bytes; `alive` are the bytes in use at each step."""

    offsets: tuple[int, ...]
    size: int
    alive: tuple[int, ...]

    @property
    def least(self) -> int:
        """What any plan needs."""
        return max(self.alive, default=0)


def plan_memory(tensors: Sequence[Lifetime]) -> MemoryPlan:
    """Return offsets of `tensors`, multiples of `ALIGNMENT`."""
    sizes = [aligned(each.size) for each in tensors]
    alive = _alive(tensors, sizes)
    orders: list[Callable[[int], tuple[int, ...]]] = [
        lambda place: (-sizes[place], tensors[place].first),
        lambda place: (-max(alive[tensors[place].first : tensors[place].last + 1]), -sizes[place]),
    ]
    plans = [_placed(tensors, sizes, sorted(range(len(tensors)), key=order)) for order in orders]
    offsets, size = min(plans, key=lambda plan: plan[1])
    return MemoryPlan(tuple(offsets), size, tuple(alive))


def aligned(size: int) -> int:
    """Return the least multiple of `ALIGNMENT` that holds `size` bytes."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def _alive(tensors: Sequence[Lifetime], sizes: Sequence[int]) -> list[int]:
    """Return the bytes alive at each step."""
    steps = [0] * (1 + max((each.last for each in tensors), default=-1))
    for each, size in zip(tensors, sizes, strict=True):
        for step in range(each.first, each.last + 1):
            steps[step] += size
    return steps


def _placed(tensors: Sequence[Lifetime], sizes: Sequence[int], order: Sequence[int]) -> tuple[list[int], int]:
    """Place tensors in that order; return their offsets, and the end of the last one."""
    offsets = [0] * len(tensors)
    placed: list[int] = []
    for place in order:
        taken = sorted(
            (offsets[other], offsets[other] + sizes[other])
            for other in placed
            if tensors[place].meets(tensors[other])
        )
        offsets[place] = _tightest(taken, sizes[place])
        placed.append(place)
    return offsets, max((offsets[place] + sizes[place] for place in placed), default=0)


def _tightest(taken: Sequence[tuple[int, int]], size: int) -> int:
    """Return the offset of the smallest gap of `size` bytes in what is `taken`, in order, or behind it."""
    end, best, room = 0, -1, -1
    for begin, stop in taken:
        gap = begin - end
        if gap >= size and (best < 0 or gap < room):
            best, room = end, gap
        end = max(end, stop)
    return end if best < 0 else best
