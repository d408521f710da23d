"""Trials that crash, hang, compute nonsense or cannot be built cost themselves, and nothing else."""

import os
import statistics

import psutil

from compiler.target import load
from compiler.tune import worker
from compiler.tune.trial import Patience
from compiler.tune.workers import Workers
from tests.tune import faults

PATIENCE = Patience(build=20, run=20, sample=0.0005, repeats=3)


def _measure(build, wanted, patience=PATIENCE, count=2):
    with Workers(count, load("host"), faults.tools(build), 1, patience) as workers:
        assert workers.add(faults.as_kernel()) == 0
        return dict(workers.measure(wanted, lambda kernel: float("inf")))


def _children():
    return [each for each in psutil.Process().children() if "spawn_main" in " ".join(each.cmdline())]


def test_trials_are_built_and_measured():
    wanted = faults.trials(9)
    found = _measure(faults.jit, wanted)
    assert sorted(found) == list(range(9))
    for outcome in found.values():
        assert outcome.status == "ok", outcome
        assert len(outcome.seconds) == 3
        assert 0 < statistics.median(outcome.seconds) < 1
    assert not _children()


def test_what_is_measured_several_times_is_built_once():
    first, second = faults.trials(2)
    with Workers(2, load("host"), faults.tools(), 1, PATIENCE) as workers:
        workers.add(faults.as_kernel())
        found = list(workers.measure([first, second] * 3, lambda kernel: float("inf")))
        # In turns, as asked for; what is given up after the last turn is built anew.
        assert [place for place, _ in found] == list(range(6))
        assert {outcome.status for _, outcome in found} == {"ok"}
        built = workers._processes[0].submit(_built_now).result()
        assert not built


def _built_now():
    return worker._bench._built


def test_what_goes_wrong_costs_one_trial():
    """Between good trials others crash, hang, compute nonsense, or cannot be built: all are accounted for."""
    wanted = faults.trials(2 * len(faults.FAULTS) + 2)
    patience = Patience(build=faults.HURRY, run=faults.HURRY, sample=0.0005, repeats=3)
    found = _measure(faults.faulty, wanted, patience)
    assert sorted(found) == list(range(len(wanted)))
    for place, expected in enumerate(faults.FAULTS, 1):
        status, note = expected.split(": ")
        bad, good = found.pop(2 * place), found[2 * place - 1]
        assert (bad.status, bad.seconds) == (status, ()), bad
        assert note in bad.note
        assert good.status == "ok", good
    assert {outcome.status for outcome in found.values()} == {"ok"}


def test_decisions_that_are_not_legal_are_not_built():
    (trial,) = faults.trials(1)
    illegal = type(trial)(0, trial.rule, {**trial.decisions, "chunk": 12345})
    found = _measure(faults.jit, [illegal, trial], count=1)
    assert (found[0].status, found[0].note) == ("not built", "these decisions are not legal")
    assert found[1].status == "ok"


def test_a_worker_may_be_killed_from_outside():
    wanted = faults.trials(6)
    with Workers(2, load("host"), faults.tools(), 1, PATIENCE) as workers:
        workers.add(faults.as_kernel())
        first = dict(workers.measure(wanted[:2], lambda kernel: float("inf")))
        assert all(outcome.status == "ok" for outcome in first.values())
        victims = _children()
        os.kill(victims[0].pid, 9)
        found = dict(workers.measure(wanted, lambda kernel: float("inf")))
    # The death is found at the first question: that one trial has no answer.
    assert sorted(found) == list(range(6))
    assert [outcome.status for outcome in found.values()].count("ok") >= 5
