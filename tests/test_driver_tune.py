"""Tuning a model: what is found is used, and nothing is lost however often the process is killed."""

from dataclasses import replace

import pytest

import compiler
from compiler import driver_tune
from compiler.driver_tune import log_name, tune
from compiler.schedule.log import read_log, write_log
from compiler.support.errors import UsageError
from tests import models


class Heard:
    def __init__(self):
        self.phases, self.trials = [], 0

    def started(self, tuner):
        self.tuner = tuner

    def phase(self, name):
        self.phases.append(name)

    def saw(self, task, record):
        self.trials += 1


def test_what_was_tuned_is_used(tmp_path):
    heard = Heard()
    result = tune(
        *models.tiny(), logs=tmp_path, name="tiny", trials=20, threads=1, builders=1, listener=heard
    )
    assert heard.phases == ["defaults", "search", "leaders"]
    assert result.trials >= 20
    assert 0 < result.searching < result.spent
    assert min(result.untuned, result.tuned) > 0
    records = read_log(result.log).records
    assert len(records) == heard.trials
    assert {record.status for record in records} == {"ok"}
    assert not list(tmp_path.rglob("*.session")), "it has ended"

    made = compiler.compile(*models.tiny(), logs=tmp_path, threads=1)
    tuned = [kernel for kernel in made.manifest.kernels.values() if kernel.origin == "tuned"]
    assert len(tuned) == len({record.workload for record in records})
    made = compiler.compile(*models.tiny(), logs=tmp_path, threads=2)
    assert not any(kernel.origin == "tuned" for kernel in made.manifest.kernels.values()), "another count"


def test_a_kernel_without_a_rule_is_tuned_too(tmp_path):
    result = tune(*models.resize(), logs=tmp_path, name="resize", trials=12, threads=1, builders=1)
    records = read_log(result.log).records
    assert {record.rule for record in records} == {"fallback"}
    assert {record.status for record in records} == {"ok"}
    traces = [record for record in records if record.decisions["trace"] is not None]
    assert len({record.trial for record in traces}) >= 10
    assert all(record.tvm == record.decisions["tvm"] for record in traces)

    # The default's record left out, so that a trace is the best for sure.
    write_log(tmp_path / "traces.jsonl", traces)
    made = compiler.compile(
        *models.resize(), logs=tmp_path / "traces.jsonl", threads=1
    )  # compared with PyTorch
    assert [kernel.origin for kernel in made.manifest.kernels.values()] == ["tuned"]

    write_log(tmp_path / "old.jsonl", [replace(each, decisions=_old(each)) for each in traces])
    made = compiler.compile(*models.resize(), logs=tmp_path / "old.jsonl", threads=1)
    assert [kernel.origin for kernel in made.manifest.kernels.values()] == ["generic"]


def _old(record):
    return {**record.decisions, "tvm": "0.1"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "rpi4"}, "'rpi4' cannot be tuned here"),
        ({"trials": 0}, "expected more than 0 trials"),
        ({"seconds": -1}, "expected more than 0 seconds"),
        ({"until": "late"}, "expected a time of day such as 07:00, got 'late'"),
        ({"threads": 0}, "expected 1 to"),
        ({"logs": "/proc/none"}, "cannot"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        tune(*models.tiny(), **{"threads": 1, "trials": 1, **arguments})


def test_without_xgboost_the_user_is_told(monkeypatch):
    monkeypatch.setattr(driver_tune.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'kiln-compiler\[tune\]'"):
        tune(*models.tiny())


def test_logs_are_named_by_their_models():
    assert log_name("torchvision.models:resnet18") == "resnet18"
    assert log_name("/a b/net 1.onnx") == "net_1.onnx"
    assert log_name("") == "model"
