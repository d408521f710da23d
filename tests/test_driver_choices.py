"""Choices between graphs are measured once, logged, and used by whoever compiles."""

import torch
from torch import nn

from compiler import frontend
from compiler.driver_choices import CHOICE, measure_choices
from compiler.passes.choices import Convolution, Residuals, residuals_site
from compiler.schedule.log import read_log
from compiler.schedule.records import identity
from compiler.schedule.space import to_plain
from compiler.target import load
from compiler.tune.session import Session


class _Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 32, 1), nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, x):
        y = self.first(x)
        return torch.relu(self.second(y) + y)


def _measured(path, folder, seconds=400.0):
    torch.manual_seed(0)
    model = frontend.load(_Net().eval(), (torch.randn(1, 3, 12, 12),))
    target, session = load("host"), Session("chosen", seconds=seconds)
    return model, measure_choices(model, target, path, session, folder, threads=1, builders=1)


def test_choices_are_measured_once_and_used(tmp_path):
    path = tmp_path / "net.jsonl"
    model, tuned = _measured(path, tmp_path / "libraries")
    records = read_log(path).records
    assert {(record.device, record.calls) for record in records} == {(identity(load("host")), 0)}
    made = [record for record in records if record.rule == CHOICE]
    convolutions = [record for record in made if record.workload.startswith("choice conv3x3")]
    assert [record.decisions for record in convolutions] == [{"m": None}, {"m": 2}, {"m": 4}]
    assert sum(record.default for record in convolutions) == 1
    # Each is the time of the kernels that were tuned for it.
    trials = [record for record in records if record.rule != CHOICE]
    assert {record.rule for record in trials} == {"conv2d", "winograd"}
    site = residuals_site(model.mod)
    both = {str(r.decisions): r.time for r in made if r.workload == site.name}
    assert len(both) == 2
    chosen = tuned.choose(site, Residuals(True), [Residuals(True), Residuals(False)])
    assert both[str(to_plain(chosen))] == min(both.values())
    fastest = min(convolutions, key=lambda record: record.time)
    named = type("Site", (), {"name": fastest.workload})()
    options = [Convolution(m) for m in (None, 2, 4)]
    assert to_plain(tuned.choose(named, options[0], options)) == fastest.decisions

    _, again = _measured(path, tmp_path / "more")
    assert read_log(path).records == records, "all is known"
    assert again == tuned


def test_short_sessions_have_no_time_for_it(tmp_path):
    _measured(tmp_path / "net.jsonl", tmp_path / "libraries", seconds=60.0)
    assert not read_log(tmp_path / "net.jsonl").records
