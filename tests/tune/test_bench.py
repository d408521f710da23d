"""Measuring: how long, how often, and what is said of a busy or slow machine."""

import itertools

import numpy as np
import pytest

from compiler.target import load
from compiler.tune import bench
from compiler.tune.bench import Bench, Clock, difference, measured, spread
from compiler.tune.trial import Patience
from tests.tune import faults

PATIENCE = Patience(sample=0.01, repeats=4)


class Machine:
    """A clock that code moves by hand."""

    def __init__(self, monkeypatch, costs):
        self.now, self.calls, self._costs = 0.0, [], itertools.chain(costs, itertools.repeat(None))
        self._last = 1e-3
        monkeypatch.setattr(bench.time, "perf_counter", lambda: self.now)

    def __call__(self, *arguments):
        self.calls.append(arguments)
        self._last = next(self._costs) or self._last
        self.now += self._last


def test_a_call_is_measured_as_often_as_it_takes(monkeypatch):
    machine = Machine(monkeypatch, [1e-3])
    assert measured(machine, [[1]], float("inf"), PATIENCE) == pytest.approx((1e-3,) * 4)
    assert len(machine.calls) == 2 + 4 * 10


def test_copies_take_turns(monkeypatch):
    machine = Machine(monkeypatch, [5e-3])
    measured(machine, [["a"], ["b"], ["c"]], float("inf"), PATIENCE)
    assert [each for (each,) in machine.calls[:6]] == ["a", "b", "c", "a", "b", "c"]


def test_what_is_hopeless_is_not_measured_again(monkeypatch):
    machine = Machine(monkeypatch, [1e-3])
    assert measured(machine, [[1]], 5e-4, PATIENCE) == pytest.approx((1e-3,))
    assert len(machine.calls) == 2


def test_a_noisy_measurement_is_repeated_and_the_quietest_counts(monkeypatch):
    noisy = [0.02, 0.04, 0.02, 0.05]
    machine = Machine(monkeypatch, [0.02, 0.02, *noisy, *[0.02] * 4])
    assert measured(machine, [[1]], float("inf"), PATIENCE) == pytest.approx((0.02,) * 4)
    machine = Machine(monkeypatch, [0.02, 0.02, *noisy * 20])
    assert spread(measured(machine, [[1]], float("inf"), PATIENCE)) > 0.1
    assert len(machine.calls) == 2 + 3 * 4


def test_a_clock_that_is_low_is_said(monkeypatch):
    clock, took = Clock(), iter([1.0, 1.2, 1.1, 1.05, 1.06, 1.2, 1.3, 1.25, 1.4, 1.0, 2.0, 1.1])
    monkeypatch.setattr(clock, "_time", lambda: next(took))
    assert clock.note() == ""
    assert clock.note() == ""
    assert clock.note() == "the clock was at 80%"
    assert clock.note() == ""


def test_the_difference_is_relative_to_the_greatest_value():
    expected = np.array([1, -4.0], "float32")
    assert difference(np.array([1, -3.0], "float32"), expected) == 0.25
    assert difference(np.array([np.nan, -4], "float32"), expected) == float("inf")
    assert difference(np.zeros(2, "float32"), np.zeros(2, "float32")) == 0
    bits = (expected.view(np.uint32) >> 16).astype("uint16")
    assert difference(bits, bits) == 0
    assert difference(np.array([0, bits[1]], "uint16"), bits) == 0.25


def test_a_trial_is_compared_and_timed_in_this_process():
    made = Bench(load("host"), faults.tools(), 1, Patience(sample=1e-4, repeats=3))
    made.add(0, faults.as_kernel())
    (trial,) = faults.trials(1)
    assert made.build([7], [trial]) == [None]
    outcome = made.run(7, float("inf"), True)
    assert outcome.status == "ok"
    assert len(outcome.seconds) == 3
