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


def test_products_of_bytes_are_those_of_every_step(monkeypatch):
    monkeypatch.setattr(peak, "_STEPS", 5)
    target, threads = load("host"), 2
    lanes = target.lanes("int32")
    library = tvm.tirx.build(peak._byte_kernel(target, threads), target=target.tvm_target())
    out = tvm.runtime.tensor(np.zeros((threads, peak._SUMS * lanes), np.int32))
    factors = np.random.default_rng(0).integers(-128, 128, 4 * lanes).astype(np.int8)
    library["products"](
        tvm.runtime.tensor(np.array([0x01020304], np.int32)), tvm.runtime.tensor(factors), out
    )
    sums = np.zeros(lanes, np.int64)
    for turn in range(5):
        given = np.array([0x01020304 + turn], np.int32).view(peak.byte_dtype(target))
        sums += (factors.reshape(lanes, 4).astype(np.int64) * given.astype(np.int64)).sum(1)
    expected = (np.arange(peak._SUMS)[:, None] + sums).reshape(-1)
    for thread in range(threads):
        np.testing.assert_array_equal(out.numpy()[thread], expected)


def test_the_peak_of_bytes_is_measured(monkeypatch):
    monkeypatch.setattr(peak, "SECONDS", 0.0)
    monkeypatch.setattr(peak, "_STEPS", 1000)
    assert peak.measure_byte_peak(1) > 0


def test_what_is_measured_in_turns_meets_the_same_drift():
    order = []
    found = peak.interleaved_seconds([lambda: order.append("a"), lambda: order.append("b")], 0.0)
    assert len(found) == 2
    assert all(each > 0 for each in found)
    turns = "".join(order).replace("aa", "a").replace("bb", "b")
    assert len(turns) >= peak._BURSTS, "both run in every part of the time"
    assert order.count("a") == order.count("b")
