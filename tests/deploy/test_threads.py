import threading

import pytest

from compiler.deploy import choose_threads, use_threads
from compiler.deploy.threads import available_cpus
from compiler.support.errors import KilnWarning, UsageError

CPUS = len(available_cpus())


def in_a_fresh_thread(work):
    """TVM's pool belongs to a thread, and so do its tests."""
    results = []

    def run():
        try:
            results.append(work())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


def test_who_decides():
    assert 1 <= choose_threads(None) <= CPUS
    assert choose_threads(None, recorded=1) == 1
    assert choose_threads(None, recorded=10_000) == CPUS
    assert choose_threads(CPUS, recorded=1) == CPUS


@pytest.mark.parametrize("count", [0, -1, CPUS + 1])
def test_counts_that_cannot_be(count):
    with pytest.raises(UsageError, match=f"expected 1 to {CPUS} threads .*, got {count}"):
        choose_threads(count)


def test_tvm_gets_the_count_also_a_greater_one_later():
    import tvm

    def work():
        counted = []
        for count in (1, CPUS, 1, CPUS):
            use_threads(count)
            counted.append(int(tvm.get_global_func("runtime.NumThreads")()))
        return counted

    # TVM_NUM_THREADS is 1 in tests: Kiln's own count must win.
    assert in_a_fresh_thread(work) == [1, CPUS, 1, CPUS]


@pytest.mark.skipif(CPUS < 2, reason="one CPU cannot be too few")
def test_a_pool_that_is_too_small_is_reported():
    import tvm

    def work():
        tvm.get_global_func("runtime.NumThreads")()  # makes the pool, of TVM_NUM_THREADS = 1
        with pytest.warns(KilnWarning, match=f"expected {CPUS} threads, got 1"):
            use_threads(CPUS)

    in_a_fresh_thread(work)
