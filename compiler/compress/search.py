"""Which layers have to stay in float for a score not to drop by more than is allowed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compiler.support.progress import note


@dataclass(frozen=True)
class Found:
    """The layers kept in float, the most sensitive first, the score with them, and whether it suffices."""

    kept: tuple[str, ...]
    score: float
    met: bool


def keep_fewest(layers: Sequence[str], score: Callable[[Sequence[str]], float], least: float) -> Found:
    """Keep as few of `layers` in float, the first ones first, as give a score of at least `least`.

    By bisection: more layers in float are taken to give no lower a score. At least one layer is quantized; if
    that is too much, the best that was tried is returned.
    """
    tried: dict[int, float] = {}

    def at(count: int) -> float:
        if count not in tried:
            tried[count] = score(layers[:count])
            note(f"score {tried[count]:.4g} with {count} of {len(layers)} layers in float")
        return tried[count]

    low, high = 0, len(layers) - 1
    if at(low) < least and at(high) >= least:
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if at(middle) >= least else (middle, high)
    met = [count for count, value in tried.items() if value >= least]
    best = min(met) if met else max(tried, key=lambda count: (tried[count], -count))
    return Found(tuple(layers[:best]), tried[best], bool(met))
