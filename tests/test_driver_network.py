"""The fastest schedules are measured in the network, and what was fastest there is used."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from compiler import driver_network, frontend
from compiler.deploy import use_threads
from compiler.driver_choices import facts_of
from compiler.driver_network import in_turns, measure_in_network
from compiler.passes import optimize
from compiler.schedule import schedule
from compiler.schedule.log import read_log
from compiler.schedule.records import CHOICE, to_line
from compiler.schedule.space import to_plain
from compiler.schedule.tuned import Tuned, in_network, read_tuned
from compiler.target import load
from compiler.tune.session import Session
from compiler.tune.task import find_tasks
from tests.schedule.test_records import RECORD


class _Net(nn.Module):
    """Two convolutions of one work, and one of another."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1))

    def forward(self, x):
        return self.layers(x)


@pytest.fixture
def tuned_net(monkeypatch, tmp_path):
    """A network, its tasks with made-up records of three decisions each, and the facts of a session."""
    monkeypatch.setattr(driver_network, "SECONDS", 0.01)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "own"))
    torch.manual_seed(0)
    model, target = frontend.load(_Net().eval(), (torch.randn(1, 3, 9, 7),)), load("host")
    use_threads(1)
    tasks = find_tasks(optimize(model.mod, target)[0], target)
    facts = facts_of(target, 1, Session("first"))
    for task in tasks:
        others = [each for each in map(to_plain, task.space) if each != task.plain_default]
        for place, plain in enumerate([task.plain_default, *others[:2]]):
            made = facts.record(
                workload=task.workload, rule=task.rule, decisions=plain, seconds=(1e-5 / (1 + place),),
                default=not place,
            )  # fmt: skip
            task.take(made)
    return model, target, tasks, facts


def _measured(net, path, chosen=None, facts=None):
    model, target, tasks, own = net
    measure_in_network(
        model, target, path, tasks, chosen or Tuned(), facts or own, path.parent / "built", 3.0
    )
    return read_log(path).records


def test_default_and_leaders_are_timed_where_they_run(tuned_net, tmp_path):
    _model, target, tasks, _facts = tuned_net
    records = _measured(tuned_net, tmp_path / "net.jsonl")
    assert {record.rule for record in records} == {CHOICE}
    assert {record.calls for record in records} == {0}, "of no use to a search"
    for task in tasks:
        mine = [record for record in records if record.workload == in_network(task.workload)]
        assert [record.decisions[task.rule] for record in mine] == [
            task.plain_default,
            *(each.decisions for each in sorted(task.records.values(), key=lambda each: each.time)[:2]),
        ]
        assert [record.default for record in mine] == [True, False, False]
        assert all(len(record.seconds) > 2 and 0 < record.time < 1 for record in mine)
    # Who compiles takes the fastest of them, whatever it took alone.
    tuned, _ = read_tuned(target, 1, [tmp_path / "net.jsonl"])
    task = tasks[0]
    used = []
    got = to_plain(tuned.decide(task.workload, used)(task.rule, task.space))
    assert {task.rule: got} == tuned.records[in_network(task.workload)].decisions
    assert used == [tuned.records[in_network(task.workload)]]


def test_the_times_are_of_the_kernels_named(tuned_net, tmp_path, monkeypatch):
    """The second of two tasks takes longer with its default, by a watch that says so."""
    _model, target, tasks, _facts = tuned_net
    builds = []
    build = driver_network.build_module

    def kept(mod, target, folder, tuned):
        builds.append(tuned)
        return build(mod, target, folder, tuned=tuned)

    def watch(_session, _prepared, names):
        tuned = builds[-1]
        spent = dict.fromkeys(names, 1e-3)
        for name in tasks[1].names:
            spent[name] = 2e-3 if tuned.records[tasks[1].workload].default else 1e-3
        return lambda: spent

    monkeypatch.setattr(driver_network, "build_module", kept)
    monkeypatch.setattr(driver_network, "_watch", watch)
    _measured(tuned_net, tmp_path / "net.jsonl")
    tuned, _ = read_tuned(target, 1, [tmp_path / "net.jsonl"])
    first, second = (tuned.records[in_network(task.workload)] for task in tasks)
    assert first.default, "nothing was gained"
    assert not second.default
    assert second.time * tasks[1].calls == pytest.approx(1e-3 * len(tasks[1].names))


def test_only_times_of_one_session_are_compared(tuned_net, tmp_path):
    _model, target, _tasks, facts = tuned_net
    path = tmp_path / "net.jsonl"
    before = _measured(tuned_net, path)
    chosen, _ = read_tuned(target, 1, [path])
    later = replace(facts, session="second")
    records = _measured(tuned_net, path, chosen, later)[len(before) :]
    assert {record.session for record in records} == {"second"}
    quick = replace(before[1], seconds=(1e-9,), at="2020-01-01T00:00:00+00:00")
    with path.open("a") as stream:
        stream.write(to_line(quick) + "\n")
    again, _ = read_tuned(target, 1, [path])
    assert again.records[quick.workload].session == "second"


def test_a_choice_of_another_rule_is_of_no_use():
    work, name = RECORD.workload, in_network(RECORD.workload)
    tuned = Tuned({work: RECORD, name: replace(RECORD, workload=name, rule=CHOICE, decisions={"other": {}})})
    assert list(tuned._of(work, RECORD.rule)) == [(RECORD, RECORD.decisions)]


def test_turns_go_both_ways():
    order = []

    def run(name):
        return lambda: (order.append(name), {"kernel": 1.0})[1]

    (first, second) = in_turns([run("a"), run("b")], 0.0)
    assert first == second == {"kernel": [1.0] * 6}
    assert "".join(order) == "aaabbbbbbaaa" * 3


def test_the_network_computes_the_same(tuned_net, tmp_path):
    model, target, _tasks, _facts = tuned_net
    _measured(tuned_net, tmp_path / "net.jsonl")
    tuned, _ = read_tuned(target, 1, [tmp_path / "net.jsonl"])
    mod, _ = optimize(model.mod, target)
    _, kernels = schedule(mod, target, tuned)
    assert {kernel.origin for kernel in kernels if kernel.rule == "conv2d"} == {"tuned"}
