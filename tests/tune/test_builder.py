"""Trials are built apart: in processes that may die, and in the workers of a cluster that may go away."""

import time

import pytest

from compiler.support.errors import UsageError
from compiler.target import load
from compiler.tune.builder import Builders, Cluster
from compiler.tune.trial import Outcome, Patience
from tests.conftest import needs
from tests.tune import faults

PATIENCE = Patience(build=faults.HURRY)


def built(builders, trials):
    """Return what comes of each of `trials`, in their order."""
    found, waiting = {}, list(enumerate(trials))
    end = time.monotonic() + 120
    while len(found) < len(trials):
        assert time.monotonic() < end
        while waiting and builders.has_room():
            place, trial = waiting.pop(0)
            builders.begin(place, faults.as_kernel().function, trial)
        time.sleep(0.02)
        found.update(builders.finished())
    return [found[place] for place in range(len(trials))]


def is_library(result):
    return isinstance(result, bytes) and result[:4] == b"\x7fELF"


def test_what_dies_or_hangs_while_it_is_built_costs_one_trial():
    default, dies, good, hangs, other = faults.trials(5)
    with Builders(load("host"), faults.deadly_linker, PATIENCE, 1) as builders:
        # The first trial of a process has time to load TVM.
        results = built(builders, [None, dies, default, hangs, good, other])
    assert results[1] == Outcome("not built", note="the process that built it died; out of memory?")
    assert results[3] == Outcome("not built", note=f"no code in {faults.HURRY} s")
    assert all(map(is_library, (results[0], results[2], results[4], results[5])))


@pytest.fixture(scope="module")
def dask():
    """A scheduler with one worker, a process, that is not asked twice for what killed it."""
    needs("distributed", why="pip install 'kiln-compiler[dask]'")
    import dask
    from distributed import LocalCluster

    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        cluster = LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
        )
        try:
            yield cluster
        finally:
            cluster.close()


def test_a_cluster_builds_until_it_goes_away(dask, capsys):
    default, dies, *good = faults.trials(4)
    address = dask.scheduler_address.replace("tcp://", "dask://")
    with Builders(load("host"), faults.deadly_linker, PATIENCE, 1, Cluster(address)) as builders:
        results = built(builders, [None, default, dies, good[0]])
        assert results[2] == Outcome("not built", note="the workers that built it died; out of memory?")
        assert all(map(is_library, (results[0], results[1], results[3])))
        dask.close()
        assert all(map(is_library, built(builders, [None, default])))


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("dask://127.0.0.1:1", "no Dask scheduler answers at 127.0.0.1:1"),
        ("ray://127.0.0.1:1", r"expected --workers dask://HOST:PORT, got 'ray://127.0.0.1:1'"),
        ("dask://", "expected --workers dask://HOST:PORT"),
    ],
)
def test_clusters_that_are_not_there(where, message, monkeypatch):
    needs("distributed", why="pip install 'kiln-compiler[dask]'")
    monkeypatch.setattr("compiler.tune.builder._CONNECT", 1)
    with pytest.raises(UsageError, match=message):
        Cluster(where)
