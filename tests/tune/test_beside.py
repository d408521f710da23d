"""What a page tells beside the log is of the schedule that is best, and of the right peak."""

from compiler.schedule.records import Record
from compiler.schedule.space import to_plain
from compiler.target import load
from compiler.tune.beside import Peaks, PeerTime, peaks, sources
from compiler.tune.task import Task
from tests.tune.faults import kernel, space


def _task():
    rule, found = space()
    return Task(["dense"], "dense #1", kernel(), 1, (False, True, False), rule, found, 1e6, 1000)


def _record(task, decisions, seconds, default=False):
    return Record(
        workload=task.workload, device="d", threads=1, rule=task.rule, decisions=to_plain(decisions),
        seconds=(seconds,), default=default,
    )  # fmt: skip


def test_the_source_is_that_of_the_best_schedule():
    task = _task()
    assert sources([task], load("host")) == {}
    default, *others = list(task.space)[:4]
    task.take(_record(task, default, 2.0, default=True))
    untuned = sources([task], load("host"))["dense #1"]
    assert "T.prim_func" in untuned
    assert "T.parallel" in untuned
    task.take(_record(task, others[-1], 1.0))
    assert sources([task], load("host"))["dense #1"] != untuned


def test_each_kind_of_kernel_has_its_peak():
    assert peaks([_task()], Peaks(floats=2e9, bytes=8e9)) == {"dense #1": 2e9}


def test_a_peers_time_is_in_milliseconds():
    assert str(PeerTime("openvino", 0.0126)) == "openvino 12.600 ms"
