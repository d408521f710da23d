"""How many threads TVM runs kernels on.

TVM keeps one pool for each thread that calls it, sizes it when it is first used (by itself for half of the
CPUs on x86, or what OMP_NUM_THREADS says) and can never enlarge it. So the count is set before the first
call of every thread, with room for all CPUs.
"""

from __future__ import annotations

import os
import threading
import warnings

from compiler.support.errors import KilnWarning, UsageError

_SHARE_ALL_CPUS = -3
"""TVM's affinity mode that pins no thread to a core."""

_PIN_WORKERS = -2
"""The one that pins all but the calling thread, each to a core."""

_mine = threading.local()


def available_cpus() -> list[int]:
    """Return the numbers of the CPUs (hyper-threads) that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def choose_threads(wanted: int | None, recorded: int | None = None) -> int:
    """Return how many threads to use: the user's count, else the recorded one, else one per physical core.

    A recorded count is cut to the CPUs that this machine has; the user's own must fit.

    Raises:
        UsageError: the user wants less than one thread or more than there are CPUs.
    """
    cpus = len(available_cpus())
    if wanted is not None:
        if not 1 <= wanted <= cpus:
            raise UsageError(f"expected 1 to {cpus} threads (the CPUs of this machine), got {wanted}")
        return wanted
    if recorded is not None:
        return min(recorded, cpus)
    from compiler.target_detect import usable_cores

    return min(usable_cores(), cpus)


def use_threads(count: int) -> None:
    """Make the calling thread's kernels run on `count` threads, itself included."""
    if getattr(_mine, "count", None) == count:
        return
    import tvm

    cpus = available_cpus()
    # With a thread for every CPU, Linux now and then leaves two on one for seconds, and another CPU idle.
    mode = _PIN_WORKERS if 1 < count == len(cpus) else _SHARE_ALL_CPUS
    tvm.get_global_func("runtime.config_threadpool")(mode, count, [str(cpu) for cpu in cpus])
    got = int(tvm.get_global_func("runtime.NumThreads")())
    if got < count:
        warnings.warn(
            f"expected {count} threads, got {got}: TVM ran in this thread before Kiln and made a smaller "
            f"pool; set TVM_NUM_THREADS={count} or call compiler.load first",
            KilnWarning,
            stacklevel=3,
        )
    _mine.count = count
