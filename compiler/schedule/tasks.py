"""How much of a kernel one parallel task gets.

Enough to reuse what it loads, little enough to spread well.
"""

from __future__ import annotations

from compiler.target import Target

_EVEN = 1.06
"""How much longer than the mean the busiest thread may take before smaller tasks are worth their loads."""
_FEW = 4
"""Fewer steps than this reuse little of what they share: all in one task are better, if too long for the
cache."""


def choose_chunk(steps: int | None, step_bytes: float, others: int | None, target: Target) -> int:
    """Return how many of `steps` (rows, or tiles of rows) one task takes, a divisor of them.

    A kernel has `steps` times `others` equal pieces of work; tasks that follow one another on a thread
    share the input of a chunk, `step_bytes` a step. The largest chunk is taken that stays in half of the
    second-level cache and spreads evenly over the cores, contiguous runs of tasks a core, as TVM does.
    None stands for a symbolic extent.
    """
    if steps is None or others is None:
        return 1
    budget = max(target.caches.l2 // target.caches.l2_cores, target.caches.l1d) / 2
    # A divisor: of a shorter last chunk, TVM could not tell which of its tiles are whole.
    chunks = divisors(steps)[::-1]
    spreads = {chunk: _spread(steps, chunk, others, target.cores) for chunk in chunks}
    even = [chunk for chunk in chunks if spreads[chunk] <= _EVEN]
    if not even:
        return min(chunks, key=lambda chunk: spreads[chunk])
    cached = [chunk for chunk in even if chunk * step_bytes <= budget and chunk >= min(_FEW, steps)]
    return cached[0] if cached else even[0]


def divisors(*counts: int) -> list[int]:
    """Return the numbers that divide one of `counts`, from 1 on."""
    return sorted({part for count in set(counts) for part in range(1, count + 1) if count % part == 0})


def _spread(steps: int, chunk: int, others: int, cores: int) -> float:
    """Return the work of the busiest of `cores` over the mean."""
    sizes = [min(chunk, steps - start) for start in range(0, steps, chunk) for _ in range(others)]
    each = -(-len(sizes) // cores)
    busiest = max(sum(sizes[start : start + each]) for start in range(0, len(sizes), each))
    return busiest * cores / sum(sizes)
