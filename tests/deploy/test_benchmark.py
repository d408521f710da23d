"""The measuring itself is not asserted (machines differ); that it is fair, complete and honest is."""

import json
import os
import time

import numpy as np
import psutil
import pytest

from compiler.deploy import benchmark as bench
from compiler.deploy.benchmark import Plan
from compiler.deploy.benchmark_accuracy import compare
from compiler.deploy.benchmark_process import WorkerError, WorkerProcess
from compiler.deploy.benchmark_report import Report, Timing, timing
from compiler.deploy.benchmark_workload import load_module, prepare
from compiler.deploy.peers import KILN, PEERS, RUNTIMES
from compiler.deploy.peers.session import PeerError, Workload, in_order, write_pair
from compiler.support.errors import ModelError, UsageError
from tests.conftest import needs


def _timing(median: float, *, wrong: bool = False, error: float = 1e-7) -> Timing:
    return Timing(median, median, median, median, 3, error, error, wrong, "", 0.1, "1.0")


def _report(**medians: Timing) -> Report:
    return Report("m", "fp32", 2, "A CPU", medians, failed={"mnn": "not installed"})


def test_the_ratio_is_against_the_fastest_peer_that_is_right():
    report = _report(kiln=_timing(3.0), torch=_timing(6.0), ncnn=_timing(1.0, wrong=True), mnn=_timing(4.0))
    assert report.best_peer == "mnn"
    assert report.ratio == pytest.approx(0.75)


def test_without_a_right_peer_there_is_no_ratio():
    report = _report(kiln=_timing(3.0), ncnn=_timing(1.0, wrong=True))
    assert (report.best_peer, report.ratio) == (None, None)


def test_json_has_the_documented_keys_and_only_numbers_that_json_has():
    report = _report(kiln=_timing(3.0), torch=_timing(6.0, wrong=True, error=float("inf")))
    data = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert {"model", "precision", "threads", "cpu", "runtimes", "best_peer", "ratio"} <= set(data)
    assert {"median_ms", "min_ms", "max_abs_error"} <= set(data["runtimes"]["kiln"])
    assert data["runtimes"]["torch"]["max_abs_error"] is None
    assert data["failed"] == {"mnn": "not installed"}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"against": ("torhc",)}, "did you mean 'torch'"),
        ({"precision": "fp64"}, "fp32"),
        ({"threads": 0}, "threads"),
        ({"runs": 0}, "runs"),
        ({"seconds": 0.0}, "seconds"),
        ({"calibrate": "data.npz"}, "--precision int8"),
        ({"precision": "int8", "transform": "crop=8"}, "needs calibration data"),
        ({"precision": "int8", "calibrate": "photos", "transform": "corp=8"}, "did you mean 'crop'"),
    ],
)
def test_wrong_plans_are_refused(changes, word):
    with pytest.raises(UsageError, match=word):
        Plan("m:f", **changes)


@pytest.mark.parametrize("runs", [1, 7, 10, 23])
def test_runs_are_split_over_the_rounds_without_loss(runs):
    plan = Plan("m:f", runs=runs)
    assert sum(bench._count(plan, turn, 1.0) for turn in range(plan.rounds)) == runs


def test_slow_models_run_at_least_once_a_round():
    assert bench._count(Plan("m:f", seconds=0.1), 0, 5000.0) == 1


def test_errors_are_measured_against_the_range_of_the_output():
    reference = [np.array([0.0, 10.0]), np.array([1.0, 2.0])]
    assert compare([np.array([0.0, 10.5]), np.array([1.0, 2.1])], reference) == pytest.approx((0.5, 0.1))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_infinitely_wrong(bad):
    assert compare([np.array([bad, 1.0])], [np.array([0.0, 1.0])]) == (float("inf"), float("inf"))
    assert compare([np.array([bad, 1.0])], [np.array([bad, 1.0])]) == (0.0, 0.0)


def test_outputs_of_another_shape_are_refused():
    with pytest.raises(PeerError, match="2x3"):
        compare([np.zeros((2, 3))], [np.zeros((3, 2))])


@pytest.mark.parametrize(("relative", "wrong"), [(1e-6, False), (1e-2, True), (float("nan"), True)])
def test_a_runtime_beyond_tolerance_is_marked(relative, wrong):
    accuracy = {"max_abs_error": 0.1, "error_over_range": relative}
    built = {"accuracy": accuracy, "setting": "", "setup_s": 1, "version": "1", "settings": {}}
    summary = timing([3.0, 1.0, 2.0], built, "fp32")
    assert (summary.median_ms, summary.min_ms, summary.runs, summary.wrong) == (2.0, 1.0, 3, wrong)


def test_inputs_are_matched_by_name_then_by_position():
    a, b = np.zeros(1), np.ones(1)
    assert in_order([a, b], ("x", "y"), ["y"])[0] is b
    assert in_order([a, b], ("x", "y"), ["p", "q"])[1] is b
    with pytest.raises(PeerError, match="takes 1 inputs"):
        in_order([a, b], ("x", "y"), ["p"])


def test_the_command_lines_peers_are_those_of_the_folder():
    assert PEERS == ("torch", "inductor", "onnxruntime", "openvino", "ncnn", "mnn")
    assert KILN in RUNTIMES


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Return a function that prepares a model once, with every form that peers read."""
    made: dict[str, Workload] = {}

    def get(factory: str) -> Workload:
        if factory not in made:
            folder = tmp_path_factory.mktemp("workload")
            workload = Workload(folder, f"tests.deploy.tiny_model:{factory}", 1)
            made[factory] = prepare(workload, {"module", "onnx", "torchscript"})
        return made[factory]

    return get


def test_every_process_sees_the_same_weights(prepared):
    workload = prepared("convolution")
    assert workload.troubles == {}
    module, args, kwargs = load_module(workload)
    (expected,) = workload.reference()
    np.testing.assert_allclose(module(*args, **kwargs).detach().numpy(), expected, rtol=1e-6, atol=1e-6)


def _check_outputs(name: str, workload: Workload) -> None:
    with WorkerProcess(name, workload.folder, 1) as worker:
        built = worker.ask({"do": "build"}, 300)
        assert built["accuracy"]["error_over_range"] < 1e-3
        assert len(worker.ask({"do": "run", "count": 3}, 60)["times_ms"]) == 3


@pytest.mark.parametrize("name", ["torch", "onnxruntime", "openvino", "ncnn", "mnn"])
def test_peers_give_the_originals_outputs(name, prepared):
    needs({"ncnn": "pnnx", "mnn": "MNN"}.get(name, name), why="make setup")
    _check_outputs(name, prepared("convolution"))


def test_named_inputs_and_nested_outputs_keep_their_order(prepared):
    needs("onnxruntime", why="make setup")
    _check_outputs("onnxruntime", prepared("nested"))


@pytest.mark.skipif(os.name != "posix", reason="the stand-in for pip is a shell script")
def test_mnns_converter_installs_nothing(prepared, tmp_path, monkeypatch):
    """Its wrapper calls pip; a benchmark must leave the machine as it was."""
    needs("MNN", why="make setup")
    called = tmp_path / "called"
    (tmp_path / "pip").write_text(f"#!/bin/sh\necho $@ >> {called}\n")
    (tmp_path / "pip").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    _check_outputs("mnn", prepared("convolution"))
    assert not called.exists()


@pytest.mark.parametrize("suffix", ["pt2", "pt", "onnx"])
def test_files_are_models_too(suffix, prepared, tmp_path):
    """The forms made of one model are themselves models, of which all forms are made again."""
    needs("onnxruntime", why="make setup")
    first = prepared("convolution")
    form = {"pt2": "module", "pt": "torchscript", "onnx": "onnx"}[suffix]
    inputs = ("input=1x3x8x8",) if suffix == "pt" else ()
    workload = prepare(Workload(tmp_path, str(first.path(form)), 1, inputs=inputs), {"onnx"})
    _check_outputs("onnxruntime", workload)


def test_inductor_gives_the_originals_outputs(prepared):
    needs("g++", why="torch.compile needs a C++ compiler")
    _check_outputs("inductor", prepared("convolution"))


def test_a_peer_that_cannot_run_the_model_says_why(prepared):
    needs("ncnn", "pnnx", why="make setup")
    with (
        WorkerProcess("ncnn", prepared("batch_of_two").folder, 1) as worker,
        pytest.raises(WorkerError, match="no batch dimension"),
    ):
        worker.ask({"do": "build"}, 60)


def test_a_peer_that_dies_is_reported_with_its_signal(prepared):
    with WorkerProcess("torch", prepared("convolution").folder, 1) as worker:
        psutil.Process(worker._process.pid).kill()
        with pytest.raises(WorkerError, match="SIGKILL"):
            worker.ask({"do": "build"}, 60)


def test_a_peer_that_hangs_is_given_up(prepared):
    with (
        WorkerProcess("torch", prepared("convolution").folder, 1) as worker,
        pytest.raises(WorkerError, match="more than 0 s"),
    ):
        worker.ask({"do": "build"}, 0.01)


@pytest.mark.skipif(os.name != "posix", reason="processes are paused by POSIX signals")
def test_idle_runtimes_are_paused_and_ended(prepared):
    with WorkerProcess("onnxruntime", prepared("convolution").folder, 1) as worker:
        worker.ask({"do": "build"}, 60)
        process = psutil.Process(worker._process.pid)
        until = time.monotonic() + 10
        while process.status() != psutil.STATUS_STOPPED and time.monotonic() < until:
            time.sleep(0.01)
        assert process.status() == psutil.STATUS_STOPPED
    assert not psutil.pid_exists(process.pid)


def test_a_package_that_is_missing_is_named(prepared, monkeypatch):
    from compiler.deploy import benchmark_worker
    from compiler.deploy.peers import session

    monkeypatch.setattr(session.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PeerError, match=r"not installed: openvino.*pip install"):
        benchmark_worker.Worker("openvino", prepared("convolution").folder).build()


def test_unknown_models_are_one_line(tmp_path):
    with pytest.raises(ModelError) as error:
        bench._prepare(Workload(tmp_path, "tests.deploy.tiny_model:convolutoin", 1), ())
    assert "did you mean 'convolution'" in str(error.value)
    assert "\n" not in str(error.value)


def test_workloads_survive_writing(tmp_path):
    workload = Workload(tmp_path, "a:b", 2, inputs=("x=1",), names=("x",), troubles={"onnx": "why"})
    workload.save()
    write_pair(tmp_path, [np.arange(3), np.float32(2)], [np.arange(2)])
    assert Workload.open(tmp_path) == workload
    assert [a.tolist() for a in workload.arrays()] == [[0, 1, 2], 2.0]
