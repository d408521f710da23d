"""How fast a machine is, is not asserted; what its numbers mean is."""

import numpy as np
import pytest
import tvm

from compiler.deploy import peak
from compiler.deploy.peak import Peak, measure_peak
from compiler.target import load


def test_the_roofline_is_whichever_takes_longer():
    machine = Peak(threads=1, gflops=100.0, gb_per_s=20.0)
    assert machine.least_ms(1e9, 10) == pytest.approx(10.0)
    assert machine.least_ms(10.0, 20_000_000) == pytest.approx(1.0)


def test_both_are_measured(monkeypatch):
    monkeypatch.setattr(peak, "SECONDS", 0.0)
    monkeypatch.setattr(peak, "_STEPS", 1000)
    monkeypatch.setattr(peak, "_MOST_BYTES", 1 << 20)
    found = measure_peak(1)
    assert found.threads == 1
    assert found.gflops > 0
    assert found.gb_per_s > 0


def test_nothing_of_what_is_measured_is_optimized_away(monkeypatch):
    """The results depend on every step and on every element."""
    monkeypatch.setattr(peak, "_STEPS", 5)
    target, threads, rows = load("host"), 1, 3
    width = peak._SUMS * target.lanes("float32")
    library = tvm.tirx.build(peak._kernels(target, threads, rows), target=target.tvm_target())
    out = tvm.runtime.tensor(np.zeros((threads, width), np.float32))
    library["multiply_add"](tvm.runtime.tensor(np.array([2.0, 1.0], np.float32)), out)
    start = np.repeat(np.arange(peak._SUMS), target.lanes("float32"))
    np.testing.assert_array_equal(out.numpy()[0], start * 2**5 + 2**5 - 1)
    data = np.random.default_rng(0).random((threads, rows, width), np.float32)
    library["read"](tvm.runtime.tensor(data), out)
    np.testing.assert_allclose(out.numpy(), data.sum(1), rtol=1e-6)


def test_the_array_is_larger_than_the_last_cache():
    target = load("host")
    for threads in (1, 2, 64):
        rows = peak._rows(target, threads)
        size = 4 * rows * threads * peak._SUMS * target.lanes("float32")
        assert size <= peak._MOST_BYTES
        assert size > min(2 * target.caches.l3, peak._MOST_BYTES // 2)
