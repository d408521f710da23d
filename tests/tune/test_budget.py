"""Budgets of trials, of time, and until a time of day."""

from datetime import datetime

import pytest

from compiler.support.errors import UsageError
from compiler.tune.budget import Budget, seconds_until


def test_the_first_limit_ends_it():
    both = Budget(trials=10, seconds=60)
    assert not both.is_spent(9, 59.9)
    assert both.is_spent(10, 1)
    assert both.is_spent(1, 60)
    assert not Budget().is_spent(10**9, 10**9)


def test_whether_it_is_long():
    assert Budget().has(1000, 300.0)
    assert not Budget(trials=999).has(1000, 300.0)
    assert not Budget(seconds=299.0).has(1000, 300.0)
    assert Budget(trials=1000, seconds=300.0).has(1000, 300.0)


def test_what_is_left():
    assert Budget(trials=10).trials_left(4) == 6
    assert Budget(trials=10).trials_left(40) == 0
    assert Budget(seconds=1).trials_left(4) is None
    assert Budget(seconds=60).seconds_left(0, 20) == 40
    assert Budget(trials=10).seconds_left(5, 20) == 20
    assert Budget(trials=10, seconds=25).seconds_left(5, 20) == 5
    assert Budget(trials=10).seconds_left(0, 1) is None


@pytest.mark.parametrize("limits", [{"trials": 0}, {"seconds": -1.0}, {"seconds": float("nan")}])
def test_nothing_is_no_budget(limits):
    with pytest.raises(UsageError, match=r"expected more than 0 (trials|seconds) to tune"):
        Budget(**limits)


def test_until_a_time_of_day():
    evening = datetime(2026, 1, 31, 22, 30)
    assert seconds_until("23:00", evening) == 1800
    assert seconds_until("07:00", evening) == 8.5 * 3600
    assert seconds_until("22:30", evening) == 24 * 3600
    for wrong in ("7 am", "25:00", "", "07:00:00"):
        with pytest.raises(UsageError, match="expected a time of day such as 07:00"):
            seconds_until(wrong, evening)
