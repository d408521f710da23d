import dataclasses
import math

import pytest

from compiler.schedule.tasks import choose_chunk
from compiler.target import Caches, load

TARGET = dataclasses.replace(load("x86-64-v3"), cores=4, caches=Caches(l1d=32 << 10, l2=256 << 10))


def busiest(steps, chunk, others, cores):
    """Return the steps of the thread that has most, by giving contiguous runs of tasks to threads."""
    tasks = [min(chunk, steps - first) for first in range(0, steps, chunk) for _ in range(others)]
    each = math.ceil(len(tasks) / cores)
    return max(sum(tasks[thread * each : (thread + 1) * each]) for thread in range(cores))


@pytest.mark.parametrize(("steps", "others"), [(None, 8), (56, None), (None, None)])
def test_symbolic_extents_make_the_smallest_tasks(steps, others):
    assert choose_chunk(steps, 1024.0, others, TARGET) == 1


@pytest.mark.parametrize("steps", [1, 7, 13, 28, 56, 112, 523])
@pytest.mark.parametrize("others", [None, 1, 3, 4, 32])
@pytest.mark.parametrize("step_bytes", [0.0, 3e3, 4e4, 5e5, math.inf])
def test_chunks_divide_the_steps(steps, others, step_bytes):
    assert steps % choose_chunk(steps, step_bytes, others, TARGET) == 0


@pytest.mark.parametrize("steps", [7, 13, 28, 56, 112])
@pytest.mark.parametrize("others", [4, 32])
@pytest.mark.parametrize("step_bytes", [3e3, 1e4, 2e4])
def test_a_chunk_stays_in_half_of_the_second_level_cache(steps, others, step_bytes):
    budget = TARGET.caches.l2 / 2
    chunk = choose_chunk(steps, step_bytes, others, TARGET)
    fitting = [n for n in range(4, steps + 1) if steps % n == 0 and n * step_bytes <= budget]
    # Every chunk is even here: four cores share a multiple of four.
    assert chunk == (max(fitting) if fitting else steps)


@pytest.mark.parametrize("steps", [1, 7, 13, 28, 56, 112])
@pytest.mark.parametrize("others", [1, 3, 4, 32])
def test_chunks_spread_as_evenly_as_single_steps_do(steps, others):
    mean = steps * others / TARGET.cores
    chunk = choose_chunk(steps, 0.0, others, TARGET)
    single = busiest(steps, 1, others, TARGET.cores)
    # 1.06 is what the choice allows for fewer loads.
    assert busiest(steps, chunk, others, TARGET.cores) <= max(single, 1.06 * mean)


def test_the_largest_of_the_even_chunks_is_taken():
    assert choose_chunk(56, 0.0, 4, TARGET) == 56
    assert choose_chunk(56, 0.0, 1, TARGET) == 14
    assert choose_chunk(56, 0.0, 2, TARGET) == 28
    # 128 KiB hold 12 rows of 10 KiB, and 8 is the next that divides 56.
    assert choose_chunk(56, 10240.0, 4, TARGET) == 8


def test_where_no_chunk_is_even_the_least_uneven_is_taken():
    assert choose_chunk(5, 0.0, 1, TARGET) == 1
    assert choose_chunk(1, 0.0, 5, TARGET) == 1


def test_too_few_steps_in_the_cache_reuse_nothing():
    """Chunks of one to three rows would read their weights anew for each: all rows are one task then."""
    assert choose_chunk(56, 4e4, 4, TARGET) == 56


def test_one_core_gets_all_that_its_cache_holds():
    alone = dataclasses.replace(TARGET, cores=1)
    assert choose_chunk(56, 0.0, 1, alone) == 56
    assert choose_chunk(56, 1e4, 1, alone) * 1e4 <= alone.caches.l2 / 2


def test_cores_that_share_a_cache_get_their_part_and_at_least_the_first_level():
    shared = dataclasses.replace(TARGET, caches=Caches(l1d=32 << 10, l2=256 << 10, l2_cores=4))
    none = dataclasses.replace(TARGET, caches=Caches(l1d=32 << 10))
    for target, part in ((shared, 64 << 10), (none, 32 << 10)):
        assert choose_chunk(64, 1024.0, 4, target) == part // 1024 // 2
