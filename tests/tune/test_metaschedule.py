"""Records go to MetaSchedule's own database and come back; what does not is counted."""

import json

import pytest
import torch
import tvm
from torch import nn
from tvm.s_tir import meta_schedule as ms

from compiler import frontend
from compiler.passes import optimize
from compiler.schedule.apply import schedule_kernel
from compiler.schedule.records import Record
from compiler.schedule.space import to_plain
from compiler.schedule.traces import traced
from compiler.schedule.tuned import Tuned
from compiler.support.errors import InputError
from compiler.target import load
from compiler.tune.metaschedule import RECORDS, WORKLOADS, from_database, to_database
from compiler.tune.task import find_tasks
from compiler.tune.tuner import Facts
from tests.tune.made_up import DEVICE

FACTS = Facts(DEVICE, 2, "a CPU", "1", tvm.__version__, "")


class Mixed(nn.Module):
    """A matrix product, which a rule schedules, and two kernels that none knows; a small one, too."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(64, 48)

    def forward(self, x):
        turned = self.dense(x).permute(0, 2, 1).contiguous()
        return (
            turned,
            nn.functional.interpolate(x[None], scale_factor=2.0, mode="bilinear"),
            x[:1, :2, :3] > 0,
        )


@pytest.fixture(scope="module")
def host():
    return load("host")


@pytest.fixture(scope="module")
def tasks(host):
    model = frontend.load(Mixed().eval(), (torch.randn(4, 50, 64),))
    mod, _ = optimize(model.mod, host)
    return find_tasks(mod, host)


def record(task, decisions, seconds=(2e-5, 3e-5)):
    return Record(
        workload=task.workload, device=DEVICE, threads=2, rule=task.rule, decisions=decisions,
        seconds=seconds, tvm=tvm.__version__,
    )  # fmt: skip


@pytest.fixture(scope="module")
def tuned(tasks):
    """The last of each space: a trace, or other decisions than the default's."""
    found = {}
    for task in tasks:
        if task.rule == "fallback":
            decisions = traced(task.space.designs()[0].trace)
        else:
            *_, decisions = task.space
        found[task.workload] = record(task, to_plain(decisions))
    return Tuned(found)


def generic(tasks):
    return [task for task in tasks if task.rule == "fallback"]


def test_kernels_without_a_rule_are_tasks_if_they_are_not_small(tasks):
    assert len(generic(tasks)) == 2
    assert len(tasks) == 3


def test_what_went_to_the_database_comes_back(tmp_path, host, tasks, tuned):
    gone = to_database(tasks, tuned, host, tmp_path)
    assert {each.workload for each in gone.records} >= {task.workload for task in generic(tasks)}
    assert len(gone.records) + sum(gone.skipped.values()) == len(tasks)
    back = from_database(tmp_path, tasks, host, FACTS)
    assert {(each.workload, json.dumps(each.decisions)) for each in back.records} == {
        (task.workload, json.dumps(tuned.records[task.workload].decisions)) for task in generic(tasks)
    }
    for each in back.records:
        assert each.seconds == (2e-5, 3e-5)
        assert (each.device, each.threads, each.rule, each.tvm) == (DEVICE, 2, "fallback", tvm.__version__)
    ruled = len(gone.records) - len(back.records)
    assert sum(back.skipped.values()) == ruled
    assert not ruled or back.skipped == {"of kernels that a rule of Kiln's schedules": ruled}


def test_tvm_itself_finds_what_was_exported(tmp_path, host, tasks, tuned):
    to_database(tasks, tuned, host, tmp_path)
    database = ms.database.JSONDatabase(work_dir=str(tmp_path), allow_missing=False)
    normalize = tvm.get_global_func("tvm.s_tir.meta_schedule.normalize_mod")
    for task in generic(tasks):
        found = database.query_ir_module(normalize(task.function), host.tvm_target(), "main")
        assert found is not None
        used = []
        ours, _ = schedule_kernel(task.function, host, tuned.decide(task.workload, used))
        assert used
        plain = found["main"].without_attr("global_symbol")
        tvm.ir.assert_structural_equal(plain, ours.without_attr("tirx.is_scheduled"))


def test_kernels_without_records_and_defaults_are_told_apart(tmp_path, host, tasks):
    first, _ = generic(tasks)
    gone = to_database(tasks, Tuned({first.workload: record(first, first.plain_default)}), host, tmp_path)
    assert [each.workload for each in gone.records] == [first.workload]
    assert gone.skipped == {"kernels without a record": len(tasks) - 1}
    (back,) = from_database(tmp_path, tasks, host, FACTS).records
    # The fallback's schedule is steps, too.
    ours, _ = schedule_kernel(first.function, host)
    theirs, _ = schedule_kernel(
        first.function, host, Tuned({first.workload: back}).decide(first.workload, [])
    )
    tvm.ir.assert_structural_equal(theirs, ours)
    assert not back.default


def test_what_is_of_no_use_is_counted(tmp_path, host, tasks, tuned):
    to_database(tasks, tuned, host, tmp_path)
    other = load("rpi4")
    assert not from_database(tmp_path, tasks, other, FACTS).records
    first, _ = generic(tasks)
    back = from_database(tmp_path, [first], host, FACTS)
    assert [each.workload for each in back.records] == [first.workload]
    assert back.skipped["of kernels that the model has not"] >= 1

    path = tmp_path / RECORDS
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for _, (_, seconds, *_) in lines:
        seconds[:] = [1e10]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    failed = from_database(tmp_path, generic(tasks), host, FACTS)
    assert not failed.records
    assert failed.skipped["of trials that failed"] == 2


def test_a_database_that_is_none_is_refused(tmp_path, host, tasks, tuned):
    with pytest.raises(InputError, match=f"there is no '{WORKLOADS}'"):
        from_database(tmp_path, tasks, host, FACTS)
    to_database(tasks, tuned, host, tmp_path)
    (tmp_path / RECORDS).write_text("[0, [[[\n")
    with pytest.raises(InputError, match="cannot read the database"):
        from_database(tmp_path, tasks, host, FACTS)
