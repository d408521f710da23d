"""Records as lines: readable, whole, and refused where they are not what they should be."""

import dataclasses
import json

import pytest

from compiler.schedule.records import AGAIN, Record, best, comparable, from_line, identity, to_line
from compiler.target import load

RECORD = Record(
    workload="dense 1x8 2x8x16 -> 1x32 float32 #0123456789ab",
    device="x86_64-linux-znver4-2c#0123456789ab",
    threads=2,
    rule="matmul",
    decisions={"tile": [6, 2], "lanes": 16, "chunk": None},
    seconds=(3e-6, 1e-6, 2e-6),
    noise=0.1,
    at="2026-01-02T03:04:05Z",
)


def test_a_record_is_one_line_and_comes_back():
    line = to_line(RECORD)
    assert "\n" not in line
    assert from_line(line) == RECORD
    assert json.loads(line)["decisions"] == {"tile": [6, 2], "lanes": 16, "chunk": None}
    failed = dataclasses.replace(RECORD, status="timed out", seconds=(), note="after 10 s")
    assert from_line(to_line(failed)) == failed


def test_what_is_empty_is_not_written():
    line = to_line(Record(workload="w", device="d", threads=1, rule="r", seconds=(1.0,)))
    assert set(json.loads(line)) == {
        "format", "workload", "device", "threads", "rule", "decisions", "status", "seconds",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"workload": None}, "workload: Input should be a valid string"),
        ({"threads": 0}, "threads: "),
        ({"seconds": [0.0]}, "seconds.0: "),
        ({"seconds": ["fast"]}, "seconds.0: "),
        ({"seconds": []}, "expected times exactly where the status is ok"),
        ({"status": "fine"}, "status: "),
        ({"status": "wrong"}, "expected times exactly"),
        ({"decisions": [1]}, "decisions: "),
        ({"format": 2}, "it has the format 2, this Kiln reads 1"),
        ({"format": None}, "no record of Kiln's"),
    ],
)
def test_what_is_no_record_is_refused(change, reason):
    data = json.loads(to_line(RECORD)) | change
    with pytest.raises(ValueError, match=reason):
        from_line(json.dumps(data))


@pytest.mark.parametrize("line", ["", "{", "[]", "3", "null", '"text"', '{"workload": "w"}', "[" * 100_000])
def test_other_lines_are_refused(line):
    with pytest.raises(ValueError, match=r"no JSON|no record"):
        from_line(line)


def test_the_time_is_the_median_and_the_fastest_is_the_best():
    assert RECORD.time == 2e-6
    slower = dataclasses.replace(RECORD, seconds=(3e-6,), decisions={"tile": [1, 1]})
    failed = dataclasses.replace(RECORD, seconds=(), status="wrong")
    other = dataclasses.replace(slower, threads=1)
    assert failed.time == float("inf")
    assert best([failed, slower, RECORD, other]) == {RECORD.key: RECORD, other.key: other}
    assert best([failed]) == {}
    # A lucky measurement does not count once it was repeated.
    again = dataclasses.replace(RECORD, seconds=(4e-6,))
    assert best([RECORD, slower, again]) == {RECORD.key: slower}


def test_only_what_one_session_measured_in_turns_is_compared():
    def made(rows, seconds, session, at, note=AGAIN):
        return dataclasses.replace(
            RECORD, decisions={"tile": [rows, 1]}, seconds=(seconds,), session=session, at=at, note=note
        )

    good_day = [made(1, 1e-6, "good", "2026-01-01"), made(2, 2e-6, "good", "2026-01-01")]
    bad_day = [made(1, 5e-6, "bad", "2026-01-02"), made(2, 4e-6, "bad", "2026-01-02")]
    search = made(3, 1e-7, "bad", "2026-01-02", note="")
    cut_off = made(1, 1e-8, "later", "2026-01-03", note="")
    every = [*good_day, search, *bad_day, cut_off]
    assert best(every) == {RECORD.key: bad_day[1]}
    assert comparable(every) == {RECORD.key: bad_day}
    assert best([*bad_day, *good_day]) == {RECORD.key: bad_day[1]}, "logs are read in any order"
    assert best([search, cut_off]) == {RECORD.key: cut_off}


def test_a_trial_is_the_same_however_its_decisions_are_ordered():
    turned = dataclasses.replace(RECORD, decisions=dict(reversed(RECORD.decisions.items())), seconds=(9.0,))
    assert turned.trial == RECORD.trial
    assert dataclasses.replace(RECORD, decisions={"tile": [6, 1]}).trial != RECORD.trial
    assert dataclasses.replace(RECORD, threads=1).trial != RECORD.trial


def test_devices_that_differ_have_other_identities():
    target = load("x86-64-v3")
    same = dataclasses.replace(target, name="mine", description="a box", memory=target.memory * 2)
    assert identity(same) == identity(target)
    assert identity(target).startswith(f"x86_64-linux-{target.cpu}-{target.cores}c#")
    changes = [
        {"cpu": "znver3"},
        {"features": target.features[1:]},
        {"cores": target.cores + 1},
        {"vector": dataclasses.replace(target.vector, registers=32)},
        {"caches": dataclasses.replace(target.caches, l2=1 << 21)},
    ]
    assert len({identity(target), *(identity(dataclasses.replace(target, **each)) for each in changes)}) == 6
    assert identity(load("h100")).split("#")[0].startswith("x86_64-linux-cuda-sm_90")
