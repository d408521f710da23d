"""Overviews of logs, merging and compacting."""

import dataclasses

from compiler.schedule.log_tools import compacted, merged, overviews
from compiler.schedule.records import best
from tests.schedule.test_records import RECORD


def _record(rows, seconds, **changes):
    made = dataclasses.replace(RECORD, decisions={"tile": [rows, 1]}, seconds=(seconds,))
    return dataclasses.replace(made, **changes)


def test_an_overview_counts_by_device_and_threads():
    failed = dataclasses.replace(_record(9, 1.0), status="crashed", seconds=(), at="2026-01-03")
    found = overviews([_record(1, 1.0, at="2026-01-01"), failed, _record(1, 1.0, threads=1)])
    assert [(each.threads, each.workloads, each.trials, each.failed) for each in found] == [
        (2, 1, 2, 1),
        (1, 1, 1, 0),
    ]
    assert found[0].last == "2026-01-03"


def test_merging_keeps_each_record_once_in_order():
    early, late = _record(1, 1.0, at="2026-01-01"), _record(2, 1.0, at="2026-01-02")
    assert merged([late, early, late]) == [early, late]


def test_compacting_keeps_the_fastest_and_the_default():
    default = _record(1, 9.0, default=True)
    others = [_record(rows, 1.0 + rows) for rows in range(2, 7)]
    failed = dataclasses.replace(_record(8, 1.0), status="wrong", seconds=())
    lucky, again = _record(7, 0.1), _record(7, 8.0)
    other = _record(2, 5.0, workload="other #1")
    every = [default, lucky, *others, failed, again, other]
    kept = compacted(every, 2)
    assert kept == [default, others[0], others[1], other]
    assert best(kept) == best(every)
